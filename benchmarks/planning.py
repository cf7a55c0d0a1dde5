"""How long planning takes: 10,000 cells, nothing or everything of them done, and the paper's grid once it is done.

Peer: the barest Snakefile with as many jobs of as many outputs, and no settings.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, Group, Options, command_seconds, compare, script, snakemake
from benchmarks.step import TINY
from viny.config import load
from viny.files import write_text
from viny.grid import Study
from viny.survey import analysis_key

PAPER = ROOT / "workflow" / "studies" / "paper.yaml"
GRIDS = {20: (1, 5, 2), 10000: (10, 10, 50)}  # sizes, numbers of labels, seeds; two tasks each
BARE = """
rule all:
    input: expand("cell/{p}/{t}/{d}/{s}/metrics", p=range(SIZES), t=range(2), d=range(LABELS), s=range(SEEDS))
rule pretrain:
    output: "encoder/{p}/0/{s}/metrics", "encoder/{p}/0/{s}/weights"
    shell: "touch {output}"
rule intermediate:
    input: "encoder/{p}/0/{s}/weights"
    output: "encoder/{p}/1/{s}/metrics", "encoder/{p}/1/{s}/weights"
    shell: "touch {output}"
rule cell:
    input: "encoder/{p}/{t}/{s}/weights"
    output: "cell/{p}/{t}/{d}/{s}/metrics", "cell/{p}/{t}/{d}/{s}/weights"
    shell: "touch {output}"
"""
DRY = ("--dry-run", "--quiet", "rules")


def run(options: Options) -> Iterator[Group]:
    """A large grid, then a run that finds nothing to do."""
    yield many_cells(20 if options.quick else 10000, options)
    yield nothing_to_do(options)


def many_cells(cells: int, options: Options) -> Group:
    """Dry runs of a grid of which nothing has been run, and viny's commands on the same grid with all results."""
    sizes, labels, seeds = GRIDS[cells]
    settings = grid(sizes, labels, seeds)
    with _folders(settings, f"SIZES, LABELS, SEEDS = {sizes}, {labels}, {seeds}\n{BARE}") as (empty, done, config):
        fabricate(done, settings)
        dry = snakemake(empty, ROOT / "Snakefile", "--configfile", config, *DRY)

        def command(name: str) -> Callable[[], float]:
            words = [sys.executable, "-m", "viny", name, "--configfile", config, "--directory", str(done)]
            return lambda: command_seconds(words)

        variants = {
            "bare Snakefile, dry run": lambda: command_seconds(snakemake(empty, empty / "Snakefile", *DRY)),
            "viny, dry run": lambda: command_seconds(dry),
            **{f"`viny {name}`, all done": command(name) for name in ("plan", "status", "verify")},
        }
        at_most = dataclasses.replace(options, rounds=min(options.rounds, 3))
        return compare(f"plan {cells:,} cells", "s", variants, at_most, "the dry runs find nothing done")


def nothing_to_do(options: Options) -> Group:
    """A run of the paper's grid whose results are all there."""
    settings = grid(1, 1, 1) if options.quick else PAPER
    with _folders(settings, "rule all:\n    input: []\n") as (empty, done, config):
        fabricate(done, settings)
        paper = snakemake(done, ROOT / "Snakefile", "--configfile", config)
        variants = {
            "bare Snakefile without jobs": lambda: command_seconds(snakemake(empty, empty / "Snakefile")),
            "viny": lambda: command_seconds(paper),
        }
        group = compare("paper's grid, nothing to do", "s", variants, options, "the peer is Snakemake's start alone")
        assert not (done / "logs").exists(), "a job has run"
        return group


@contextlib.contextmanager
def _folders(settings: Mapping[str, Any] | Path, snakefile: str) -> Iterator[tuple[Path, Path, str]]:
    """A folder with a Snakefile and no results, one for results, and the study file."""
    with tempfile.TemporaryDirectory() as name:
        empty, done = Path(name, "empty"), Path(name, "done")
        write_text(empty / "Snakefile", snakefile)
        done.mkdir()
        config = Path(name, "study.yaml")  # JSON is YAML
        config.write_text(settings.read_text() if isinstance(settings, Path) else json.dumps(settings))
        yield empty, done, str(config)


def grid(sizes: int, labels: int, seeds: int) -> dict[str, Any]:
    """A study of `sizes` x 2 x `labels` x `seeds` cells of a tiny model."""
    axes = {
        "pretrain": [100 * (i + 1) for i in range(sizes)],
        "intermediate": ["none", "cls_intel"],
        "downstream": [10 * (i + 1) for i in range(labels)],
        "seeds": list(range(1, seeds + 1)),
    }
    return {"study": "planned", "model": TINY, "grid": axes}


def fabricate(folder: Path, settings: Mapping[str, Any] | Path) -> None:
    """Invented results of all jobs of a study, and of its analysis."""
    study = Study(load(settings))
    with contextlib.chdir(folder):
        script("tests/commands/fabricate.py").fill(study)
        write_text(study.folder / "study.json", study.config.model_dump_json(indent=1) + "\n")
        write_text(study.folder / "settings.json", json.dumps({"key": analysis_key(study)}))
        for name in ("cells.csv", "overview.html"):
            write_text(study.folder / name, "")
