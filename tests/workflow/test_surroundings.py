"""Wherever the checkout lies, however Python is called, whoever was killed: the same command works."""

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import pytest
import yaml
from checkout import ROOT, Workflow, altered

# Decoding alone: no torch is needed.
IMAGES = altered(grid={"pretrain": [0], "intermediate": ["none"], "downstream": [8], "seeds": [1]})
UNTIL = ("--until", "decode")


def decoded(work: Path) -> int:
    return len(list(work.glob("stores/*/*/manifest.json")))


@pytest.mark.parametrize("name", ["o'brien", "it's; touch hacked #", "$HOME", "two words"])
def test_a_checkout_below_any_folder(tmp_path, name):
    (tmp_path / name).mkdir()
    workflow = Workflow(tmp_path / name)
    done = workflow.run(*UNTIL, config=IMAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert decoded(workflow.work) == 1
    assert not list(tmp_path.rglob("hacked"))


def test_a_checkout_that_snakemake_cannot_use_says_so(tmp_path):
    (tmp_path / "{braces}").mkdir()
    done = Workflow(tmp_path / "{braces}").run(*UNTIL, config=IMAGES)
    assert done.returncode == 1
    assert "Snakemake takes braces in the path of a workflow for wildcards" in done.stdout + done.stderr


def bare_python(folder: Path, **variables: str) -> tuple[Path, dict[str, str]]:
    """A Python without packages of its own, and an environment in which no other is found."""
    venv.create(folder / "bare", with_pip=False, symlinks=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return folder / "bare/bin", {**environment, "PATH": "/usr/bin:/bin", **variables}


def run_images(python: Path, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess:
    (folder / "study.yaml").write_text(yaml.safe_dump(IMAGES))
    command = [python, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--directory", folder, "--cores", "1"]
    command += [*UNTIL, "--configfile", folder / "study.yaml"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_packages_on_the_users_pythonpath_reach_the_jobs(tmp_path):
    binaries, environment = bare_python(tmp_path, PYTHONPATH=sysconfig.get_path("purelib"))
    done = run_images(binaries / "python", environment, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert decoded(tmp_path) == 1


def test_python_may_be_called_python3_alone(tmp_path):
    binaries, environment = bare_python(tmp_path)
    [packages] = binaries.parent.glob("lib/python3*/site-packages")
    (packages / "there.pth").write_text(sysconfig.get_path("purelib"))
    (binaries / "python").unlink()
    python = binaries / "python3"
    real = python.resolve()
    python.unlink()
    shutil.copy(real, python)
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "sh", "env", "git", "uname", "cat", "rm", "mkdir", "which"):
        if found := shutil.which(tool):
            (tools / tool).symlink_to(found)
    done = run_images(python, environment | {"PATH": str(tools)}, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert decoded(tmp_path) == 1


def test_the_workflow_is_used_from_another_one(tmp_path):
    (tmp_path / "Snakefile").write_text(
        f"module viny:\n    snakefile: {str(ROOT / 'Snakefile')!r}\n    config: config\n\n"
        "use rule * from viny as viny_*\n\nrule all:\n    default_target: True\n    input: rules.viny_all.input\n"
    )
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(IMAGES))
    command = [sys.executable, "-m", "snakemake", "--directory", tmp_path, "--snakefile", tmp_path / "Snakefile"]
    command += ["--cores", "1", "--until", "viny_decode", "--configfile", tmp_path / "study.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert decoded(tmp_path) == 1
    assert "Finished jobid" in done.stderr  # the output of the other workflow stays Snakemake's


def test_a_rule_of_another_workflow_uses_the_results_of_a_study_in_its_own_config(tmp_path):
    (tmp_path / "Snakefile").write_text(
        'configfile: "lab.yaml"\n\n'
        f"module viny:\n    snakefile: {str(ROOT / 'Snakefile')!r}\n    config: config['viny']\n\n"
        "use rule * from viny as small_*\n\n"
        "rule count:\n    default_target: True\n    input: 'results/toy/cells.csv'\n    output: 'lines.txt'\n"
        "    shell: 'wc -l < {input} > {output}'\n"
    )
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump({"lab": "of another project", "viny": IMAGES}))
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "lines.txt").read_text().strip() == "2"
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert "Nothing to be done" in again.stdout + again.stderr


def test_a_killed_snakemake_does_not_lock_out_the_next(tmp_path):
    workflow = Workflow(tmp_path)
    config = workflow.work / "study.yaml"
    config.write_text(yaml.safe_dump(IMAGES))
    command = [sys.executable, "-m", "snakemake", "--snakefile", workflow.checkout / "Snakefile", "--cores", "1"]
    command += [*UNTIL, "--directory", workflow.work, "--configfile", config]
    first = subprocess.Popen(command, env=workflow.environment, start_new_session=True, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if list(workflow.work.glob(".snakemake/locks/*")):
            break
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert list(workflow.work.glob(".snakemake/locks/*"))
    again = workflow.run(*UNTIL, config=IMAGES)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "its lock is removed" in again.stdout + again.stderr
    assert decoded(workflow.work) == 1


def test_the_lock_of_a_living_snakemake_stays(tmp_path):
    workflow = Workflow(tmp_path)
    assert workflow.run(*UNTIL, config=IMAGES).returncode == 0
    notes = workflow.work / ".snakemake/drivers"
    for note in notes.iterdir():
        note.unlink()
    from viny.drivers import register

    register(workflow.work)  # this process is the driver, and lives
    locks = workflow.work / ".snakemake/locks"
    locks.mkdir(exist_ok=True)
    (locks / "0.output.lock").write_text("results/toy/study.json\n")
    register(workflow.work)
    assert (locks / "0.output.lock").exists()


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    made = Workflow(tmp_path)
    (made.work / ".snakemake").mkdir()
    (made.work / ".snakemake" / "drivers").write_text("a file in the way")
    done = made.run("--dry-run")
    assert done.returncode == 1
    assert "The study cannot be run:" in done.stderr
    assert f"{made.work}/.snakemake/drivers cannot be written" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
