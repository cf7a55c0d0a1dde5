"""The demo study from generated images to the page of results, here and in another checkout (`--against FOLDER`)."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import ROOT, Group, Options, command_seconds, compare, snakemake
from viny.datasets.parallel import cores

ONE_CELL = {"grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": [1]}}


def run(options: Options) -> Iterator[Group]:
    """The study on all cores of this machine, from nothing; in a quick run one cell of it."""
    assert options.against
    spent: Counter[str] = Counter()
    variants = {
        "the other checkout": partial(_seconds, options.against.resolve(), options.quick, Counter()),
        "viny": partial(_seconds, ROOT, options.quick, spent),
    }
    group = compare("demo study", "s", variants, options, warm=False)
    shares = ", ".join(f"{what} {seconds:.0f} s" for what, seconds in spent.items())
    yield replace(group, note=f"{cores()} cores; all jobs of viny's last run together: {shares}")


def _seconds(checkout: Path, quick: bool, spent: Counter[str]) -> float:
    """One run in a folder of its own; `spent` is what its jobs took for training, measuring and starting."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "study.yaml")
        config.write_text(json.dumps(yaml.safe_load((ROOT / "config.yaml").read_text()) | (ONE_CELL if quick else {})))
        command = snakemake(Path(folder), checkout / "Snakefile", "--configfile", str(config), cores=cores())
        seconds = command_seconds(command, env={"PYTHONPATH": str(checkout / "src")})
        spent.clear()
        for path in Path(folder, "results").rglob("metrics.json"):
            cost = json.loads(path.read_bytes())["cost"]
            spent.update({what: cost[f"{what}_seconds"] for what in ("train", "evaluate", "startup")})
    return seconds
