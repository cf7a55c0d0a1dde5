"""The whole default study, from generated images to the last figure; not part of a run unless named.

Its peer is the same study without what makes viny fast on a CPU: each job starts a process of its own, attention is
PyTorch's fused one and float32 products are computed the plain way.
"""

import os
import tempfile
from pathlib import Path

import yaml

from benchmarks.measure import Group, Options, command_seconds, in_turns
from benchmarks.planning import ROOT, snakemake

SHORT = {"grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": [1]}}
PLAIN = {"compute": {"attention": "fused", "matmul_precision": "highest"}}
PEER = "a process a job, plain arithmetic"


def run(options: Options) -> list[Group]:
    """The study on all cores of this machine, from nothing; with `--quick` one cell of it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config |= SHORT if options.quick else {}
    cores = len(os.sched_getaffinity(0))
    cases = {
        "viny": lambda: seconds(config, cores),
        PEER: lambda: seconds(config | PLAIN, cores, alone=True),
    }
    return [Group("default study", "s", PEER, in_turns(cases, 1), f"{cores} cores, one run each")]


def seconds(config: dict, cores: int, alone: bool = False) -> float:
    """One run in a folder of its own; `alone`: no job is forked from a warm process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(yaml.safe_dump(config))
        command = snakemake(folder, ROOT / "Snakefile", "--configfile", str(path), "--quiet", "all", "--cores", cores)
        if alone:  # the warm process refuses to work in a folder that others could enter
            shared = Path(folder, f"viny-{os.getuid()}")
            shared.mkdir()
            shared.chmod(0o777)
            command = ["env", f"TMPDIR={folder}", *command]
        return command_seconds([str(part) for part in command])
