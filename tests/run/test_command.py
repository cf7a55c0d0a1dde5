"""`viny run`: jobs and stores by name, stages by hand, and what its exit codes say."""

import json

import pytest
from safetensors.numpy import load_file
from tiny import MODEL, STUDY, Jobs

from viny import run as viny_run
from viny.datasets.store import Store
from viny.run import EXIT_CODES

QUICK = {"steps": 1, "milestones": []}


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
    said, logged = capsys.readouterr().err.splitlines(), log.read_text().splitlines()
    assert [line.split(" INFO ")[1] for line in logged] == said


def test_settings_on_the_command_line_are_laid_over_the_file(jobs):
    line = jobs.arguments("finetune")
    assert viny_run.main([*line, "--config", "finetune.steps=2", "finetune.milestones=[]"]) == 0
    assert document(jobs.job("finetune").folder)["budget"]["steps"] == 2


def test_a_store_is_made_by_its_name(main, jobs, tmp_path):
    [spec] = [store for store in jobs.study(stores=str(tmp_path / "stores")).stores if store.name == "pets"]
    name = f"stores/{spec.folder.relative_to(spec.root)}"
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


@pytest.mark.parametrize(
    ("words", "images"),
    [
        (("pretrain", "--images", 12), 12),
        (("finetune", "--images", 8), 8),
        (("intermediate", "--task", "cls_intel"), 30),
        (("intermediate", "--task", "spatial_pets"), 54),
    ],
)
def test_a_stage_runs_outside_of_the_grid(main, tmp_path, words, images):
    output = tmp_path / "by-hand"
    section = {"intermediate": {words[2]: QUICK}} if words[0] == "intermediate" else {words[0]: QUICK}
    assert main(*words, "--seed", 7, "--output", output, **section) == 0
    found = document(output)
    assert (found["stage"], found["provenance"]["seed"]) == (words[0], 7)
    assert found["budget"]["images"] == images
    assert found["budget"]["steps"] == 1


def test_a_run_by_hand_is_that_of_the_grid(once, main, tmp_path):
    assert main("finetune", "--images", 24, "--seed", 1, "--output", tmp_path / "by-hand") == 0
    assert (tmp_path / "by-hand" / "model.safetensors").read_bytes() == once.run("finetune").weights


@pytest.fixture(scope="session")
def deeper(stores, tmp_path_factory):
    """An encoder of other sizes than the study's."""
    folder = tmp_path_factory.mktemp("deeper")
    return Jobs(stores, folder).run("pretrain", model={"depth": 2, "width": 24}, **QUICK).job.checkpoint


@pytest.mark.parametrize(
    "words", [("finetune", "--images", 24), ("intermediate", "--task", "cls_intel"), ("geometry",)], ids=lambda w: w[0]
)
def test_a_given_encoder_keeps_its_sizes(jobs, stores, deeper, tmp_path, words, monkeypatch):
    monkeypatch.chdir(stores.parent)
    study = {key: value for key, value in STUDY.items() if key != "model"}
    study |= {"stores": str(stores), "finetune": {**STUDY["finetune"], **QUICK}, "intermediate": {"cls_intel": QUICK}}
    study |= {"data": {"procedural": STUDY["data"]["procedural"]}, "grid": {"pretrain": [0], "downstream": [24]}}
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study))
    rest = ["--seed", "1", "--encoder", str(deeper), "--output", str(tmp_path / "by-hand")]
    assert viny_run.main([*map(str, words), "--configfile", str(path), *rest]) == 0
    found = document(tmp_path / "by-hand")
    assert found["settings"]["model"] == {**MODEL, "depth": 2, "width": 24, "initialization": "timm", "timm": None}
    if words[0] != "geometry":
        [weights] = (tmp_path / "by-hand").glob("*.safetensors")
        assert any("blocks.1." in name for name in load_file(weights))


def test_sizes_that_the_study_file_gives_must_be_those_of_the_encoder(main, deeper, tmp_path, capsys):
    words = ("finetune", "--images", 24, "--seed", 1, "--encoder", deeper, "--output", tmp_path / "by-hand")
    assert main(*words) == 4
    assert "of other sizes than the section `model`: width 24, not 16; depth 2, not 1" in capsys.readouterr().err
    assert not (tmp_path / "by-hand").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("finetune", "--images", 8), "viny run finetune needs --seed, --output"),
        (("finetune", "--seed", 1, "--output", "x"), "viny run finetune needs --images"),
        (("intermediate", "--seed", 1, "--output", "x"), "needs --task"),
        (("intermediate", "--task", "cls_intl", "--seed", 1, "--output", "x"), "did you mean `cls_intel`"),
        (("geometry", "--seed", 1, "--output", "x"), "needs --encoder"),
        (("finetune", "--images", 8, "--seed", 1, "--output", "x", "--encoder", "gone"), "gone: no such model file"),
        (("pretrain", "--images", 8, "--seed", 1, "--output", "x", "--encoder", "gone"), "begins with random weights"),
        (("pretrain", "--images", 39, "--seed", 1, "--output", "x"), "39"),
    ],
)
def test_what_a_stage_by_hand_lacks_is_named(main, capsys, words, message):
    assert main(*words) in (1, 4)
    assert message in (said := capsys.readouterr().err)
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "words", [("--images", "0"), ("--images", "many"), ("--seed", "one"), ("--seed", "-1"), ("--epohcs", "3")]
)
def test_a_wrong_flag_is_named(main, capsys, words):
    with pytest.raises(SystemExit) as ended:
        main("finetune", *words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
