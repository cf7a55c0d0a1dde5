"""`viny run`: jobs and stores by name, and what its exit codes say."""

import json

import pytest

from viny import run as viny_run
from viny.datasets.store import Store
from viny.preload import EXIT_CODES


@pytest.fixture
def main(jobs, monkeypatch, stores):
    """Runs a command line with the tiny study; returns its exit code. Generated images are in the working directory."""
    monkeypatch.chdir(stores.parent)

    def run(*words, **sections):
        return viny_run.main([*jobs.command(words[0], **sections), *map(str, words[1:])])

    return run


def document(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_job_runs_by_its_name_and_is_logged_with_times(jobs, capsys):
    log = jobs.folder / "logs" / "x.log"
    assert viny_run.main([*jobs.arguments("finetune"), "--log", str(log)]) == 0
    assert jobs.job("finetune").metrics.exists()
    assert capsys.readouterr().err == ""
    assert all(" INFO finetune/pretrain=0/" in line for line in log.read_text().splitlines())


def test_settings_on_the_command_line_are_laid_over_the_file(jobs):
    line = jobs.arguments("finetune")
    assert viny_run.main([*line, "--config", "finetune.steps=2", "finetune.milestones=[]"]) == 0
    assert document(jobs.job("finetune").folder)["budget"]["steps"] == 2


def test_a_store_is_made_by_its_name(main, jobs, tmp_path):
    [spec] = [store for store in jobs.study(stores=str(tmp_path / "stores")).stores if store.name == "pets"]
    name = f"stores/{spec.place}"
    assert main(name, "--workers", 1, stores=str(tmp_path / "stores")) == 0
    assert Store.open(spec.folder).count == spec.tests + 54


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("finetune/pretrain=0/intermediate=none/downstream=24/seed=3", "neither a job nor a store .*did you mean"),
        ("stores/pets-12345678/16px", "neither a job nor a store of the study tiny"),
        ("fintune", "neither a job nor a store"),
    ],
)
def test_an_unknown_name_is_final(main, capsys, name, message):
    assert main(name) == 4
    assert capsys.readouterr().err.count("viny: error: ") == 1


def test_a_study_file_that_is_not_there_is_final(capsys, tmp_path):
    assert viny_run.main(["pretrain", "--configfile", str(tmp_path / "none.yaml")]) == 4
    assert "there is no config file" in capsys.readouterr().err


def test_help_says_what_exit_codes_mean(capsys):
    with pytest.raises(SystemExit) as ended:
        viny_run.main(["--help"])
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert EXIT_CODES in said


def test_a_job_decodes_its_images_if_they_are_not_there(main, once, jobs, tmp_path):
    job = jobs.job("finetune", stores=str(tmp_path / "stores"))
    assert main(job.name, stores=str(tmp_path / "stores")) == 0
    assert job.checkpoint.read_bytes() == once.run("finetune").weights


@pytest.mark.parametrize("words", [("--workers", "0"), ("--workers", "many"), ("--epohcs", "3")])
def test_a_wrong_flag_is_named(main, capsys, words):
    with pytest.raises(SystemExit) as ended:
        main("finetune", *words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
