"""Stages on tiny stores: a model of a few thousand weights, three short epochs."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from viny import settings
from viny.stages import finetune, intermediate, pretrain

MAINS = {"pretrain": pretrain.main, "intermediate": intermediate.main, "finetune": finetune.main}
MODEL = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 1, "head_width": 16, "mlp_width": 32}
SHORT = {"epochs": 3, "batch_size": 8, "milestones": [2], "learning_rate": 3e-3}
# Every kind of run; the tasks on pets keep away from the first 20 rows.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "pretrain": ("pretrain", {"store": "imagenet", "images": 24, "heldout_images": 10}),
    "cls_intel": ("intermediate", {"task": "cls_intel", "store": "intel-train", "test_store": "intel-test"}),
    "cls_pets": ("intermediate", {"task": "cls_pets", "store": "pets", "test_images": 20}),
    "spatial_pets": ("intermediate", {"task": "spatial_pets", "store": "pets", "test_images": 20}),
    "finetune": ("finetune", {"store": "pets", "images": 24, "test_images": 20}),
}
UNREPEATABLE = ("cost", "provenance")  # times and places


class Result:
    """What a run left in its folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    @cached_property
    def document(self) -> dict[str, Any]:
        """metrics.json."""
        return json.loads((self.folder / "metrics.json").read_text())

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured."""
        return self.document["metrics"]

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per epoch, without times."""
        rows = [json.loads(line) for line in (self.folder / "history.jsonl").read_text().splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]

    @property
    def model(self) -> Path:
        """The file of weights."""
        return next(self.folder.glob("*.safetensors"))

    @property
    def encoder(self) -> dict[str, np.ndarray]:
        """The encoder's weights, whatever head the file holds beside it."""
        tensors = load_file(self.model)
        inner = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        return inner or tensors

    @property
    def examples(self) -> dict[str, np.ndarray]:
        """The pictures."""
        with np.load(self.folder / "examples.npz", allow_pickle=False) as file:
            return dict(file)

    @property
    def repeatable(self) -> dict[str, Any]:
        """Everything that two equal runs have in common: weights and pictures as bytes, metrics without times."""
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        document = {key: value for key, value in self.document.items() if key not in UNREPEATABLE}
        document["outputs"] = {k: v for k, v in document["outputs"].items() if k != "history.jsonl"}
        return files | {"metrics.json": document, "history.jsonl": self.history}


class Stages:
    """Runs stages in this process.

    Args:
        stores: folder of stores. folder: where results go. remember: do not run the same twice.
    """

    def __init__(self, stores: Path, folder: Path, remember: bool = False):
        self.stores, self.folder, self.remember = stores, folder, remember

    def arguments(self, kind: str, output: Path, /, seed: int = 1, **changes: Any) -> tuple[str, list[str]]:
        """Stage and command line of a run; `changes` are flags or settings, None leaves one out."""
        stage, flags = RUNS[kind]
        flags = {"seed": seed, "output": output, "state_dir": output.parent / f"{output.name}.state"} | flags
        merged = flags | MODEL | SHORT | changes
        line = []
        for key, value in merged.items():
            if key in ("store", "test_store") and isinstance(value, str):
                value = self.stores / value / "all.json"
            if isinstance(value, bool):
                line.append(settings.flag(key if value else f"no_{key}"))
            elif value is not None:
                line += [settings.flag(key), settings.text(value)]
        return stage, line

    def main(self, kind: str, output: Path, /, **changes: Any) -> int:
        """Run the command; returns its exit code."""
        stage, line = self.arguments(kind, output, **changes)
        return MAINS[stage](line)

    def run(self, kind: str, name: str = "", /, **changes: Any) -> Result:
        """Run the command, which must succeed; `name` tells runs with the same settings apart."""
        described = ",".join([kind, name, *(f"{k}={settings.text(v)}" for k, v in changes.items())])
        output = self.folder / described.replace("/", "_").rstrip(",") / "out"
        if not (self.remember and output.exists()):
            assert not output.exists()
            assert self.main(kind, output, **changes) == 0
        return Result(output)
