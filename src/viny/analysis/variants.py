"""What each variant of a study changes: its cells beside the same cells of the study itself, statistics/variants.csv.

To the statistics a variant is what an intermediate task is: another way to make the same cell. Differences (variant
minus study, in points) are paired by seed and tested as all contrasts are (`viny.analysis.contrasts`), p corrected by
Holm over the variants of a cell, and over all variants for the mean over a variant's cells. Where every run of a
variant scores exactly as the study's, for instance since it is the same run, nothing is tested.
"""

import math
from typing import Any

import pandas as pd

from viny.analysis import contrasts as tests
from viny.analysis import names
from viny.analysis.contrasts import MODERATED_COLUMNS, TEST_COLUMNS, Key, Measured, Weights, average, holm, measure
from viny.analysis.formats import Table, number, plus_minus
from viny.analysis.frames import KEYS
from viny.config.sections import BASE

CELL, OVERALL = "cell", "all its cells"
EQUAL = "equal in every run"
SECONDS = ["pretrain_seconds", "intermediate_seconds", "train_seconds"]
COLUMNS = [
    *["variant", "scope", *KEYS, "cells", "declared", "miou_percent", "miou_se", "base_percent", "base_se"],
    *[*TEST_COLUMNS, "p_holm", *MODERATED_COLUMNS, "p_moderated_holm", "seconds", "seconds_ratio"],
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
    rows = []
    for variant, frame in cells[own].groupby("variant", sort=False):
        places = list(dict.fromkeys(frame[KEYS].itertuples(index=False, name=None)))
        known = [place for place in places if measured.has(place) and measured.has(_of(variant, place))]
        for place in places:
            row = {"variant": variant, "scope": CELL, **dict(zip(KEYS, place, strict=True))}
            rows.append(row | _row(measured, seconds, variant, [place]))
        row = {"variant": variant, "scope": OVERALL, "cells": len(known), "declared": len(places)}
        rows.append(row | _row(measured, seconds, variant, known or places))
    found = pd.DataFrame(rows)
    kinds = [found.loc[found["scope"] == scope, "weights"] for scope in (CELL, OVERALL)]
    found = found.join(pd.concat([_tests(measured, weights, confidence) for weights in kinds]))
    for end in ("", "_moderated"):
        families = found.groupby(["scope", *KEYS], dropna=False)
        found[f"p{end}_holm"] = families[f"p{end}"].transform(holm)
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
    missing = int(((compared["method"] == tests.MISSING) & (compared["scope"] == CELL)).sum())
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
    """Means of a variant and of the study over `places`, the time of training, and the contrast between the two.

    Standard errors are those of a single cell; the time is that behind a run, encoders included.
    """
    row: dict[str, object] = {}
    for name, keys in (("miou", [_of(variant, place) for place in places]), ("base", places)):
        table = measured.table.loc[keys]
        row |= {f"{name}_percent": table["mean"].mean(), f"{name}_se": table["se"].mean() if len(keys) == 1 else None}
    took, base = (seconds.loc[[(name, *place) for place in places]].mean() for name in (variant, BASE))
    row |= {"seconds": took, "seconds_ratio": took / base if base else math.nan}
    # The study's cell comes first: the variants of a cell share it, so they vary together.
    return row | {"weights": average([{place: -1.0, _of(variant, place): 1.0} for place in places])}


def _tests(measured: Measured, wanted: pd.Series, confidence: float) -> pd.DataFrame:
    """Tests of contrasts of one kind, in their rows; those that are zero in every run need none."""
    equal = wanted.map(lambda weights: _equal_runs(measured, weights))
    columns = [*TEST_COLUMNS, *MODERATED_COLUMNS]
    found = pd.DataFrame(index=wanted.index, columns=columns)
    tested = wanted[equal == 0]
    found.loc[tested.index] = tests.contrasts(measured, list(tested), confidence)[columns].to_numpy()
    found.loc[equal > 0, ["effect", "se", "low", "high"]] = 0.0
    found.loc[equal > 0, "method"] = EQUAL
    found.loc[equal > 0, "n"] = equal[equal > 0]
    return found.astype({column: float for column in columns if column != "method"})


def _equal_runs(measured: Measured, weights: Weights) -> int:
    """Number of seeds if every cell scores the same on both sides with all of them; else 0."""
    seeds = measured.seeds.loc[list(weights)].dropna(axis=1).to_numpy()
    return seeds.shape[1] if (seeds[0::2] == seeds[1::2]).all() else 0  # rows: study, variant, study, variant ...
