"""What is to run, how long it takes, and what is missing for it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fabricate import DEVICE, RATE, change, fill, jobs, make_study, remove
from hypothesis import given
from hypothesis import strategies as st

from viny import cli
from viny.commands import calibrate, estimates, plan
from viny.config.sections import Finetuning
from viny.training.schedule import Schedule


@pytest.fixture
def quick(monkeypatch):
    """No calibration, the device of the invented results, and images that are there."""
    monkeypatch.setattr(estimates, "this_device", lambda compute: (DEVICE, 2))
    monkeypatch.setattr(calibrate, "measure", _refuse)
    images()


def images() -> None:
    """Folders where the images would be."""
    for folder in ("imagenet/train", "intel", "oxford-iiit-pet"):
        Path("data", folder).mkdir(parents=True)


def _refuse(job, compute):
    raise RuntimeError("CUDA out of memory\nand more")


def to_run(made: plan.Plan) -> int:
    return sum(line.to_run for line in made.lines)


def line(made: plan.Plan, kind: str) -> plan.Line:
    return next(line for line in made.lines if line.kind == kind)


@given(st.integers(1, 500), st.integers(1, 80), st.integers(1, 30), st.one_of(st.none(), st.integers(1, 500)))
def test_samples_are_those_of_the_schedule(images, batch_size, epochs, steps):
    settings = Finetuning(batch_size=batch_size, epochs=epochs, steps=steps, milestones=())
    assert settings.samples_seen(images) == Schedule(images, settings).samples_seen


def test_the_papers_work():
    study = make_study({"study": "paper", "grid": {"exclude": [{"pretrain": 0, "intermediate": "cls_intel"}]}})
    assert round(sum(estimates.samples(job) for job in study.jobs.values()) / 1e6, 1) == 157.6
    assert line(plan.make_plan(study), "pretrain").samples == 103_500_000


def test_everything_is_to_run_at_first(study, quick):
    made = plan.make_plan(study)
    assert to_run(made) == len(study.jobs)
    assert made.stores == len(study.stores)


def test_only_what_is_missing_is_to_run(done, quick):
    cell = next(job for job in jobs(done, "finetune") if job.coordinates["intermediate"] == "cls_intel")
    remove(cell)
    assert to_run(plan.make_plan(done)) == line(plan.make_plan(done), "finetune").to_run == 1
    remove(cell.upstream)
    made = plan.make_plan(done)
    assert to_run(made) == 2
    assert line(made, "intermediate cls_intel").to_run == 1
    assert made.stores == 0


def test_what_is_not_up_to_date_is_to_run(done, config, quick):
    config["finetune"]["epochs"] = 5
    study = make_study(config)
    made = plan.make_plan(study)
    assert to_run(made) == line(made, "finetune").to_run == line(made, "finetune").jobs


def test_the_time_of_a_job_follows_from_finished_runs(done, quick):
    cell = jobs(done, "finetune")[0]
    remove(cell)
    made = plan.make_plan(done, 2)
    expected = 2.0 + 4 * cell.coordinates["downstream"] / RATE + 0.5
    assert line(made, "finetune").seconds == pytest.approx(expected)
    assert made.elapsed_seconds == pytest.approx(expected)  # one job cannot be shared
    assert line(made, "finetune").to_run == 1
    assert line(made, "finetune").source == f"{len(jobs(done, 'finetune')) - 1} finished runs"


def test_runs_of_another_study_tell_as_well(study, config, quick):
    config["study"] = "other"
    fill(make_study(config))
    made = plan.make_plan(study)
    assert None not in [found.seconds for found in made.lines]
    assert line(made, "finetune").source == f"{len(jobs(study, 'finetune'))} finished runs"


def test_geometry_takes_as_long_as_it_looks_at_images(config, quick):
    study = make_study(config | {"geometry": {"enabled": True}})
    fill(study)
    remove(jobs(study, "geometry")[0])
    assert line(plan.make_plan(study), "geometry").seconds == pytest.approx(2.5)


def test_a_variant_has_the_speed_of_its_own_runs(config, quick):
    config["variants"] = {"fast": {"finetune": {"precision": "bf16"}}, "raw": {"finetune": {"normalize": False}}}
    study = make_study(config)
    fill(study)
    for job in jobs(study, "finetune", "fast"):
        change(job, lambda document: document["cost"].update(train_seconds=document["budget"]["samples_seen"] / 300))
    for variant in ("fast", "raw", ""):
        remove(jobs(study, "finetune", variant)[0])
    made = plan.make_plan(study, 1)
    images = 4 * config["grid"]["downstream"][0]
    assert line(made, "finetune").seconds == pytest.approx(3 * 2.5 + 2 * images / RATE + images / 300)
    assert line(made, "finetune").rate == pytest.approx(3 / (2 / RATE + 1 / 300))
    # Nothing that takes time is different in `raw`: its runs and those of the study count for each other.
    assert line(made, "finetune").source == "30 finished runs; 15 finished runs"


@pytest.mark.parametrize(
    "edit",
    [
        lambda document: document["provenance"].update(device_name="another"),
        lambda document: document["provenance"].update(compute={"threads": 8}),
        lambda document: document["settings"]["model"].update(width=32),
        lambda document: document["settings"]["finetune"].update(batch_size=8),
        lambda document: document.update(cost=None),
    ],
)
def test_runs_elsewhere_or_of_another_pace_tell_nothing(done, quick, edit):
    for job in jobs(done, "finetune"):
        change(job, edit)
    made = plan.make_plan(done, 2)
    remove(jobs(done, "finetune")[0])
    made = plan.make_plan(done, 2)
    assert line(made, "finetune").seconds is None
    assert made.elapsed_seconds is None
    assert made.device_seconds is None


def test_runs_that_measured_another_number_of_images_tell_nothing(done, config, quick):
    config["finetune"]["test_images"] = 60  # the finished runs had 20
    assert line(plan.make_plan(make_study(config)), "finetune").seconds is None


def test_images_that_nobody_has_counted_are_named(study, quick, configfile, capsys):
    path = Path(configfile)
    config = json.loads(path.read_text())
    config["data"] = {"sets": {"leaves": {"images": "leaves", "labels": "folders"}}}
    config["intermediate"]["cls_intel"]["images"] = "leaves"
    path.write_text(json.dumps(config))
    Path("data/leaves").mkdir()
    assert cli.main(["plan", "--configfile", configfile]) == 0
    assert "unknown: the number of images of leaves, until it is decoded" in capsys.readouterr().out


def test_elapsed_is_that_of_the_longest_chain_or_of_the_shared_work(study):
    cell = next(job for job in jobs(study, "finetune") if job.upstream and job.upstream.upstream)
    chain = {cell: 1.0, cell.upstream: 2.0, cell.upstream.upstream: 4.0}
    assert estimates.elapsed(chain, 8) == pytest.approx(7.0)
    others = {job: 5.0 for job in jobs(study, "finetune") if job is not cell}
    assert estimates.elapsed(chain | others, 1) == pytest.approx(7.0 + 5 * len(others))
    assert estimates.elapsed({}, 1) == 0.0


def test_disk_is_about_what_images_and_weights_take(quick):
    config = {
        "study": "paper",
        "grid": {"pretrain": [4000], "intermediate": ["none"], "downstream": [250], "seeds": [1]},
    }
    stores, weights = 5000 * 160**2 * 3 + 1250 * 128**2 * 4, 2 * 4 * 4_842_880
    assert plan.make_plan(make_study(config)).disk_bytes == pytest.approx(stores + weights, rel=0.02)


def test_missing_images_and_encoders_are_named_and_nothing_is_estimated(config, tmp_path, capsys):
    config |= {"encoders": {"released": {"file": "released.safetensors"}}}
    config["grid"]["pretrain"] = [0, 256, "released"]
    path = tmp_path / "study.json"
    path.write_text(json.dumps(config))
    Path("data/intel").mkdir(parents=True)
    assert cli.main(["plan", "--configfile", str(path)]) == 1
    said = capsys.readouterr().out
    assert "missing: data/imagenet/train, the images of the data set imagenet" in said
    assert "missing: data/oxford-iiit-pet, the images of the data set pets" in said
    assert "missing: data/released.safetensors, the encoder released" in said
    assert "data/intel," not in said
    assert "jobs at once" not in said
    assert cli.main(["plan", "--configfile", str(path), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["missing"]) == 3
    assert document["elapsed_seconds"] is None


def test_images_are_not_missed_once_they_are_decoded_or_if_they_are_downloaded(done, config, quick):
    shutil.rmtree("data")
    remove(jobs(done, "finetune")[0])
    assert plan.make_plan(done).missing == ()
    shutil.rmtree("stores")
    assert len(plan.make_plan(done).missing) == 1
    config["data"] = {"download": True}
    assert plan.make_plan(make_study(config)).missing == ()


def test_calibration_measures_every_kind(config):
    config["geometry"] = {"enabled": True}
    config["intermediate"]["spatial_pets"] = {"epochs": 4}
    config["grid"]["intermediate"].append("spatial_pets")
    images()
    made = plan.make_plan(make_study(config))
    assert made.unknown == ()
    for found in made.lines:
        assert found.source == "calibration"
        assert found.seconds > 0
        assert (found.rate is None) == (found.kind == "geometry")
    assert list(Path().iterdir()) == [Path("data")]


def test_why_a_calibration_failed_is_one_line(study, quick, configfile, capsys):
    assert cli.main(["plan", "--configfile", configfile]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "unknown: the time of finetune, since it fails on random images: CUDA out of memory" in said
    assert "time  ? with 2 jobs at once, if each keeps its rate" in said


def test_planning_nothing(done, quick, configfile, capsys):
    assert cli.main(["plan", "--configfile", configfile]) == 0
    said = capsys.readouterr().out
    assert "All results are there" in said
    assert cli.main(["plan", "--configfile", configfile, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["elapsed_seconds"] == 0.0


@pytest.mark.parametrize("jobs_at_once", ["0", "-1", "many"])
def test_jobs_at_once_are_a_positive_number(configfile, jobs_at_once, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["plan", "--configfile", configfile, "--jobs", jobs_at_once])
    assert ended.value.code == 2


def test_a_plan_needs_no_torch():
    code = "import sys, viny.commands.plan, viny.commands.status, viny.commands.statusview, viny.commands.verify; "
    code += "print([m for m in ('torch', 'pandas', 'matplotlib', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_seeds_that_find_a_difference(study, configfile, capsys):
    assert cli.main(["plan", "--configfile", configfile, "--detect", "0.5"]) == 0
    assert capsys.readouterr().out.startswith("14 seeds in each of two cells find a difference of 0.5 points")
    with pytest.raises(SystemExit):
        cli.main(["plan", "--configfile", configfile, "--detect", "-1"])
