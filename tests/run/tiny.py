"""Jobs of a tiny study: a model of a few thousand weights, three short epochs on generated images."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from viny.config import load
from viny.config.load import overlay
from viny.grid import Job, Study
from viny.job import run_job

MODEL = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 1, "heads": 1, "head_width": 16, "mlp_width": 32}
SHORT = {"epochs": 3, "batch_size": 8, "milestones": [2], "learning_rate": 3e-3}
TASKS = ("cls_intel", "cls_pets", "spatial_pets")
KINDS = ("pretrain", *TASKS, "finetune")
STUDY: dict[str, Any] = {
    "study": "tiny",
    "data": {"procedural": {"imagenet": 48, "intel": 36, "pets": 74, "pixels": 16}, "store_pixels": 20},
    "model": MODEL,
    "pretrain": {**SHORT, "heldout_images": 10},
    "intermediate": dict.fromkeys(TASKS, SHORT),
    "finetune": {**SHORT, "test_images": 20},
    "geometry": {"enabled": True, "images": 16},
    "grid": {"pretrain": [0, 24], "intermediate": ["none", *TASKS], "downstream": [24], "seeds": [1, 2]},
    "compute": {"device": "cpu"},
}
OTHER_SECTIONS = ("model", "seeding", "data", "grid", "compute", "encoders", "stores", "variants")
UNREPEATABLE = ("cost", "provenance")  # times and places


class Done:
    """What a job left in its folder."""

    def __init__(self, job: Job):
        self.job, self.folder = job, job.folder

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
        lines = (self.folder / "history.jsonl").read_text().splitlines() if self.job.stage != "geometry" else []
        rows = [json.loads(line) for line in lines]
        return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]

    @property
    def encoder(self) -> dict[str, np.ndarray]:
        """The encoder's weights, whatever head the file holds beside it."""
        tensors = load_file(self.job.checkpoint)
        inner = {k.removeprefix("encoder."): v for k, v in tensors.items() if k.startswith("encoder.")}
        return inner or tensors

    @property
    def weights(self) -> bytes:
        """The file of weights, or of arrays."""
        return self.job.checkpoint.read_bytes()

    @property
    def repeatable(self) -> dict[str, Any]:
        """Everything that two equal runs have in common: weights and pictures as bytes, metrics without times."""
        files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        document = {key: value for key, value in self.document.items() if key not in UNREPEATABLE}
        document["outputs"] = {k: v for k, v in document["outputs"].items() if k != "history.jsonl"}
        return files | {"metrics.json": document, "history.jsonl": self.history}


class Jobs:
    """Runs jobs in this process.

    Args:
        stores: folder of stores. folder: where results go. remember: do not run the same twice.
    """

    def __init__(self, stores: Path, folder: Path, remember: bool = False):
        self.stores, self.folder, self.remember = stores, folder, remember

    def study(self, results: str = "results", **changes: Any) -> Study:
        """The study with other sections; `results` tells runs apart that have the same settings."""
        return Study(load(self._settings(results, changes)))

    def job(self, kind: str, results: str = "results", seed: int = 1, pretrain: int = 0, **changes: Any) -> Job:
        """A job of some kind; `changes` are settings of its section, or sections of the study."""
        wanted: dict[str, Any] = {"seed": seed, "pretrain": pretrain, "intermediate": "none", "downstream": 24}
        stage = kind if kind not in TASKS else "intermediate"
        if kind in TASKS:
            wanted["intermediate"] = kind
        if kind in ("pretrain", "geometry"):
            wanted["pretrain"] = 24
        for job in self.study(results, **_sections(kind, changes)).jobs.values():
            if job.stage == stage and all(wanted[axis] == value for axis, value in job.coordinates.items()):
                return job
        raise AssertionError(wanted)

    def run(self, kind: str, results: str = "", seed: int = 1, pretrain: int = 0, **changes: Any) -> Done:
        """Run a job and, before it, the one that makes its encoder; both must succeed."""
        described = "+".join([kind, results, *(f"{key}={value}" for key, value in sorted(changes.items()))]).strip("+")
        place = "".join(c if c.isalnum() or c in "=.+" else "-" for c in described)
        job = self.job(kind, place, seed, pretrain, **changes)
        assert self.remember or not job.metrics.exists()
        for each in (job.upstream, job):
            if each and not each.metrics.exists():
                run_job(each, self.study(place, **_sections(kind, changes)).config.compute)
        return Done(job)

    def arguments(
        self, kind: str, results: str = "results", seed: int = 1, pretrain: int = 0, **changes: Any
    ) -> list[str]:
        """The command line of a job: its name and a study file."""
        return self.command(self.job(kind, results, seed, pretrain, **changes), results, **_sections(kind, changes))

    def command(self, job: Job | str, results: str = "results", **sections: Any) -> list[str]:
        """The command line of a job or store of a study with other sections."""
        path = self.folder / f"{results.replace('/', '_')}.json"
        path.write_text(json.dumps(self._settings(results, sections)))
        return [job if isinstance(job, str) else job.name, "--configfile", str(path)]

    def _settings(self, results: str, changes: dict[str, Any]) -> dict[str, Any]:
        places = {"stores": str(self.stores), "results": str(self.folder / results)}
        return overlay(STUDY, {**places, **changes})


def _sections(kind: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Settings of a kind's section in their place in the study file; those of other sections stay."""
    own = {key: value for key, value in changes.items() if key not in OTHER_SECTIONS}
    study = {key: value for key, value in changes.items() if key in OTHER_SECTIONS}
    return overlay(study, {"intermediate": {kind: own}} if kind in TASKS else {kind: own})
