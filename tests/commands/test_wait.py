"""Jobs that a killed Snakemake left behind are waited for, or canceled; a SLURM of shell scripts stands in."""

from contextlib import nullcontext

import pytest

from viny import cli
from viny.commands import wait
from viny.errors import VinyError


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder of commands that say what `queue` holds and note what they were asked in `asked`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, code in {
        # The queue gets shorter with every look.
        "squeue": f'cat "{tmp_path}/queue"; sed -i 1d "{tmp_path}/queue"',
        "scancel": f'echo scancel "$@" >> "{tmp_path}/asked"',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(wait.time, "sleep", lambda seconds: None)
    return tmp_path


def queue(slurm, *jobs):
    (slurm / "queue").write_text("".join(f"{job}|{name}|{folder}\n" for job, name, folder in jobs))


def test_jobs_of_this_folder_are_waited_for(slurm, capsys):
    queue(slurm, (7, "viny-1", slurm), (8, "other", slurm), (9, "viny-2", slurm / "elsewhere"), (10, "viny-3", slurm))
    assert cli.main(["wait", "--directory", str(slurm)]) == 0
    said = capsys.readouterr().err
    assert "waiting for 2 jobs: 10 7" in said
    assert "waiting for 1 job: 10" in said
    assert "no job of this folder is left" in said
    assert not (slurm / "asked").exists()


def test_jobs_are_canceled_on_request(slurm, capsys):
    queue(slurm, (7, "viny-1", slurm))
    assert cli.main(["wait", "--directory", str(slurm), "--cancel"]) == 0
    assert (slurm / "asked").read_text() == "scancel 7\n"
    assert "canceled 1 job: 7" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("age", "command", "refused"),
    [("10", "squeue", True), ("179", "squeue", True), ("300", "squeue", False), ("0", "squeue", False),
     ("10", "sacct", False), ("", "squeue", False)],
)  # fmt: skip
def test_a_cluster_that_forgets_jobs_too_soon_is_refused(slurm, age, command, refused):
    scontrol = slurm / "bin" / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho 'MinJobAge               = {age} sec'\n")
    scontrol.chmod(0o755)
    with pytest.raises(VinyError, match=r"forgets jobs .* MinJobAge=300") if refused else nullcontext():
        wait.check_cluster(command)


@pytest.mark.parametrize(
    ("squeue", "message"),
    [
        (None, "there is no SLURM here (squeue is missing); run this on a login node"),
        ("echo no controller >&2; exit 1", "squeue failed: no controller; try again once SLURM answers"),
    ],
)
def test_a_slurm_that_is_not_there_is_named(slurm, squeue, message, monkeypatch, capsys):
    if squeue is None:
        monkeypatch.setenv("PATH", str(slurm))
    else:
        (slurm / "bin" / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
    assert cli.main(["wait", "--directory", str(slurm)]) == 1
    assert capsys.readouterr().err == f"viny: error: {message}\n"


def test_a_folder_that_is_not_there_is_named(slurm, capsys):
    assert cli.main(["wait", "--directory", "elsewhere"]) == 1
    assert capsys.readouterr().err == "viny: error: --directory elsewhere: there is no such folder\n"
