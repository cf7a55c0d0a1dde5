"""What is to run, how long it takes, and how the estimate compares with what happened."""

import json
import os
import sys
from pathlib import Path

import pytest
from fabricate import DEVICE, RATE, change, fill, remove, write_result
from hypothesis import given
from hypothesis import strategies as st

from viny import cli
from viny.operations import pending, plan, rates, work
from viny.operations.plan import Task, makespan
from viny.study import Study
from viny.training.schedule import Schedule


@pytest.fixture
def quick(monkeypatch):
    """No Snakemake, no calibration, and the device of the invented results."""
    monkeypatch.setattr(pending, "_snakefiles", list)
    monkeypatch.setattr(rates, "this_device", lambda wanted: rates.Device("cpu", DEVICE))
    monkeypatch.setattr(rates.subprocess, "run", _refuse)


def _refuse(*args, **kwargs):
    raise OSError("no calibration in this test")


@given(st.integers(1, 500), st.integers(1, 80), st.integers(1, 30), st.one_of(st.none(), st.integers(1, 500)))
def test_image_passes_are_those_of_the_schedule(images, batch_size, epochs, steps):
    values = {"batch_size": batch_size, "epochs": epochs, "steps": steps, "optimizer": "adam", "learning_rate": 1.0,
              "weight_decay": 0.0, "gamma": 0.1, "milestones": []}  # fmt: skip
    assert work.passes(values, images) == Schedule.from_settings(images, values).image_passes


def test_parameters_of_the_published_model():
    model = Study.from_config({}).config["model"]
    assert work.encoder_parameters(model) == 4_842_880


def test_the_papers_work():
    grid = {"exclude": [{"pretrain": 0, "intermediate": "cls_intel"}]}
    study = Study.from_config({"study": "paper", "grid": grid})
    assert round(sum(work.image_passes(study, job) for job in study.jobs()) / 1e6, 1) == 157.6


def test_everything_is_to_run_at_first(study):
    found = pending.by_files(study)
    assert [job.folder for job in found.jobs] == [job.folder for job in study.jobs()]
    assert set(found.stores) == set(study.stores())


def test_only_what_is_missing_is_to_run(done):
    cell = next(job for job in done.jobs("finetune") if job.coordinates["intermediate"] == "cls_intel")
    remove(cell)
    assert pending.by_files(done).jobs == [cell]
    encoder = next(job for job in done.jobs("intermediate") if job.coordinates["seed"] == cell.coordinates["seed"])
    remove(encoder)
    assert set(pending.by_files(done).jobs) == {encoder, cell}
    assert pending.by_files(done).stores == []


def test_the_table_of_snakemake_is_read(done):
    cell, store = done.jobs("finetune")[0], done.stores()[0]
    lines = [
        "output_file\tdate\trule\tlog-file(s)\tstatus\tplan",
        f"{cell.metrics}\t-\tfinetune\t-\tmissing\tupdate pending",
        f"{cell.folder}/model.safetensors\t-\tfinetune\t-\tmissing\tupdate pending",
        f"{done.jobs('finetune')[1].metrics}\tMon\tfinetune\t-\tok\tno update",
        f"{done.manifest(store)}\t-\tingest\t-\tmissing\tupdate pending",
        "results/toy/cells.csv\t-\tcollect\t-\tmissing\tupdate pending",
    ]
    found = pending.from_summary(done, "\n".join(lines))
    assert (found.jobs, found.stores, found.others) == ([cell], [store], {"collect": 1})


def test_snakemake_and_missing_files_agree_on_a_new_study(study, configfile):
    asked = pending.by_snakemake(study, Path(configfile))
    assert asked.source == "snakemake"
    by_files = pending.by_files(study)
    assert {job.folder for job in asked.jobs} == {job.folder for job in by_files.jobs}
    assert set(asked.stores) == set(by_files.stores)


def test_snakemake_is_asked_only_where_something_has_been_run(study, configfile, monkeypatch):
    monkeypatch.setattr(pending, "by_snakemake", lambda *_: "asked")
    found = pending.find_pending(study, Path(configfile))
    assert set(found.jobs) == set(study.jobs())
    assert "nothing has been run" in found.source
    job = study.jobs("finetune")[0]
    job.folder.mkdir(parents=True)
    assert pending.find_pending(study, Path(configfile)) == "asked"


def test_the_time_of_a_job_follows_from_finished_runs(done, quick, configfile):
    cell = done.jobs("finetune")[0]
    remove(cell)
    made = plan.make_plan(done, Path(configfile), 2)
    expected = 2.0 + 4 * cell.coordinates["downstream"] / RATE + 0.5
    assert made.estimates == {str(cell.folder): pytest.approx(expected)}
    assert made.elapsed == pytest.approx(expected)
    line = next(line for line in made.lines if line.kind == "finetune")
    assert (line.pending, line.source) == (1, f"{len(done.jobs('finetune')) - 1} finished runs")


def test_a_variant_has_the_speed_of_its_own_runs(config, tmp_path, monkeypatch, quick):
    monkeypatch.chdir(tmp_path)
    config["variants"] = {"fast": {"finetune": {"precision": "bf16"}}, "raw": {"finetune": {"normalize": False}}}
    study = Study.from_config(config)
    fill(study)
    fast, raw = (study.variants[name].own_jobs("finetune") for name in ("fast", "raw"))
    for job in fast:
        change(job, lambda document: document["cost"].update(train_seconds=document["budget"]["image_passes"] / 300))
    for jobs in (fast, raw, study.jobs("finetune")):
        remove(jobs[0])
    made = plan.make_plan(study, tmp_path / "unused.yaml", 1)
    images = 4 * config["grid"]["downstream"][0]
    usual = 2.5 + images / RATE
    assert made.estimates == {
        str(study.jobs("finetune")[0].folder): pytest.approx(usual),
        str(fast[0].folder): pytest.approx(2.5 + images / 300),
        str(raw[0].folder): pytest.approx(usual),  # nothing that takes time is different: its runs count, too
    }
    line = next(line for line in made.lines if line.kind == "finetune")
    assert line.rate == pytest.approx(3 / (2 / RATE + 1 / 300))
    assert line.source == "30 finished runs; 15 finished runs"


def test_runs_elsewhere_or_of_another_model_tell_nothing(done, quick, configfile):
    remove(done.jobs("finetune")[0])
    for job in done.jobs("finetune")[1:]:
        change(job, lambda document: document["provenance"].update(device_name="another"))
    assert rates.from_finished_runs(done, rates.this_device("auto"), {"finetune"}) == {}
    made = plan.make_plan(done, Path(configfile), 2)
    assert made.elapsed is None
    assert made.device_seconds is None


def test_measuring_takes_as_long_as_there_are_images_to_measure(done, config):
    config["finetune"]["test_images"] = 60  # the finished runs had 20
    found = rates.from_finished_runs(Study.from_config(config), rates.Device("cpu", DEVICE), {"finetune"})
    assert found["finetune"].evaluate == pytest.approx(3 * 0.5)


def test_calibration_measures_every_kind(study, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    known: dict = {}
    kinds = {"pretrain", "intermediate cls_intel", "finetune", "geometry"}
    found = rates.calibrate(study, rates.Device("cpu", DEVICE), kinds, known)
    assert set(found) == kinds
    assert all(rate.images_per_second > 0 and rate.startup > 0 for rate in found.values())
    monkeypatch.setattr(rates.subprocess, "run", _refuse)
    assert rates.calibrate(study, rates.Device("cpu", DEVICE), kinds, known) == found  # kept, not measured again


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.integers(1, 4))
def test_makespan_lies_between_its_bounds(seconds, at_once):
    tasks = [Task(str(number), value) for number, value in enumerate(seconds)]
    found = makespan(tasks, at_once)
    assert max(max(seconds), sum(seconds) / at_once) - 1e-6 <= found <= sum(seconds) + 1e-6


def test_makespan_waits_for_what_a_job_needs():
    tasks = [Task("cell", 1.0, ["encoder"]), Task("encoder", 5.0, ["store", "elsewhere"]), Task("store", 2.0)]
    assert makespan(tasks, 4) == pytest.approx(8.0)


def test_an_estimate_outlives_the_job(done, quick, configfile, capsys):
    one, other = done.jobs("finetune")[:2]
    remove(one)
    remove(other)
    assert cli.main(["plan", "--configfile", configfile]) == 0
    assert "2 to run" in capsys.readouterr().out
    first = plan.read_kept(done)["estimates"]
    write_result(done, one)
    change(one, lambda document: document["cost"].update(train_seconds=100.0, images_per_second=1.28))
    cli.main(["plan", "--configfile", configfile, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["cells_to_run"] == 1
    assert plan.read_kept(done)["estimates"][str(one.folder)] == first[str(one.folder)]
    cli.main(["plan", "--configfile", configfile, "--review", "--json"])
    review = json.loads(capsys.readouterr().out)
    assert review["unfinished"] == 1
    found = review["stages"]["finetune"]
    assert (found["jobs"], found["measured"]) == (1, 102.5)
    assert found["ratio"] == pytest.approx(102.5 / first[str(one.folder)]["seconds"])


def test_results_older_than_the_estimate_are_not_counted(done, quick, configfile, capsys):
    cell = done.jobs("finetune")[0]
    remove(cell)
    cli.main(["plan", "--configfile", configfile])
    write_result(done, cell, finished="2020-01-01T10:01:00+00:00")
    capsys.readouterr()
    cli.main(["plan", "--configfile", configfile, "--review", "--json"])
    assert json.loads(capsys.readouterr().out)["stages"] == {}


def test_a_review_without_an_estimate_says_what_to_do(study, configfile, capsys):
    assert cli.main(["plan", "--configfile", configfile, "--review"]) == 1
    assert "run `viny plan` before" in capsys.readouterr().err


def test_nothing_to_do(config, tmp_path, monkeypatch, quick, configfile, capsys):
    monkeypatch.chdir(tmp_path)
    study = Study.from_config(config)
    fill(study)
    assert cli.main(["plan", "--configfile", configfile]) == 0
    assert "16 cells, 0 to run" in capsys.readouterr().out
    assert not (study.folder / plan.FILE).exists()
