"""A job: one run of one stage, fully resolved."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from viny.config.sections import Geometry, Model, Training
from viny.fingerprint import code_fingerprint, fingerprint
from viny.grid.stores import StoreSpec, identity

SHARED = "shared"  # the seed in the path of an encoder that all seeds start from

STAGES = ("pretrain", "intermediate", "finetune", "geometry")
# The axes that name the runs of a stage, in the order of their folders.
AXES = {
    "pretrain": ("pretrain", "seed"),
    "intermediate": ("pretrain", "intermediate", "seed"),
    "finetune": ("pretrain", "intermediate", "downstream", "seed"),
    "geometry": ("pretrain", "intermediate", "seed"),
}
# What Snakemake knows of a job's results beside metrics.json.
CHECKPOINTS = {
    "pretrain": "encoder.safetensors",
    "intermediate": "encoder.safetensors",
    "finetune": "model.safetensors",
    "geometry": "similarity.npz",
}


@dataclass(frozen=True, eq=False)
class Job:
    """One run of one stage, with everything that it needs.

    Attributes:
        task: module of `viny.tasks` that it runs.
        section: where its settings are in the study file: `pretrain`, `intermediate.cls_intel`, ...
        coordinates: its place in the grid, by axis; the seed of a shared encoder is `shared`.
        folder: where its results are.
        seed: of everything random in it.
        images: number of training images; None for all of the store.
        store: the images that it reads. upstream: the job whose encoder it starts from.
        encoder: file that it starts from; None for random weights.
        pretrained: name of timm's model whose weights it starts from: those of `encoder`, or else timm's own.
    """

    study: str
    variant: str
    stage: str
    task: str
    section: str
    coordinates: Mapping[str, int | str]
    folder: Path
    root: Path  # of the study's results
    settings: Training | Geometry
    model: Model
    seeding: str
    seed: int
    images: int | None
    store: StoreSpec
    upstream: "Job | None" = None
    encoder: Path | None = None
    pretrained: str | None = None

    @property
    def name(self) -> str:
        """`finetune/pretrain=0/intermediate=none/downstream=32/seed=1`, its path below the study's results."""
        return self.folder.relative_to(self.root).as_posix()

    @property
    def kind(self) -> str:
        """`pretrain`, `intermediate cls_intel`, `finetune`, `geometry`: runs of a kind share code and settings."""
        return self.section.replace(".", " ")

    @property
    def metrics(self) -> Path:
        """Its metrics.json."""
        return self.folder / "metrics.json"

    @property
    def checkpoint(self) -> Path:
        """Its weights; of a measurement, its arrays."""
        return self.folder / CHECKPOINTS[self.stage]

    @property
    def log(self) -> Path:
        """Its log."""
        return Path("logs", self.study, f"{self.name}.log")

    @property
    def state(self) -> Path:
        """Folder of the states of the study's running jobs; no declared output, which Snakemake would delete."""
        return self.root / ".state"

    @property
    def recorded_settings(self) -> dict[str, Any]:
        """Settings that define the run, by section, as metrics.json records them."""
        own = json.loads(_dumped(self.settings))
        return {"model": json.loads(_dumped(self.model)), self.section: own, "seeding": self.seeding}

    @property
    def architecture(self) -> str:
        """Module of `viny.encoders` with its encoder."""
        if self.upstream:
            return self.upstream.architecture
        return "timm_vit" if self.model.timm or self.pretrained else "vit"

    @cached_property
    def code(self) -> str:
        """Fingerprint of the code that computes its numbers."""
        return code_fingerprint(self.task, self.architecture)

    @cached_property
    def key(self) -> str:
        """Fingerprint of everything that defines the run: settings, code, images, and the same of its encoder."""
        start = self.upstream.key if self.upstream else identity(self.encoder) if self.encoder else self.pretrained
        parts = [self.stage, _dumped(self.settings), _dumped(self.model), self.seeding, self.seed, self.images]
        return fingerprint([*parts, self.store.content, self.code, start])


@cache
def _dumped(section: Training | Geometry | Model) -> str:
    """A section as JSON, without what cannot change a number: the name under which a data set goes, a switch."""
    return section.model_dump_json(exclude={"enabled"} if isinstance(section, Geometry) else {"images"})
