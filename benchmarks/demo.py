"""The default study from generated images to the page of results, here and in another checkout (`--against FOLDER`).

Beside them what bounds any such run: its matrix products, at the rate of large ones on all cores.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import yaml

from benchmarks.measure import ROOT, Group, Options, command_seconds, compare, snakemake
from benchmarks.step import CLASSES, finetuning, flop, product_rate, simmim
from viny.config import load
from viny.config.sections import Model
from viny.datasets.parallel import cores
from viny.encoders import build
from viny.encoders.heads import Classifier

ONE_CELL = {"grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": [1]}}


def run(options: Options) -> Iterator[Group]:
    """The study on all cores of this machine, from nothing; in a quick run one cell of it."""
    assert options.against
    torch.set_num_threads(1)
    spent, work = Counter[str](), _flop_per_image(load(ROOT / "config.yaml").model)

    def products() -> float:  # of the run before
        return sum(work[stage] * spent[stage] for stage in work) / product_rate("fp32", options) / cores()

    variants = {
        "the other checkout": partial(_seconds, options.against.resolve(), options.quick, Counter()),
        "viny": partial(_seconds, ROOT, options.quick, spent),
        "matrix products alone, fp32": products,
    }
    group = compare("default study", "s", variants, options, warm=False)
    shares = ", ".join(f"{what} {spent[what]:.0f} s" for what in ("train", "evaluate", "startup"))
    yield replace(group, note=f"{cores()} cores; all jobs of viny's last run together: {shares}")


def _seconds(checkout: Path, quick: bool, spent: Counter[str]) -> float:
    """One run in a folder of its own; `spent` is what its jobs took, and how many images each stage was shown."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "study.yaml")
        config.write_text(json.dumps(yaml.safe_load((ROOT / "config.yaml").read_text()) | (ONE_CELL if quick else {})))
        command = snakemake(Path(folder), checkout / "Snakefile", "--configfile", str(config), cores=cores())
        seconds = command_seconds(command, env={"PYTHONPATH": str(checkout / "src")})
        spent.clear()
        for path in Path(folder, "results").rglob("metrics.json"):
            job = json.loads(path.read_bytes())
            spent.update({what: job["cost"][f"{what}_seconds"] for what in ("train", "evaluate", "startup")})
            budget = job["budget"]
            spent[job["stage"]] += budget["epochs"] * budget["images"]
    return seconds


def _flop_per_image(model: Model) -> dict[str, float]:
    """Operations in the matrix products of each stage's training, forward and backward."""
    images = torch.randn(1, 3, model.image_size, model.image_size)
    classifier = Classifier(build(model), CLASSES)
    return {
        "pretrain": flop(simmim(model, images)["viny"].loss),
        "intermediate": flop(lambda: classifier(images).sum()),
        "finetune": flop(finetuning(model, images)["viny"].loss),
    }
