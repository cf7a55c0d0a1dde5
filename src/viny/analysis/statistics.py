"""Means, intervals and effects of a study: per cell, corrected over cells, and over the whole grid.

    python -m viny.analysis.statistics --cells results/demo/cells.csv --output results/demo/statistics

How contrasts are paired, moderated and what they speak of: `viny.analysis.contrasts`. Outputs, in percentage points:

| file | one row per | content |
|---|---|---|
| summary.csv | cell | mean, standard error, t interval with n - 1 degrees of freedom, moderated standard error |
| effects.csv | cell and comparison | effect, interval, p, Holm-corrected over the family; `_moderated` beside them |
| overall.csv | stage | one effect for the whole grid, its interval and its p |

At n = 3 the t interval reaches 4.3 standard errors to either side; the familiar 1.96 would cover 81% instead of 95%.

Families of comparisons: `pretrain` (a size against 0), `pretrain_step` (a size against the one below), `intermediate`
(a task against none), `downstream_step` (a size against the one below).

The effect across the grid (overall.csv). Cells of one seed start from common encoders, so they are not independent
repetitions; only seeds are. Each seed is reduced to one number, its mean effect over the cells, and these numbers are
tested by a t with (seeds - 1) degrees of freedom: in a complete grid this is the repeated-measures analysis of
variance (stage against stage x seed). Beside it stands a stratified permutation test that exchanges whole encoders
with all their cells and assumes no distribution. `smallest_p` is the least p that it can give with the seeds at hand;
if that is not below 0.05, no data could make it significant. A published study has no seeds: there the pooled mean is
given with independent cells (`se`) and with cells of an encoder fully dependent (`se_dependent`).
"""

import argparse
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from viny import console
from viny.analysis.contrasts import (
    MODERATED_COLUMNS,
    TEST_COLUMNS,
    WELCH,
    Measured,
    Weights,
    average,
    contrasts,
    dependent,
    difference,
    holm,
    measure,
    p_value,
    polynomial,
)
from viny.analysis.files import KEYS, read_cells, write_csv
from viny.analysis.pooling import random_effects
from viny.analysis.summary import grid, is_summary, summarize
from viny.errors import command

EFFECT_COLUMNS = ["family", *KEYS, "baseline", *TEST_COLUMNS, "p_holm", *MODERATED_COLUMNS, "p_moderated_holm"]
MOST_ARRANGEMENTS = 20_000  # up to here all arrangements are listed, beyond it they are drawn
DRAWN = 9_999

OVERALL_COLUMNS = [
    *["stage", "unit", "method", "cells", "clusters", "estimate", "se", "df", "low", "high", "p"],
    *["se_dependent", "p_dependent", "p_permutation", "smallest_p"],
    *["pooled_random_effects", "pooled_low", "pooled_high", "tau", "note"],
]


def cell_intervals(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """`summarize(cells)` with a confidence interval of each mean mIoU and the moderated standard error."""
    summary = summarize(cells)
    table = measure(cells).table.loc[list(summary[KEYS].itertuples(index=False, name=None))]
    reach = stats.t.ppf((1 + confidence) / 2, summary["n"].where(summary["n"] > 1) - 1) * summary["miou_se"]
    text = summary["n"].map(lambda n: f"t, {n - 1} df" if n > 1 else ("missing" if n == 0 else "none: single run"))
    return summary.assign(
        miou_low=summary["miou_percent"] - reach,
        miou_high=summary["miou_percent"] + reach,
        miou_se_moderated=table["se_moderated"].to_numpy(),
        df_moderated=table["df_moderated"].to_numpy(),
        interval=text,
    )


def comparisons(cells: pd.DataFrame) -> list[tuple[str, tuple[int, str, int], object, Weights]]:
    """All (family, cell, baseline's value, contrast) that the declared grid holds."""
    sizes, tasks, labels = grid(cells)
    declared = set(cells[KEYS].itertuples(index=False, name=None))
    found = []

    def add(family: str, cell: tuple, baseline: tuple, value: object) -> None:
        if cell in declared and baseline in declared:
            found.append((family, cell, value, difference(cell, baseline)))

    for task, size, label in itertools.product(tasks, sizes, labels):
        cell = (size, task, label)
        if size > 0:
            add("pretrain", cell, (0, task, label), 0)
        if size > sizes[0]:
            below = sizes[sizes.index(size) - 1]
            add("pretrain_step", cell, (below, task, label), below)
        if task != "none":
            add("intermediate", cell, (size, "none", label), "none")
        if label > labels[0]:
            below = labels[labels.index(label) - 1]
            add("downstream_step", cell, (size, task, below), below)
    return found


def effects(cells: pd.DataFrame, confidence: float = 0.95, metric: str = "miou") -> pd.DataFrame:
    """The effect of each stage in each cell, with p corrected by Holm over its family; missing cells stay as rows."""
    measured = measure(cells, metric)
    frames = []
    found = comparisons(cells)
    for family in dict.fromkeys(name for name, *_ in found):
        members = [item for item in found if item[0] == family]
        frame = contrasts(measured, [weights for *_, weights in members], confidence)
        place = pd.DataFrame([cell for _, cell, *_ in members], columns=KEYS)
        frame = pd.concat([place, frame], axis=1)
        frame["family"], frame["baseline"] = family, [str(value) for _, _, value, _ in members]
        frame["p_holm"], frame["p_moderated_holm"] = holm(frame["p"]), holm(frame["p_moderated"])
        frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=EFFECT_COLUMNS)
    return pd.concat(frames, ignore_index=True)[EFFECT_COLUMNS]


def overall(cells: pd.DataFrame, confidence: float = 0.95, share_encoder: bool = False) -> pd.DataFrame:
    """One effect of each stage across the grid; see the module's description.

    Args:
        share_encoder: all seeds start from one pre-trained encoder a size. Then pre-training was run once, seeds do not
            repeat it, and the test of pre-training can only exchange sizes.
    """
    sizes, tasks, labels = grid(cells)
    measured = measure(cells)
    rows = []
    if 0 in sizes and len(sizes) > 1:
        used = [size for size in sizes if size > 0]
        wanted = [difference((size, "none", d), (0, "none", d)) for size in used for d in labels]
        rows.append(_overall_row("pretrain", "points", measured, cells, wanted, confidence, share_encoder))
    for task in tasks[1:]:
        used = [size for size in sizes if size > 0] or sizes
        wanted = [difference((size, task, d), (size, "none", d)) for size in used for d in labels]
        rows.append(_overall_row(f"intermediate:{task}", "points", measured, cells, wanted, confidence, share_encoder))
    if len(labels) > 1:
        encoders = dict.fromkeys(cells[["pretrain", "intermediate"]].itertuples(index=False, name=None))
        x = np.log2(labels)
        wanted = [polynomial([(size, task, d) for d in labels], x, 1) for size, task in encoders]
        rows.append(
            _overall_row("downstream", "points per doubling", measured, cells, wanted, confidence, share_encoder)
        )
    return pd.DataFrame(rows, columns=OVERALL_COLUMNS)


def _overall_row(
    stage: str,
    unit: str,
    measured: Measured,
    cells: pd.DataFrame,
    wanted: list[Weights],
    confidence: float,
    share_encoder: bool,
) -> dict[str, object]:
    """One row of `overall`; `wanted` holds the contrasts that are averaged."""
    complete = _complete([weights for weights in wanted if all(measured.has(key) for key in weights)], measured)
    row: dict[str, object] = dict.fromkeys(OVERALL_COLUMNS, math.nan)
    row |= {"stage": stage, "unit": unit, "cells": len(complete), "note": ""}
    declared = len(wanted)
    notes = (
        [f"{declared - len(complete)} of {declared} comparisons lack a cell or a seed"]
        if len(complete) < declared
        else []
    )
    if not complete:
        return {**row, "method": "missing", "clusters": 0, "note": "no comparison has both its cells"}
    whole = average(complete)
    test = contrasts(measured, [whole], confidence).iloc[0]
    row |= {key: test[key] for key in ("method", "se", "df", "low", "high", "p")} | {"estimate": test["effect"]}
    row["clusters"] = int(test["n"])
    if is_summary(cells):
        row["se_dependent"], df = dependent(measured, whole)
        row["p_dependent"] = float(p_value(test["effect"], row["se_dependent"], df))
        row |= random_effects(contrasts(measured, complete, confidence), confidence)
        notes.append("runs are not known one by one: se takes cells as independent, se_dependent as fully dependent")
    elif test["method"] != WELCH and test["n"] >= 2:
        row |= _permutation(stage, measured, complete, share_encoder)
    if stage == "pretrain" and share_encoder:
        notes.append("one encoder a size for all seeds: the interval speaks of these encoders only")
    if row["smallest_p"] >= 0.05:
        notes.append(f"the permutation test cannot reach 0.05 here (smallest p {row['smallest_p']:.2g})")
    row["note"] = "; ".join(notes)
    return row


def _complete(there: list[Weights], measured: Measured) -> list[Weights]:
    """Comparisons that have at least two seeds in common, so that comparisons x seeds is as large as possible."""
    known = measured.seeds.notna().to_numpy()
    has = [known[[measured.rows[key] for key in weights]].all(axis=0) for weights in there]
    if not there or len(has[0]) < 2:
        return there
    order = np.argsort(-np.sum(has, axis=0), kind="stable")
    blocks = []
    for seeds in range(2, len(order) + 1):
        block = [weights for weights, found in zip(there, has, strict=True) if found[order[:seeds]].all()]
        blocks.append((seeds * len(block), block))
    return max(blocks, key=lambda item: item[0])[1] or there


def _permutation(stage: str, measured: Measured, complete: list[Weights], share_encoder: bool) -> dict[str, float]:
    """Exchange whole encoders, with all their cells, within what the null hypothesis lets be exchanged.

    Pre-training: within a seed, which of the sizes is called 0. Intermediate task: within a seed and pre-training size,
    which of the two is called `none` (a change of sign). Downstream: within a seed and encoder, the order of the sizes.
    """
    keys = list(dict.fromkeys(key for weights in complete for key in weights))
    seeds = measured.seeds.loc[keys].dropna(axis=1).to_numpy()
    at = {key: row for row, key in enumerate(keys)}
    columns = range(seeds.shape[1])
    if stage == "pretrain":
        sizes = sorted({size for size, _, _ in keys})
        labels = [d for d in sorted({d for *_, d in keys}) if all((s, "none", d) in at for s in sizes)]
        if not labels:
            return {}
        means = np.array([seeds[[at[s, "none", d] for d in labels]].mean(axis=0) for s in sizes]).T  # [seed, size]
        others = (means.sum(axis=1, keepdims=True) - means) / (len(sizes) - 1) - means  # [seed, size called 0]
        return _exact(others.mean(axis=0)[None] if share_encoder else others / len(others))
    if stage.startswith("intermediate"):
        clusters: dict[tuple, list[float]] = {}
        for weights in complete:
            (size, _, _), *_ = weights
            for j in columns:
                value = sum(weight * seeds[at[key], j] for key, weight in weights.items())
                clusters.setdefault((size, j), []).append(value)
        sums = np.array([sum(values) for values in clusters.values()]) / sum(map(len, clusters.values()))
        return _exact(np.stack([sums, -sums], axis=1))
    random = np.random.default_rng(0)
    observed, drawn = 0.0, np.zeros(DRAWN)
    for weights in complete:
        slope = np.array(list(weights.values()))
        values = seeds[[at[key] for key in weights]]
        for j in columns:
            observed += slope @ values[:, j]
            drawn += random.permuted(np.tile(values[:, j], (DRAWN, 1)), axis=1) @ slope
    return {"p_permutation": _share(drawn, observed, 1), "smallest_p": 1 / (DRAWN + 1)}


def _exact(choices: np.ndarray) -> dict[str, float]:
    """p of the arrangement that takes column 0 of every row, among all that take one column of each.

    Args:
        choices: (strata, arrangements of a stratum), what each contributes to the statistic.
    """
    strata, each = choices.shape
    smallest = 2 / each**strata if each == 2 else 1 / each**strata  # a change of all signs is as extreme
    observed = choices[:, 0].sum()
    if each**strata <= MOST_ARRANGEMENTS:
        sums = np.zeros(1)
        for row in choices:
            sums = (sums[:, None] + row).ravel()
        return {"p_permutation": _share(sums, observed, 0), "smallest_p": min(1.0, smallest)}
    picks = np.random.default_rng(0).integers(each, size=(DRAWN, strata))
    sums = choices[np.arange(strata), picks].sum(axis=1)
    return {"p_permutation": _share(sums, observed, 1), "smallest_p": 1 / (DRAWN + 1)}


def _share(sums: np.ndarray, observed: float, extra: int) -> float:
    extreme = np.count_nonzero(np.abs(sums) >= abs(observed) * (1 - 1e-9))
    return (extreme + extra) / (len(sums) + extra)


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.statistics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="the study's cells.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals")
    parser.add_argument("--share-encoder", action="store_true", help="all seeds start from one encoder a size")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    cells = read_cells(args.cells)
    found = effects(cells, args.confidence)
    write_csv(args.output / "summary.csv", cell_intervals(cells, args.confidence))
    write_csv(args.output / "effects.csv", found)
    write_csv(args.output / "overall.csv", overall(cells, args.confidence, args.share_encoder))
    tested = int(found["p"].notna().sum())
    console.say(f"{len(found)} comparisons, {tested} of them with an error and a test: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
