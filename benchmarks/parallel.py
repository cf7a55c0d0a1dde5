"""How many jobs at once, and how many threads each: as many fine-tuning runs of ViNy as this machine has cores."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Group, Options, compare
from benchmarks.startup import VINY, Cells
from viny.datasets.parallel import cores

STEPS = 4


def run(options: Options) -> Iterator[Group]:
    """All runs one after another or all at once, with one thread or as many as there are cores."""
    count = cores()
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"finetune.steps={STEPS}", "finetune.batch_size=64", "finetune.test_images=32"]
        cells = Cells(Path(folder), 64, *settings, *(() if options.quick else VINY))
        variants = {}
        for threads in dict.fromkeys((1, count)):
            named = f"{threads} thread{'s' if threads > 1 else ''}"
            variants[f"one after another, {named}"] = lambda n=threads: sum(cells.seconds(1, n) for _ in range(count))
            variants[f"{count} at once, {named}"] = lambda n=threads: cells.seconds(count, n)
        note = f"fine-tuning, {STEPS} updates of 64 images, fp32"
        yield compare(f"{count} runs on {count} cores", "s", variants, options, note)
