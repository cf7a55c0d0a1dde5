"""What it costs to start jobs: small cells forked by the preload server, and each in a process that loads torch."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import ROOT, Group, Options, command_seconds, compare
from viny.config.sections import Model
from viny.preload import DRIVER, driver_id

VINY = (f"model={Model().model_dump_json()}", "data.store_pixels=160")  # the paper's model instead of the demo's


def run(options: Options) -> Iterator[Group]:
    """The default study's model, a few epochs."""
    epochs = 1 if options.quick else 10
    with tempfile.TemporaryDirectory() as folder:
        cells = Cells(Path(folder), 32, f"finetune.epochs={epochs}", "finetune.test_images=100")
        variants = {"a process each": lambda: cells.seconds(preload=False), "by preload": cells.seconds}
        yield compare("small cell", "s", variants, options, f"32 labels, {epochs} epochs, 100 test images")


class Cells:
    """Fine-tuning runs of the default study in a folder of their own, each by the command that Snakemake calls.

    Args:
        images: number of labeled images. settings: `KEY=VALUE`, laid over the demo's.
    """

    def __init__(self, folder: Path, images: int, *settings: str):
        self.folder, self.made = folder, 0
        self.name = f"finetune/pretrain=0/intermediate=none/downstream={images}/seed=1"
        grid = f"grid={{pretrain: [0], intermediate: [none], downstream: [{images}], seeds: [1], exclude: []}}"
        self.settings = (grid, "finetune.milestones=[]", "finetune.steps=null", *settings)
        self.seconds()  # decodes the images

    def seconds(self, at_once: int = 1, threads: int = 1, preload: bool = True) -> float:
        """Wall time of as many runs side by side."""
        commands = [self._command(threads) for _ in range(at_once)]
        return command_seconds(*commands, cwd=self.folder, env={DRIVER: driver_id() if preload else ""})

    def _command(self, threads: int) -> list[str]:
        self.made += 1
        command = [sys.executable, "-m", "viny", "run", self.name, "--configfile", str(ROOT / "config.yaml")]
        return [*command, "--config", f"results=runs/{self.made}", f"compute.threads={threads}", *self.settings]
