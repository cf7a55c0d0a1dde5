"""The whole default study, from generated images to the last figure; not part of a run unless named."""

import os
import tempfile
from pathlib import Path

import yaml

from benchmarks.measure import Group, Options, command_seconds, in_turns
from benchmarks.planning import ROOT, snakemake

SHORT = {"grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": [1]}}
NAME = "viny"


def run(options: Options) -> list[Group]:
    """The study on all cores of this machine, from nothing; with `--quick` one cell of it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config |= SHORT if options.quick else {}
    cores = len(os.sched_getaffinity(0))
    values = in_turns({NAME: lambda: seconds(config, cores)}, 1)
    return [Group("default study", "s", NAME, values, f"{cores} cores, one run")]


def seconds(config: dict, cores: int) -> float:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "study.yaml")
        path.write_text(yaml.safe_dump(config))
        command = snakemake(folder, ROOT / "Snakefile", "--configfile", str(path), "--quiet", "all")
        return command_seconds([*command, "--cores", str(cores)])
