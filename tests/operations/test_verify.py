"""Each kind of damage is found and named; what is whole, moved or incomplete passes."""

import math
import shutil

import pytest
from fabricate import change, checksum, fill, remove, write_result

from viny import cli
from viny.operations.verify import verify
from viny.study import Study


def problems(study) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for where, problem in verify(study).problems:
        found.setdefault(where, []).append(problem)
    return found


def only_problem(study, job) -> str:
    """The one problem there is, which must be at `job`."""
    found = problems(study)
    assert list(found) == [str(job.folder)], found
    assert len(found[str(job.folder)]) == 1, found
    return found[str(job.folder)][0]


def test_a_whole_study_has_no_problems(done):
    report = verify(done)
    assert (report.results, report.missing, report.problems) == (len(done.jobs()), [], [])


def test_a_study_with_shared_encoders_and_geometry_is_whole(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config["grid"]["share_encoder"] = True
    config["geometry"] = {"enabled": True}
    study = Study.from_config(config)
    fill(study)
    assert verify(study).problems == []


def test_results_without_stores_verify(done):
    shutil.rmtree("stores")
    report = verify(done)
    assert report.problems == []
    assert any("stores are not here" in note for note in report.notes)


def test_missing_results_are_counted(done):
    remove(done.jobs("finetune")[0])
    report = verify(done)
    assert (len(report.missing), report.problems) == (1, [])


def test_weights_may_be_deleted_but_other_files_not(done):
    job = done.jobs("finetune")[0]
    (job.folder / "model.safetensors").unlink()
    assert problems(done) == {}
    (job.folder / "history.jsonl").unlink()
    assert only_problem(done, job) == "history.jsonl is missing"


@pytest.mark.parametrize("name", ["model.safetensors", "history.jsonl", "examples.npz"])
def test_a_changed_file_is_found(done, name):
    job = done.jobs("finetune")[1]
    with (job.folder / name).open("r+b") as file:
        file.write(b"X")
    assert only_problem(done, job).startswith(f"{name} is not the file that the run wrote")


def test_a_damaged_metrics_file_is_found(done):
    job = done.jobs("finetune")[2]
    job.metrics.write_text(job.metrics.read_text()[:100])
    assert "damaged" in only_problem(done, job)


def test_a_value_outside_its_range_is_found(done):
    job = done.jobs("pretrain")[0]
    change(job, lambda document: document["cost"].update(resumes=-1))
    assert "cost.resumes" in only_problem(done, job)


def test_a_score_that_contradicts_the_confusion_matrix_is_found(done):
    job = done.jobs("finetune")[0]
    change(job, lambda document: document["metrics"].update(miou=0.9))
    assert only_problem(done, job).startswith("metrics.json: miou is 0.900000, but the confusion matrix says 0.5")


@pytest.mark.parametrize("absent", [None, math.nan])
def test_a_class_that_never_occurs_has_no_score(done, absent):
    job = done.jobs("finetune")[0]
    scores = {"confusion": [[3, 1, 0], [1, 3, 0], [0, 0, 0]], "pixel_accuracy": 0.75, "miou": 0.6}
    scores["class_iou"] = {"foreground": 0.6, "background": 0.6, "border": absent}
    change(job, lambda document: document["metrics"].update(scores))
    assert problems(done) == {}
    change(job, lambda document: document["metrics"]["class_iou"].update(border=0.5))
    assert "class_iou.border is 0.500000, but the confusion matrix says nan" in only_problem(done, job)
    scores["class_iou"]["foreground"] = None
    change(job, lambda document: document["metrics"].update(scores))
    assert "class_iou.foreground is nan, but the confusion matrix says 0.600000" in problems(done)[str(job.folder)][0]


def test_a_result_at_another_place_is_found(done):
    one, other = done.jobs("finetune")[:2]
    shutil.copytree(one.folder, other.folder, dirs_exist_ok=True)
    assert "it was moved or copied" in only_problem(done, other)


def test_results_of_another_study_are_found(done):
    job = done.jobs("finetune")[0]
    change(job, lambda document: document["coordinates"].update(study="other"))
    assert only_problem(done, job) == "was made for the study other, not toy"


def test_a_new_encoder_is_found_at_those_that_started_from_the_old(done):
    encoder = done.jobs("pretrain")[0]
    (encoder.folder / "encoder.safetensors").write_bytes(b"trained again")
    change(encoder, lambda document: document["outputs"].update({"encoder.safetensors": checksum_of(b"trained again")}))
    found = problems(done)
    affected = [job for job in done.jobs() if job.stage != "pretrain" and job.coordinates["pretrain"] == 256
                and job.coordinates["seed"] == encoder.coordinates["seed"]
                and (job.stage == "intermediate" or job.coordinates["intermediate"] == "none")]  # fmt: skip
    assert set(found) == {str(job.folder) for job in affected}
    assert all("started from another encoder" in problem for [problem] in found.values())


def checksum_of(content: bytes) -> str:
    return checksum(content.decode())


def test_a_run_from_random_weights_where_an_encoder_is_declared_is_found(done):
    job = next(job for job in done.jobs("finetune") if job.coordinates["pretrain"] == 256)
    change(job, lambda document: document["provenance"]["inputs"].pop("encoder"))
    assert only_problem(done, job).startswith("started from random weights")


def test_other_images_are_found_with_and_without_the_store(done):
    jobs = [job for job in done.jobs("finetune") if job.coordinates["downstream"] == 32]
    change(jobs[0], lambda document: document["provenance"]["inputs"].update(store=checksum("others")))
    assert only_problem(done, jobs[0]).startswith("read other images")
    shutil.rmtree("stores")
    assert only_problem(done, jobs[0]).startswith("read other images")


def test_two_versions_of_the_code_are_found(done):
    job = done.jobs("finetune")[3]
    write_result(done, job, code="other code")
    assert only_problem(done, job).startswith("was made by other code (other code)")


def test_settings_that_are_not_those_of_the_config_are_found(done, config):
    config["finetune"]["learning_rate"] = 1.0e-4
    found = problems(Study.from_config(config))
    assert set(found) == {str(job.folder) for job in done.jobs("finetune")}
    assert {problem for all_of_it in found.values() for problem in all_of_it} == {
        "was made with finetune.learning_rate 0.002, but the config says 0.0001"
    }


def test_settings_edited_in_the_file_are_found(done):
    job = done.jobs("pretrain")[0]
    change(job, lambda document: document["settings"]["pretrain"].update(crop_scale=[0.1, 1.0]))
    assert any("changed since the run" in problem for problem in problems(done)[str(job.folder)])


def test_results_that_are_no_longer_declared_are_noted(done, config):
    config["grid"]["seeds"] = [1]
    report = verify(Study.from_config(config))
    assert report.problems == []
    assert any("no longer declared" in note for note in report.notes)


def test_exit_code_and_report(done, configfile, capsys):
    assert cli.main(["verify", "--configfile", configfile]) == 0
    assert "all whole" in capsys.readouterr().out
    job = done.jobs("finetune")[0]
    remove(job)
    assert cli.main(["verify", "--configfile", configfile]) == 0
    assert cli.main(["verify", "--configfile", configfile, "--complete"]) == 1
    assert str(job.folder) in capsys.readouterr().out
    (done.jobs("pretrain")[0].folder / "history.jsonl").write_text("")
    assert cli.main(["verify", "--configfile", configfile]) == 1
    assert "history.jsonl is not the file" in capsys.readouterr().out
