"""The cells of a study's grid, and the images that its stages must not train on."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from viny.config.sections import Config, Grid, Pretraining


class Cell(NamedTuple):
    """One point of the grid.

    Attributes:
        pretrain: number of pre-training images, 0 for random initialization; or the name of an encoder.
        intermediate: name of the task, or `none`.
    """

    pretrain: int | str
    intermediate: str
    downstream: int
    seed: int


def product(grid: Grid) -> Iterator[Cell]:
    """All combinations of the axes."""
    return itertools.starmap(Cell, itertools.product(grid.pretrain, grid.intermediate, grid.downstream, grid.seeds))


def cells_of(grid: Grid) -> Iterator[Cell]:
    """All combinations of the axes without what `exclude` names."""
    return (cell for cell in product(grid) if not any(matches(cell, entry) for entry in grid.exclude))


def matches(cell: Cell, entry: Mapping[Any, Any]) -> bool:
    """Whether a cell has, on all axes of an entry of `exclude`, the value or one of the values there."""
    return all(
        getattr(cell, axis) in (values if isinstance(values, list | tuple) else (values,))
        for axis, values in entry.items()
    )


def held_back(config: Config, section: str) -> int | None:
    """Images at the beginning of a data set's order that a stage must not train on, if there is no published split.

    Images that segmentation is tested on are never trained on in an earlier stage.
    """
    stage, tests = config.stages[section], config.finetune.test_images
    own = stage.heldout_images if isinstance(stage, Pretraining) else getattr(stage, "test_images", None)
    return max(own or 0, tests) if stage.images == config.finetune.images else own
