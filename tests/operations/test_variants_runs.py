"""The runs of variants are planned, shown and verified with those of their study, each once."""

import json
from pathlib import Path

import pytest
from fabricate import change, fill, remove

from viny import cli
from viny.operations import pending, status
from viny.operations.verify import verify
from viny.study import Study

VARIANTS = {
    "raw": {"finetune": {"normalize": False}, "grid": {"exclude": [{"pretrain": 256}]}},
    "masked": {"pretrain": {"mask_ratio": 0.6}, "grid": {"exclude": [{"pretrain": 0}, {"intermediate": "cls_intel"}]}},
}
OWN = {"raw": 8, "masked": 2 + 4}


@pytest.fixture
def config(config) -> dict:
    return config | {"variants": VARIANTS}


def test_what_is_missing_is_to_run(study):
    found = pending.by_files(study)
    assert set(found.jobs) == set(study.all_jobs())
    assert len(found.jobs) == len(study.jobs()) + sum(OWN.values())


def test_a_variants_cell_needs_its_own_encoder(done):
    cell = done.variants["masked"].own_jobs("finetune")[0]
    encoder = next(job for job in done.variants["masked"].own_jobs("pretrain") if job.coordinates["seed"] == 1)
    remove(cell)
    assert pending.by_files(done).jobs == [cell]
    remove(encoder)
    assert set(pending.by_files(done).jobs) == {cell, encoder}


def test_snakemake_and_missing_files_agree(study, configfile):
    asked = pending.by_snakemake(study, Path(configfile))
    assert asked.source == "snakemake"
    assert {job.folder for job in asked.jobs} == {job.folder for job in pending.by_files(study).jobs}


def test_the_status_counts_each_run_once(done, configfile, capsys):
    remove(done.variants["raw"].own_jobs()[0])
    cli.main(["status", "--configfile", configfile])
    shown = capsys.readouterr().out
    assert f"{len(done.all_jobs()) - 1} of {len(done.all_jobs())} jobs done" in shown
    lines = [line.split() for line in shown.splitlines()]
    assert ["raw", "7/8"] in lines
    assert ["masked", "2/2", "4/4"] in lines
    waiting = [found for found in status.gather(done) if found.state == "waiting"]
    assert [(found.variant, found.name.split()[1]) for found in waiting] == [("raw", "variant=raw")]


def test_a_running_variant_is_not_taken_for_the_study_itself(study):
    cell = study.variants["raw"].own_jobs("finetune")[0]
    folder = study.variants["raw"].state / "finetune-x"
    folder.mkdir(parents=True)
    identity = {"coordinates": {"study": study.name, "variant": "raw", **cell.coordinates}}
    (folder / "run.json").write_text(json.dumps({"stage": "finetune", "identity": identity}))
    (folder / "progress.json").write_text("{}")
    begun = {found.job.folder for found in status.gather(study) if found.state in ("running", "interrupted")}
    assert begun == {cell.folder}


def test_a_whole_study_verifies(done):
    report = verify(done)
    assert (report.results, report.missing, report.problems) == (len(done.all_jobs()), [], [])


def test_the_result_of_another_variant_is_found(done):
    job = done.variants["raw"].own_jobs("finetune")[0]
    change(job, lambda document: document["coordinates"].pop("variant"))
    assert (str(job.folder), "was made for the study itself, not the variant raw") in verify(done).problems


def test_results_of_a_variant_that_is_gone_are_noted(done, config):
    report = verify(Study.from_config(config | {"variants": {"raw": VARIANTS["raw"]}}))
    assert report.problems == []
    assert any("6 results no longer declared" in note for note in report.notes)


def test_all_is_there(done, configfile, capsys):
    fill(done)
    assert cli.main(["plan", "--configfile", configfile]) == 0
    assert "jobs" in capsys.readouterr().out
