"""What each variant of a study changes: its cells beside the same cells of the study itself, statistics/variants.csv.

To the statistics a variant is what an intermediate task is: another way to make the same cell. Differences (variant
minus study, in points) are paired by seed and tested as all contrasts are (`viny.analysis.contrasts`), p corrected by
Holm over the variants of a cell, and over all variants for the mean over a variant's cells. Where every run of a
variant scores exactly as the study's, for instance since it is the same run, nothing is tested.
"""

import math
from typing import Any

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.contrasts import MISSING, TEST_COLUMNS, Key, Measured, contrasts, holm, measure
from viny.analysis.formats import Table, number, plus_minus
from viny.analysis.frames import KEYS
from viny.config.sections import BASE

CELL, OVERALL = "cell", "all its cells"
EQUAL = "equal in every run"
SECONDS = ["pretrain_seconds", "intermediate_seconds", "train_seconds"]
COLUMNS = [
    *["variant", "scope", *KEYS, "cells", "declared", "miou_percent", "miou_se", "base_percent", "base_se"],
    *[*TEST_COLUMNS, "p_holm", "seconds", "seconds_ratio"],
]


def compare(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """For each variant a row per cell, then one for the mean over those of its cells that have results on both sides.

    Args:
        cells: variants.csv.

    Returns:
        means, difference, tests (columns of `contrasts`) and training time; `cells` says how many of those `declared`
        are behind a mean.
    """
    own = cells["variant"] != BASE
    named = cells["intermediate"].where(~own, cells["variant"] + ":" + cells["intermediate"])
    measured = measure(cells.assign(intermediate=named))
    seconds = cells.assign(seconds=cells[SECONDS].sum(axis=1, skipna=False))
    seconds = seconds.groupby(["variant", *KEYS])["seconds"].mean()
    places_of = {
        variant: list(dict.fromkeys(frame[KEYS].itertuples(index=False, name=None)))
        for variant, frame in cells[own].groupby("variant", sort=False)
    }
    bases = {_of(variant, place): place for variant, places in places_of.items() for place in places}
    equal = {cell for cell, base in bases.items() if _equal(measured, cell, base)}
    changes = measured.against({cell: base for cell, base in bases.items() if cell not in equal})
    rows, wanted = [], []
    for variant, places in places_of.items():
        known = [place for place in places if measured.has(place) and measured.has(_of(variant, place))]
        heads = [({"scope": CELL, **dict(zip(KEYS, place, strict=True))}, [place]) for place in places]
        heads.append(({"scope": OVERALL, "cells": len(known), "declared": len(places)}, known or places))
        for head, of in heads:
            differing = [cell for place in of if (cell := _of(variant, place)) not in equal]
            wanted.append(dict.fromkeys(differing, 1 / len(of)))
            rows.append({"variant": variant, **head, **_row(measured, seconds, variant, of)})
    found = pd.concat([pd.DataFrame(rows), contrasts(changes, wanted, confidence)], axis=1)
    same = [not weights for weights in wanted]
    found.loc[same, ["effect", "se", "low", "high"]] = 0.0
    found.loc[same, "method"] = EQUAL
    found["p_holm"] = found.groupby(["scope", *KEYS], dropna=False)["p"].transform(holm)
    whole = dict.fromkeys(("pretrain", "downstream", "cells", "declared"), "Int64")
    return found.reindex(columns=COLUMNS).astype(whole)


def variants_table(cells: pd.DataFrame, compared: pd.DataFrame, confidence: float) -> Table:
    """The same for people: the study's cells, then each variant's; the mean over cells where there are several."""
    rows = [
        ["the study itself", *names.place(*place), plus_minus(cell["mean"], cell["se"]), "", "", "", ""]
        for place, cell in measure(cells[cells["variant"] == BASE]).table.iterrows()
    ]
    for variant, group in compared.groupby("variant", sort=False):
        for row in group.itertuples():
            if row.scope == CELL:
                place = names.place(row.pretrain, row.intermediate, row.downstream)
            elif len(group) > 2:
                partial = f" ({row.cells} of {row.declared})" if row.cells < row.declared else ""
                place = [OVERALL + partial, "", ""]
            else:
                continue  # the mean over a single cell
            rows.append([str(variant), *place, *_results(row)])
    columns = ["Variant", "Pre-training", "Task", "Fine-tuning", "mIoU", "difference"]
    columns += [f"{confidence:.0%} interval", "p (Holm)", "training time, ×"]
    note = (
        "Percent, mean ± standard error over runs; difference to the same cell of the study itself in points, paired "
        "by seed, with its t interval and its p corrected over the variants; time of training, encoders included."
    )
    missing = int(((compared["method"] == MISSING) & (compared["scope"] == CELL)).sum())
    note += f" {missing} cells cannot be compared yet." if missing else ""
    return Table("", "What each variant changes.", columns, rows, compared, note, left=4, group=1)


def _results(row: Any) -> list[str]:
    """What a row of the comparison says, from the mean on."""
    mean, ratio = plus_minus(row.miou_percent, row.miou_se), number(row.seconds_ratio)
    if row.method == EQUAL:
        return [mean, number(0.0), EQUAL, "", ratio]
    low, high = number(row.low, signed=True), number(row.high, signed=True)
    interval = low if math.isnan(row.low) else f"{low} to {high}"
    return [mean, plus_minus(row.effect, row.se, signed=True), interval, number(row.p_holm, 3), ratio]


def _of(variant: str, place: Key) -> Key:
    """The key of a variant's cell among the measured ones."""
    return place[0], f"{variant}:{place[1]}", place[2]


def _row(measured: Measured, seconds: pd.Series, variant: str, places: list[Key]) -> dict[str, object]:
    """Means of a variant and of the study over `places`, and the time of training.

    Standard errors are those of a single cell; the time is that behind a run, encoders included.
    """
    row: dict[str, object] = {}
    for name, keys in (("miou", [_of(variant, place) for place in places]), ("base", places)):
        table = measured.table.loc[keys]
        row |= {f"{name}_percent": table["mean"].mean(), f"{name}_se": table["se"].mean() if len(keys) == 1 else None}
    took, base = (seconds.loc[[(name, *place) for place in places]].mean() for name in (variant, BASE))
    return row | {"seconds": took, "seconds_ratio": took / base if base else math.nan}


def _equal(measured: Measured, cell: Key, base: Key) -> bool:
    """Whether a cell has runs and all of them score as the baseline's."""
    one, other = (measured.scores[measured.rows[key]] for key in (cell, base))
    both = np.isfinite(one) & np.isfinite(other)
    return bool(both.any() and (one[both] == other[both]).all())
