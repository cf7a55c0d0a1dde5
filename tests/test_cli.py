"""The command `viny` as a shell meets it: help, mistakes, studies of several files, terminals of all kinds."""

import importlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

import viny
from viny import cli

STUDY = {
    "study": "layered",
    "grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [250, 500, 1000, 2000, 4000, 6000], "seeds": [1]},
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a study of two files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(json.dumps(STUDY))
    (tmp_path / "changes.yaml").write_text("grid: {seeds: [1, 2]}\n")
    return tmp_path


def names(capsys) -> set[str]:
    return {job["name"] for job in json.loads(capsys.readouterr().out)["jobs"] if job["stage"] == "finetune"}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """The command in a process of its own, its output piped."""
    source = str(Path(viny.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, **environment}
    return subprocess.run([sys.executable, "-m", "viny", *words], capture_output=True, env=env, check=False)


def test_help_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    assert max(map(len, text.splitlines())) <= 88


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"viny {viny.__version__}\n"


def test_nothing_is_wrong_usage(capsys):
    assert cli.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: viny COMMAND")


def test_an_unknown_command_is_named_with_a_near_one(capsys):
    assert cli.main(["statsu"]) == 2
    assert "there is no command 'statsu' (did you mean `status`?)" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_with_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: viny {name}")
    assert f"\n  viny {name}" in said[said.index("example") :]
    assert max(map(len, said.splitlines())) <= 80


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_of_the_help_are_command_lines(name):
    module = importlib.import_module(cli.COMMANDS[name].partition(":")[0])
    parser = module.parser()
    examples = [line.split()[2:] for line in parser.epilog.splitlines() if line.startswith(f"  viny {name}")]
    assert examples
    for example in examples:
        parser.parse_args(example)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_flag_that_is_none_is_wrong_usage(name, here, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--configfle", "base.yaml"])
    assert ended.value.code == 2


def test_starting_is_light():
    code = "import sys; from viny import cli; cli.main(['--help']); "
    code += "print([m for m in ('torch', 'numpy', 'pandas', 'rich', 'pydantic') if m in sys.modules])"
    source = str(Path(viny.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines()[-1] == "[]"


def test_later_files_are_laid_over_earlier_ones(here, capsys):
    assert cli.main(["status", "--json", "--configfile", "base.yaml", "changes.yaml"]) == 3
    found = names(capsys)
    assert len(found) == 12
    assert any(name.endswith("seed=2") for name in found)


def test_settings_are_laid_over_the_files(here, capsys):
    words = ["status", "--json", "--configfile", "base.yaml", "--config", "grid={downstream: [32]}", "grid.seeds=[5]"]
    assert cli.main(words) == 3
    assert names(capsys) == {"finetune/pretrain=0/intermediate=none/downstream=32/seed=5"}


def recorded(folder: Path, **settings: object) -> None:
    """A folder of results, as far as it names a study."""
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(STUDY | settings))


def test_a_study_is_named_by_its_file_or_by_its_results(here, capsys):
    recorded(here / "results" / "layered")
    for words in (["base.yaml"], ["results/layered"], ["results/layered/"], ["--configfile", "base.yaml"]):
        assert cli.main(["status", "--json", *words]) == 3
        document = json.loads(capsys.readouterr().out)
        assert (document["study"], document["folder"]) == ("layered", "results/layered")


def test_results_are_found_from_any_folder(here, capsys, monkeypatch):
    recorded(here / "work" / "results" / "layered")
    assert cli.main(["status", "--json", "work/results/layered"]) == 3
    assert json.loads(capsys.readouterr().out)["folder"] == "results/layered"
    assert Path.cwd() == here / "work"
    monkeypatch.chdir(here / "work" / "results")
    assert cli.main(["status", "--json", "layered"]) == 3
    assert Path.cwd() == here / "work"


def test_results_that_were_copied_elsewhere_are_read_there(here, capsys):
    recorded(here / "copies" / "layered")
    assert cli.main(["status", "--json", "copies/layered"]) == 3
    assert json.loads(capsys.readouterr().out)["folder"] == str(here / "copies" / "layered")


def test_a_folder_that_holds_no_study_is_named(here, capsys):
    (here / "empty").mkdir()
    recorded(here / "results" / "renamed")
    assert cli.main(["status", "empty"]) == 1
    assert cli.main(["status", "results/renamed"]) == 1
    said = capsys.readouterr().err
    assert "empty is no folder of a study's results: it has no study.json; name the study file" in said
    assert "results/renamed holds results of the study layered" in said


@pytest.mark.parametrize(
    "words",
    [
        ["status", "base.yaml", "--configfile", "base.yaml"],
        ["scores", "base.yaml", "--published"],
        ["scores", "cells.csv", "--config", "study=x"],
        ["ask", "--published", "--miou", "60", "--prices", "labels=1"],
        ["analyze", "--published"],
    ],
)
def test_a_contradiction_or_something_left_out_is_wrong_usage(words, here, capsys):
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("viny: error: ") == 1


def test_exit_codes_mean_the_same_everywhere(here, capsys):
    assert cli.main(["plan", "base.yaml"]) == 1  # no images: it cannot be run
    assert cli.main(["status", "base.yaml"]) == 3
    assert cli.main(["verify", "base.yaml"]) == 0
    assert cli.main(["verify", "base.yaml", "--complete"]) == 3
    assert cli.main(["scores", "base.yaml"]) == 0
    assert cli.main(["scores", "none.yaml"]) == 1
    assert cli.main(["ask", "base.yaml", "--miou", "50"]) == 1
    assert cli.main(["forecast", "base.yaml"]) == 1
    assert cli.main(["inspect", "base.yaml"]) == 1


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["plan", "base.yaml"], {"study", "lines", "elapsed_seconds", "disk_bytes", "missing"}),
        (["plan", "base.yaml", "--detect", "2"], {"study", "points", "run_sd", "seeds_needed"}),
        (["status", "base.yaml"], {"study", "folder", "counts", "seconds_left", "jobs"}),
        (["verify", "base.yaml"], {"study", "results", "missing", "outdated", "problems", "undeclared"}),
        (["scores", "base.yaml"], {"study", "cells"}),
        (["scores", "--published"], {"study", "cells"}),
        (
            ["ask", "--published", "--miou", "60", "--budget", "2000", "--prices", "label=1"],
            {"study", "goal", "budget"},
        ),
        (["forecast", "--published", "--labels", "8000"], {"study", "forecasts", "sealed"}),
    ],
)
def test_what_is_reported_is_also_there_as_json(words, keys, here, capsys):
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    cli.main([*words, "--json"])
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line, parse_constant=refuse).keys() >= keys


def completions(line: str) -> set[str]:
    """What a shell offers at the end of a command line."""
    environment = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    environment |= {"_ARGCOMPLETE_STDOUT_FILENAME": "offered", "COMP_TYPE": "9", "_ARGCOMPLETE_SUPPRESS_SPACE": "1"}
    assert run("unused", **environment).stderr == b""
    return {word.strip() for word in Path("offered").read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("viny st", {"status"}),
        ("viny scores --sp", {"--spread"}),
        ("viny scores --metric ", {"miou", "accuracy"}),
        ("viny status ba", {"base.yaml"}),
    ],
)
def test_the_shell_completes(line, offered, here):
    assert completions(line) >= offered


def test_the_shell_completes_names_of_jobs(here):
    (here / "config.yaml").write_text((here / "base.yaml").read_text())
    offered = completions("viny run finetune/pretrain=0/intermediate=none/downstream=25")
    assert offered == {"finetune/pretrain=0/intermediate=none/downstream=250/seed=1"}


def test_files_are_relative_to_the_caller_and_results_to_the_directory(here, capsys):
    (here / "work").mkdir()
    assert cli.main(["status", "--json", "--configfile", "base.yaml", "--directory", "work"]) == 3
    assert Path.cwd() == here / "work"
    assert json.loads(capsys.readouterr().out)["folder"] == "results/layered"


def test_a_directory_that_is_not_there_is_one_message(here, capsys):
    assert cli.main(["verify", "--configfile", "base.yaml", "--directory", "elsewhere"]) == 2
    assert capsys.readouterr().err == "viny: error: --directory elsewhere: there is no such folder\n"


@pytest.mark.parametrize("name", ["plan", "status", "verify"])
def test_a_missing_config_is_one_message(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([name]) == 1
    said = capsys.readouterr().err
    assert said == "viny: error: there is no config file config.yaml; name the study's with --configfile FILE\n"


@pytest.mark.parametrize("setting", ["seeds", "=3", "grid: {", "grid.seeds=[01]", "finetune.epochs=x"])
def test_a_wrong_setting_is_one_message(setting, here, capsys):
    assert cli.main(["status", "--configfile", "base.yaml", "--config", setting]) == (1 if setting[-1] == "x" else 2)
    said = capsys.readouterr().err
    assert said.startswith("viny: error: ")
    assert "Traceback" not in said
    assert "unicode string" not in said


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
        {"COLUMNS": "30"},
        {"PYTHONUTF8": "0", "LC_ALL": "C"},
    ],
)
def test_piped_output_is_plain_text(here, environment):
    done = run("status", "--configfile", "base.yaml", **environment)
    assert (done.returncode, done.stderr) == (3, b"")
    assert b"\x1b" not in done.stdout
    assert b"layered" in done.stdout


def test_a_reader_that_goes_away_is_no_error(here):
    source = str(Path(viny.__file__).parents[1])
    command = f"{sys.executable} -m viny status --configfile base.yaml | true"
    env = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=env, check=False)
    assert done.stderr == b""


@pytest.mark.parametrize(("stream", "code"), [(">&-", 3), ("2>&-", 3), (">/dev/full", 1)])
def test_output_that_goes_nowhere_is_no_traceback(here, stream, code):
    command = f"{sys.executable} -m viny status --configfile base.yaml {stream}"
    env = {**os.environ, "PYTHONPATH": str(Path(viny.__file__).parents[1])}
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=env, check=False)
    assert done.returncode == code
    assert b"Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "environment", [{"TERM": "xterm"}, {"TERM": "dumb"}, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}]
)
def test_watching_in_a_terminal(here, environment):
    """In 40 columns and 10 lines; a failed job ends the watch."""
    log = here / "logs/layered/finetune/pretrain=0/intermediate=none/downstream=250/seed=1.log"
    log.parent.mkdir(parents=True)
    log.write_text("2100-01-01 10:00:00,000 ERROR the loss is not a number\n")
    source = str(Path(viny.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, "COLUMNS": "40", "LINES": "10", **environment}
    words = [sys.executable, "-m", "viny", "status", "--configfile", "base.yaml", "--watch", "1"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, stdout=theirs, stderr=theirs, stdin=theirs, env=env)
    os.close(theirs)
    said = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        said += part
    os.close(ours)
    assert process.wait() == 1
    assert b"the loss is not a number" in said.replace(b"\r\n", b" ").replace(b"     ", b" ")
    assert b"Traceback" not in said


def test_weights_of_the_release_are_imported(here, capsys):
    import torch
    from plain_vit import PlainVit

    torch.save(PlainVit(image=32, patch=4, width=16, depth=1, heads=1, hidden=32).state_dict(), here / "a.pth")
    assert cli.main(["import", "a.pth", "b.safetensors"]) == 0
    assert "a.pth -> b.safetensors: ViNy, " in capsys.readouterr().err
    assert cli.main(["import", "a.pth", "b.safetensors"]) == 1
    assert cli.main(["import", "missing.pth", "c.safetensors"]) == 1
    assert "Traceback" not in capsys.readouterr().err
