"""Each kind of damage is found and named; what is whole, moved, incomplete or of an earlier format passes."""

import json
import shutil
from pathlib import Path

import pytest
from fabricate import change, checksum, fill, jobs, make_study, remove, write_store

from viny import cli
from viny.commands.verify import verify

VARIANTS = {
    "raw": {"finetune": {"normalize": False}, "grid": {"exclude": [{"pretrain": 256}]}},
    "masked": {"pretrain": {"mask_ratio": 0.6}, "grid": {"exclude": [{"pretrain": 0}, {"intermediate": "cls_intel"}]}},
}


def problems(study) -> dict[str, list[str]]:
    return {job.name: found for job, found in verify(study).problems.items()}


def only_problem(study, job) -> str:
    """The one problem there is, which must be at `job`."""
    found = problems(study)
    assert list(found) == [job.name], found
    assert len(found[job.name]) == 1, found
    return found[job.name][0]


@pytest.mark.parametrize("version", [1, 2])
def test_a_whole_study_has_no_problems(study, version):
    fill(study, version)
    report = verify(study)
    assert (report.results, report.missing, report.problems, report.undeclared) == (len(study.jobs), [], {}, [])
    assert set(report.outdated.values()) == ({"it was made by an earlier version of viny"} if version == 1 else set())


@pytest.mark.parametrize("version", [1, 2])
def test_a_study_with_shared_encoders_geometry_and_variants_is_whole(config, version):
    config["grid"]["share_encoder"] = True
    config["geometry"] = {"enabled": True}
    study = make_study(config | {"variants": VARIANTS})
    fill(study, version)
    assert verify(study).problems == {}


def test_results_without_stores_verify(done):
    shutil.rmtree("stores")
    report = verify(done)
    assert (report.problems, report.outdated) == ({}, {})


def test_missing_results_are_counted(done):
    remove(jobs(done, "finetune")[0])
    report = verify(done)
    assert (len(report.missing), report.problems) == (1, {})


def test_an_encoder_that_nothing_starts_from_any_more_is_not_missing(done):
    encoder = jobs(done, "intermediate")[0]
    shutil.rmtree(encoder.folder)
    report = verify(done)
    assert (report.missing, report.problems) == ([], {})
    cell = next(job for job in jobs(done, "finetune") if job.upstream is encoder)
    remove(cell)
    assert set(verify(done).missing) == {encoder, cell}


def test_weights_may_be_deleted_but_other_files_not(done):
    job = jobs(done, "finetune")[0]
    (job.folder / "model.safetensors").unlink()
    assert problems(done) == {}
    (job.folder / "history.jsonl").unlink()
    assert only_problem(done, job) == "history.jsonl is missing"


@pytest.mark.parametrize("name", ["model.safetensors", "history.jsonl", "examples.npz"])
def test_a_changed_file_is_found(done, name):
    job = jobs(done, "finetune")[1]
    with (job.folder / name).open("r+b") as file:
        file.write(b"X")
    assert only_problem(done, job).startswith(f"{name} is not the file that the run wrote")


def test_a_damaged_metrics_file_is_found(done):
    job = jobs(done, "finetune")[2]
    job.metrics.write_text(job.metrics.read_text()[:100])
    assert only_problem(done, job).startswith("metrics.json is damaged")


def test_a_value_outside_its_range_is_found(done):
    job = jobs(done, "pretrain")[0]
    change(job, lambda document: document["cost"].update(resumes=-1))
    assert "cost.resumes" in problems(done)[job.name][0]


def test_a_score_that_contradicts_the_confusion_matrix_is_found(done):
    job = jobs(done, "finetune")[0]
    change(job, lambda document: document["metrics"].update(miou=0.9))
    assert "miou is 0.9, but the confusion matrix says 0.5" in only_problem(done, job)


def test_a_result_at_another_place_is_found(done):
    one, other = jobs(done, "finetune")[:2]
    shutil.copytree(one.folder, other.folder, dirs_exist_ok=True)
    assert "it was moved or copied" in only_problem(done, other)


def test_results_of_another_study_are_found(done):
    job = jobs(done, "finetune")[0]
    change(job, lambda document: document["coordinates"].update(study="other"))
    assert "was made for the study other, not toy" in only_problem(done, job)


def test_the_result_of_another_variant_is_found(config):
    study = make_study(config | {"variants": VARIANTS})
    fill(study)
    job = jobs(study, "finetune", "raw")[0]
    change(job, lambda document: document["coordinates"].update(variant=""))
    assert "was made for the study itself, not the variant raw" in only_problem(study, job)


def test_results_of_a_variant_that_is_gone_are_noted(config):
    fill(make_study(config | {"variants": VARIANTS}))
    report = verify(make_study(config | {"variants": {"raw": VARIANTS["raw"]}}))
    assert report.problems == {}
    assert len(report.undeclared) == 6


def test_a_new_encoder_is_found_at_those_that_started_from_the_old(done):
    encoder = jobs(done, "pretrain")[0]
    encoder.checkpoint.write_bytes(b"trained again")
    change(encoder, lambda document: document["outputs"].update({"encoder.safetensors": checksum("trained again")}))
    found = problems(done)
    assert set(found) == {job.name for job in done.jobs.values() if job.upstream is encoder}
    assert all(problem.endswith(str(encoder.checkpoint)) for [problem] in found.values())


def test_a_run_from_random_weights_where_an_encoder_is_declared_is_found(done):
    job = next(job for job in jobs(done, "finetune") if job.coordinates["pretrain"] == 256)
    change(job, lambda document: document["provenance"]["inputs"].pop("encoder"))
    assert only_problem(done, job).startswith("started from random weights")


def test_a_run_from_an_encoder_where_none_is_declared_is_found(done):
    job = jobs(done, "pretrain")[0]
    change(job, lambda document: document["provenance"]["inputs"].update(encoder=checksum("another")))
    assert only_problem(done, job).endswith("but the study declares random weights")


@pytest.mark.parametrize("version", [1, 2])
def test_other_images_are_found_with_and_without_the_store(study, version):
    fill(study, version)
    job = next(job for job in jobs(study, "finetune") if job.coordinates["downstream"] == 32)
    change(job, lambda document: document["provenance"]["inputs"].update(store=checksum("others")))
    assert only_problem(study, job).startswith("read other images")
    shutil.rmtree("stores")
    assert only_problem(study, job).startswith("read other images")


def test_results_that_are_not_up_to_date_are_told_from_broken_ones(done, config, capsys, configfile):
    write_store(jobs(done, "finetune")[0].store, content=1)
    report = verify(done)
    assert report.problems == {}
    assert report.outdated == dict.fromkeys(jobs(done, "finetune"), "the images have changed")
    config["pretrain"]["learning_rate"] = 1.0e-3
    Path(configfile).write_text(json.dumps(config))
    assert cli.main(["verify", "--configfile", configfile]) == 0
    assert "outdated: 2 results; pretrain.learning_rate was 0.0001, is 0.001" in capsys.readouterr().out
    assert cli.main(["verify", "--configfile", configfile, "--complete"]) == 3


def test_settings_edited_in_the_file_are_found(done):
    job = jobs(done, "pretrain")[0]
    change(job, lambda document: document["settings"]["pretrain"].update(crop_scale=[0.1, 1.0]))
    assert any("changed since the run" in problem for problem in problems(done)[job.name])


def test_results_that_are_no_longer_declared_are_noted(done, config):
    config["grid"]["seeds"] = [1]
    report = verify(make_study(config))
    assert report.problems == {}
    assert len(report.undeclared) == 11


def test_exit_code_and_report(done, configfile, capsys):
    assert cli.main(["verify", "--configfile", configfile]) == 0
    assert "all whole" in capsys.readouterr().out
    job = jobs(done, "finetune")[0]
    remove(job)
    assert cli.main(["verify", "--configfile", configfile]) == 0
    assert cli.main(["verify", "--configfile", configfile, "--complete"]) == 3
    assert str(job.folder) in capsys.readouterr().out
    (jobs(done, "pretrain")[0].folder / "history.jsonl").write_text("")
    assert cli.main(["verify", "--configfile", configfile]) == 1
    assert "history.jsonl is not the file" in capsys.readouterr().out
    assert cli.main(["verify", "--configfile", configfile, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["missing"] == [str(job.folder)]
    assert [item["where"] for item in document["problems"]] == [str(jobs(done, "pretrain")[0].folder)]
