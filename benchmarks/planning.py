"""How long planning takes: grids of many cells with nothing done, and the paper's grid with everything done.

Peer: the barest Snakefile with as many jobs (two rules of one file each, no settings).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from benchmarks.measure import Group, Options, command_seconds, environment, in_turns
from benchmarks.step import TINY

ROOT = Path(__file__).parents[1]
PAPER = ROOT / "workflow" / "studies" / "paper.yaml"
GRIDS = {100: (5, 5, 2), 1000: (10, 10, 5), 10000: (10, 10, 50)}  # sizes, numbers of labels, seeds; two tasks each
VINY, PLAN, BARE = "viny", "`viny plan`", "bare Snakefile"
BARE_RULES = """
rule all:
    input: expand("cell/{p}/{t}/{d}/{s}", p=range(SIZES), t=range(2), d=range(LABELS), s=range(SEEDS))
rule encoder:
    output: "encoder/{p}/{s}"
    shell: "touch {output}"
rule cell:
    input: "encoder/{p}/{s}"
    output: "cell/{p}/{t}/{d}/{s}"
    shell: "touch {output}"
"""
DONE = 1.7e9  # a date in the past for all results alike


def run(options: Options) -> list[Group]:
    """Dry runs of growing grids, then a run that finds nothing to do."""
    grids = [cells for cells in GRIDS if cells <= 100 or not options.quick]
    return [*(dry_runs(cells, options) for cells in grids), nothing_to_do(options)]


def dry_runs(cells: int, options: Options) -> Group:
    """Plans of a grid of which nothing has been run."""
    sizes, labels, seeds = GRIDS[cells]
    with tempfile.TemporaryDirectory() as folder:
        config, bare = Path(folder, "study.yaml"), Path(folder, "Snakefile")
        config.write_text(yaml.safe_dump(grid(sizes, labels, seeds)))
        bare.write_text(f"SIZES, LABELS, SEEDS = {sizes}, {labels}, {seeds}\n{BARE_RULES}")
        dry = ("--dry-run", "--quiet", "rules")
        ours = snakemake(folder, ROOT / "Snakefile", "--configfile", str(config), *dry)
        theirs = snakemake(folder, bare, *dry)
        plan = [sys.executable, "-m", "viny", "plan", "--configfile", str(config)]
        command_seconds(plan, cwd=folder)  # calibrates, for all times to come
        cases = {
            BARE: lambda: command_seconds(theirs),
            VINY: lambda: command_seconds(ours),
            PLAN: lambda: command_seconds(plan, cwd=folder),
        }
        values = in_turns(cases, min(options.rounds, 3) if cells == max(GRIDS) else options.rounds)
    return Group(f"plan {cells:,} cells", "s", BARE, values, "dry runs, nothing done")


def grid(sizes: int, labels: int, seeds: int) -> dict:
    """A study of `sizes` x 2 x `labels` x `seeds` cells of a tiny model."""
    return {
        "study": "planned",
        "model": TINY,
        "grid": {
            "pretrain": [100 * i for i in range(sizes)],
            "intermediate": ["none", "cls_intel"],
            "downstream": [10 * (i + 1) for i in range(labels)],
            "seeds": list(range(1, seeds + 1)),
        },
    }


def nothing_to_do(options: Options) -> Group:
    """A run of the paper's grid whose results are all there, invented and recorded as Snakemake's own."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "study.yaml")
        config.write_text(yaml.safe_dump(grid(2, 1, 1)) if options.quick else PAPER.read_text())
        bare = Path(folder, "Snakefile")
        bare.write_text("rule all:\n    input: []\n")
        paper = snakemake(folder, ROOT / "Snakefile", "--configfile", str(config))
        invent_results(folder, paper)
        values = in_turns(
            {BARE: lambda: command_seconds(snakemake(folder, bare)), VINY: lambda: command_seconds(paper)},
            options.rounds,
        )
    return Group("paper's grid, nothing to do", "s", BARE, values, "the bare Snakefile has no job: start-up alone")


def invent_results(folder: str, command: list[str]) -> None:
    """Empty files for everything that a command would make, and Snakemake's records of them."""
    listed = subprocess.run([*command, "--summary"], capture_output=True, text=True, env=environment(), check=True)
    files = [Path(folder, line.split("\t")[0]) for line in listed.stdout.splitlines()[1:]]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (DONE, DONE))
    command_seconds([*command, "--touch", "--forceall"])


def snakemake(folder: str, snakefile: Path, *arguments: str) -> list[str]:
    """A run of Snakemake in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", folder, "--cores", "1"]
    return [*command, *arguments]
