"""Studies with known effects, for tests of the statistics."""

from collections.abc import Callable

import numpy as np
import pandas as pd


def study(
    truth: Callable[[int, str, int], float],
    pretrain: list[int],
    downstream: list[int],
    seeds: int = 3,
    tasks: tuple[str, ...] = ("none",),
    noise: float = 0.3,
    encoder_noise: float = 0.0,
    random: np.random.Generator | None = None,
) -> pd.DataFrame:
    """cells.csv of a study: truth + noise of the encoder (shared by its cells of one seed) + noise of the cell."""
    random = random or np.random.default_rng(0)
    rows = []
    for size in pretrain:
        for task in tasks:
            for seed in range(1, seeds + 1):
                encoder = random.normal(0, encoder_noise)
                for labels in downstream:
                    score = truth(size, task, labels) + encoder + random.normal(0, noise)
                    rows.append((size, task, labels, seed, score))
    cells = pd.DataFrame(rows, columns=["pretrain", "intermediate", "downstream", "seed", "miou_percent"])
    return cells.assign(study="simulated", encoder="", status="done", accuracy_percent=cells["miou_percent"] + 20)


def drop(cells: pd.DataFrame, **place) -> pd.DataFrame:
    """The same cells, those at `place` missing."""
    here = np.logical_and.reduce([cells[key] == value for key, value in place.items()])
    scores = ["miou_percent", "accuracy_percent"]
    cells = cells.copy()
    cells.loc[here, scores] = np.nan
    cells.loc[here, "status"] = "missing"
    return cells
