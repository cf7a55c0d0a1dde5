"""The effect of each stage in each cell: statistics/effects.csv.

Families of comparisons: `pretrain` (a size against 0), `pretrain_step` (a size against the one below), `intermediate`
(a task against none), `downstream_step` (a size against the one below). How differences are paired and what their
errors are made of: `viny.analysis.contrasts`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

import pandas as pd

from viny.analysis.contrasts import TEST_COLUMNS, contrasts, difference, holm, measure
from viny.analysis.effective_data import effective_data
from viny.analysis.frames import KEYS, on_grid
from viny.analysis.summary import grid

EFFECT_COLUMNS = ["family", *KEYS, "baseline", *TEST_COLUMNS, "p_holm"]


def comparisons(cells: pd.DataFrame) -> pd.DataFrame:
    """All comparisons that the declared grid holds: family, place of the cell, baseline's value, baseline's key."""
    sizes, tasks, labels = grid(cells)
    declared = set(cells[KEYS].itertuples(index=False, name=None))
    smaller, fewer = (dict(zip(values[1:], values, strict=False)) for values in (sizes, labels))
    rows = []
    for task, size, label in itertools.product(tasks, sizes, labels):
        wanted: list[tuple[str, int, object]] = [("pretrain", 0, 0)] if size > 0 else []
        wanted += [("pretrain_step", 0, smaller[size])] if size in smaller else []
        wanted += [("intermediate", 1, "none")] if task != "none" else []
        wanted += [("downstream_step", 2, fewer[label])] if label in fewer else []
        cell = (size, task, label)
        for family, axis, value in wanted:
            baseline: Any = (*cell[:axis], value, *cell[axis + 1 :])
            if cell in declared and baseline in declared:
                rows.append((family, *cell, str(value), baseline))
    return pd.DataFrame(rows, columns=["family", *KEYS, "baseline", "of"])


def effects(cells: pd.DataFrame, confidence: float = 0.95, shared: bool = False) -> pd.DataFrame:
    """The effect of each stage in each cell, in points, with p corrected by Holm over its family.

    One row per comparison, also where a cell is missing; columns as in `viny.analysis.contrasts.contrasts`.
    """
    measured = measure(cells, shared)
    frames = []
    for family, group in comparisons(cells).groupby("family", sort=False):
        pairs = dict(zip(group[KEYS].itertuples(index=False, name=None), group["of"], strict=True))
        of, wanted = measured, [difference(*pair) for pair in pairs.items()]
        if family == "intermediate":  # both start from one encoder: its noise is gone in their difference
            of, wanted = measured.against(pairs), [{cell: 1.0} for cell in pairs]
        tests = contrasts(of, wanted, confidence).set_index(group.index)
        frames.append(group.join(tests).assign(p_holm=holm(tests["p"])))
    return (pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()).reindex(columns=EFFECT_COLUMNS)


def of_encoders(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """What each encoder that was not trained here changes against a random start: statistics/encoders.csv.

    Rows as those of `effects` for pre-training, with the labels that they are worth (`effective_data`) and `encoder`.
    """
    own = on_grid(cells)
    bare, frames = own[own["pretrain"] == 0], []
    for name, from_it in cells.drop(own.index).groupby("encoder", sort=False):
        both = pd.concat([bare, from_it.assign(pretrain=1)])
        changes = effects(both, confidence)
        changes = changes[changes["family"] == "pretrain"].merge(effective_data(both, confidence), on=KEYS)
        frames.append(changes.assign(encoder=name, pretrain=0))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def of_all(found: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """effects.csv with a column `encoder`, and encoders.csv below it, from the statistics by name."""
    own = found["effects"].assign(encoder="")
    return pd.concat([own, found["encoders"]], ignore_index=True) if "encoders" in found else own
