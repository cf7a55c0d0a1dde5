"""What it costs to begin: imports of a stage, and a small cell on its own and forked from a warm process."""

import itertools
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import Group, Options, command_seconds, in_turns
from viny.data.ingest import ingest
from viny.data.procedural import generate

IMPORTS, HELP = "import torch, torchvision, timm", "viny.stages.finetune --help"
ALONE, WARM = "viny.stages.finetune", "viny.stages.warm finetune"
LABELS, TESTED, PIXELS = 32, 100, 32
SMALL = "--image-size 32 --patch-size 4 --width 64 --depth 4 --heads 4 --head-width 16 --mlp-width 256 --batch-size 16"


def run(options: Options) -> list[Group]:
    """Imports, then a small cell."""
    imports = in_turns(
        {
            IMPORTS: lambda: command_seconds([sys.executable, "-c", "import torch, torchvision, timm"]),
            HELP: lambda: command_seconds([sys.executable, "-m", "viny.stages.finetune", "--help"]),
        },
        options.rounds,
    )
    epochs = 1 if options.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        manifest = make_store(Path(folder), LABELS + TESTED, PIXELS)
        numbers = itertools.count()

        def cell(*module: str) -> float:
            output = Path(folder, str(next(numbers)))
            flags = f"--store {manifest} --images {LABELS} --test-images {TESTED} --seed 1 --epochs {epochs}"
            command = [sys.executable, "-m", *module, *flags.split(), *SMALL.split(), "--milestones", "none"]
            return command_seconds([*command, "--output", str(output), "--state-dir", str(output) + ".state"])

        cell("viny.stages.warm", "finetune")  # starts the server
        cells = in_turns(
            {ALONE: lambda: cell("viny.stages.finetune"), WARM: lambda: cell("viny.stages.warm", "finetune")},
            options.rounds,
        )
    note = f"{LABELS} labels, {epochs} epochs, {TESTED} test images"
    return [Group("start-up", "s", IMPORTS, imports), Group("small cell", "s", ALONE, cells, note)]


def make_store(folder: Path, images: int, pixels: int) -> Path:
    """A store of generated pets; returns its manifest."""
    generate("pets", images, pixels, 0, folder)
    manifest = folder / "store" / "all.json"
    ingest("pets", folder / "oxford-iiit-pet", manifest, pixels=pixels)
    return manifest
