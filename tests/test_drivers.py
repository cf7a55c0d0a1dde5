"""What is asked of a cluster before Snakemake submits to it; shell scripts stand in for SLURM."""

from contextlib import nullcontext

import pytest

from viny.drivers import check_cluster
from viny.errors import VinyError


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """The command that says how a cluster is configured."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "scontrol").touch(0o755)
    return tmp_path / "scontrol"


@pytest.mark.parametrize(
    ("age", "command", "refused"),
    [("10", "squeue", True), ("179", "squeue", True), ("300", "squeue", False), ("0", "squeue", False),
     ("10", "sacct", False), ("", "squeue", False)],
)  # fmt: skip
def test_a_cluster_that_forgets_jobs_too_soon_is_refused(scontrol, age, command, refused):
    scontrol.write_text(f"#!/bin/sh\necho 'MinJobAge               = {age} sec'\n")
    with pytest.raises(VinyError, match=r"forgets jobs .* MinJobAge=300") if refused else nullcontext():
        check_cluster(command)


def test_a_slurm_that_does_not_answer_is_named(scontrol, monkeypatch):
    scontrol.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(VinyError, match=r"SLURM does not answer .*; start snakemake where `scontrol"):
        check_cluster("squeue")
    monkeypatch.setenv("PATH", str(scontrol.parent / "elsewhere"))
    with pytest.raises(VinyError, match="No such file or directory: 'scontrol'"):
        check_cluster("squeue")
