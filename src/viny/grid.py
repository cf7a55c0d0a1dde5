"""What a study is made of: cells, runs of the stages, parts of data sets, and the words for them."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SHARED = "shared"
NONE = "none"
PETS_TASKS = ("cls_pets", "spatial_pets")
ALL = "all"
BASE = "base"  # what tables of variants call the study itself

STAGES = ("pretrain", "intermediate", "finetune", "geometry")
OUTPUTS = {
    "pretrain": ("encoder.safetensors", "metrics.json", "history.jsonl", "examples.npz"),
    "intermediate": ("encoder.safetensors", "metrics.json", "history.jsonl"),
    "finetune": ("model.safetensors", "metrics.json", "history.jsonl", "examples.npz"),
    "geometry": ("metrics.json", "similarity.npz"),
}
# The axes that name a stage's runs, in the order of their folders.
AXES = {
    "pretrain": ("pretrain", "seed"),
    "intermediate": ("pretrain", "intermediate", "seed"),
    "finetune": ("pretrain", "intermediate", "downstream", "seed"),
    "geometry": ("pretrain", "intermediate", "seed"),
}


class Cell(NamedTuple):
    """One point of the grid: `intermediate` is `none` or a task, `pretrain` 0 means random initialization."""

    pretrain: int
    intermediate: str
    downstream: int
    seed: int


@dataclass(frozen=True)
class Job:
    """One run of one stage.

    Attributes:
        kind: `pretrain`, `intermediate cls_intel`, `finetune`, `geometry`: runs of a kind share code and settings.
        folder: where its results are.
        coordinates: its place in the grid, by axis; the seed of a shared encoder is `shared`.
    """

    kind: str
    folder: Path
    coordinates: dict[str, Any] = field(hash=False)

    @property
    def stage(self) -> str:
        """One of STAGES."""
        return self.kind.split()[0]

    @property
    def metrics(self) -> Path:
        """Its metrics.json."""
        return self.folder / "metrics.json"


class Store(NamedTuple):
    """A part of a data set as decoded once for all studies.

    Attributes:
        dataset: `imagenet`, `intel-train`, `intel-test` or `pets`.
        pixels: side of the stored images.
        count: number of images from the first on, None for all.
    """

    dataset: str
    pixels: int
    count: int | None

    @property
    def part(self) -> str:
        """`first=1128` or `all`, the name of the manifest."""
        return ALL if self.count is None else f"first={self.count}"


def enumerate_cells(grid: Mapping[str, Any]) -> Iterator[Cell]:
    """The cells of a `grid` section in a stable order: the product of the axes without what `exclude` names."""
    excluded = [exclusion(entry) for entry in grid["exclude"]]
    for cell in itertools.product(grid["pretrain"], grid["intermediate"], grid["downstream"], grid["seeds"]):
        if not any(all(cell[axis] in values for axis, values in entry) for entry in excluded):
            yield Cell(*cell)


def exclusion(entry: Mapping[str, Any]) -> list[tuple[int, frozenset]]:
    """An entry of `exclude` as pairs of a position in Cell and the values excluded there."""
    return [
        (Cell._fields.index(key), frozenset(value if isinstance(value, list) else [value]))
        for key, value in entry.items()
    ]
