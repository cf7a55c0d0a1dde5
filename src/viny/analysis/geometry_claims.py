"""Claim 5 (version 2 of the paper): what an intermediate task does to the encoder's representation.

Encoders with and without a task are compared within seeds (paired t, seeds - 1 degrees of freedom). The published
table has one value per encoder and no error, and no number of patches makes up for a single training run: there the
verdict is `undecided` and `direction` says what the values look like.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.contrasts import holm

WITHIN, ACROSS = "within_image_variance", "across_image_variance"
HELD_OUT, TRAINING = "probe_accuracy_percent", "probe_accuracy_training_percent"
GEOMETRY_COLUMNS = ["pretrain", "intermediate", "seed", WITHIN, ACROSS, HELD_OUT, TRAINING]
PROBE_MARGIN = 1.0  # points of probe accuracy; a gain below it is no usable structure

EVERY = (
    "supported if each comparison alone is significant; contradicted if one is significantly the other way after Holm"
)
CRITERIA: list[tuple[str, str, str, Callable[[str], bool], list[tuple[str, int, float]]]] = [
    # id, statement, criterion, tasks, (measure, sign of the difference to `none`, margin)
    ("5a", "Classification raises the variance of the representation, within and across images.", EVERY,
     lambda task: task.startswith("cls_"), [(WITHIN, 1, 0.0), (ACROSS, 1, 0.0)]),
    ("5b", "Classification brings no usable spatial structure: a patch probe does not gain.",
     f"gain of the linear patch probe below {PROBE_MARGIN:g} point; " + EVERY,
     lambda task: task.startswith("cls_"), [("probe", -1, -PROBE_MARGIN)]),
    ("5c", "Spatially aligned supervision brings usable structure: the patch probe gains.", EVERY,
     lambda task: task.startswith("spatial_"), [("probe", 1, 0.0)]),
    ("5d", "Spatially aligned supervision does the opposite to the variance: it lowers it.", EVERY,
     lambda task: task.startswith("spatial_"), [(WITHIN, -1, 0.0), (ACROSS, -1, 0.0)]),
]  # fmt: skip


def judge_geometry(geometry: pd.DataFrame | None, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Records of claims 5a to 5d, in the form of `viny.analysis.claims.judge`.

    Args:
        geometry: geometry.csv: one row per encoder and seed; None or empty where nothing was measured.
    """
    records = []
    for name, statement, criterion, chosen, measures in CRITERIA:
        record = {"id": name, "statement": statement, "criterion": criterion}
        record |= {"method": "encoder with the task against the same without, paired by seed", "scope": ""}
        tests = [] if geometry is None else _tests(_with_probe(geometry), chosen, measures)
        if tests:
            record["scope"] = f"pre-training sizes {', '.join(sorted({format(t['pretrain'], ',') for t in tests}))}"
        records.append(record | _verdict(tests, confidence))
    return records


def _with_probe(geometry: pd.DataFrame) -> pd.DataFrame:
    """`probe`: held-out accuracy where there is any, otherwise the probe's training accuracy."""
    source = HELD_OUT if geometry[HELD_OUT].notna().any() else TRAINING
    return geometry.assign(probe=geometry[source], probe_source=source)


def _tests(geometry: pd.DataFrame, chosen: Callable[[str], bool], measures: list[tuple]) -> list[dict[str, Any]]:
    tests = []
    tasks = [task for task in sorted(geometry["intermediate"].unique()) if chosen(task)]
    seed = geometry["seed"].astype(object).where(geometry["seed"].notna(), "")
    for column, sign, margin in measures:
        table = geometry.assign(seed=seed).pivot_table(
            index=["pretrain", "intermediate"], columns="seed", values=column
        )
        for task in tasks:
            for size in sorted(geometry["pretrain"].unique()):
                if (size, task) not in table.index or (size, "none") not in table.index:
                    continue
                with_task, without = table.loc[(size, task)], table.loc[(size, "none")]
                differences = (with_task - without).dropna().to_numpy()
                if len(differences):
                    source = geometry["probe_source"].iloc[0] if column == "probe" else column
                    place = {"measure": source, "pretrain": int(size), "intermediate": task}
                    tests.append(place | _paired(differences, sign, margin) | {"without_task": float(without.mean())})
    return tests


def _paired(differences: np.ndarray, sign: int, margin: float) -> dict[str, Any]:
    n = len(differences)
    result = {"n": n, "effect": float(differences.mean()), "claimed": bool(sign * differences.mean() > margin)}
    if n < 2:
        return {**result, "p": np.nan, "p_against": np.nan}
    shifted = sign * differences - margin
    se = shifted.std(ddof=1) / np.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = float(stats.t.sf(shifted.mean() / se, n - 1))
    return {**result, "p": p, "p_against": 1 - p}


def _verdict(tests: list[dict[str, Any]], confidence: float) -> dict[str, Any]:
    if not tests:
        reason = "no representation geometry of such an encoder and its counterpart without the task"
        return {"verdict": "not tested", "direction": "none", "reason": reason, "numbers": {}, "cells": []}
    alpha = 1 - confidence
    p = np.array([test["p"] for test in tests])
    against = int(np.sum(holm([test["p_against"] for test in tests]) < alpha))
    right = sum(test["claimed"] for test in tests)
    significant = int(np.sum(p < alpha))
    verdict = "contradicted" if against else ("supported" if significant == len(tests) else "undecided")
    shown = ", ".join(
        f"{test['intermediate']} {test['measure'].removesuffix('_percent').replace('_', ' ')} "
        f"{test['without_task']:.3g} to {test['without_task'] + test['effect']:.3g}"
        for test in tests[:6]
    )
    reason = f"{right} of {len(tests)} comparisons point the claimed way, {significant} significantly: {shown}"
    if np.isnan(p).all():
        reason += "; one value per encoder, no error is known"
    if any(test["measure"] == TRAINING for test in tests):
        reason += "; probe accuracy is that on the probe's own training patches"
    direction = "agrees" if right == len(tests) else ("disagrees" if right == 0 else "mixed")
    numbers = {"comparisons": len(tests), "claimed_direction": right, "significant": significant, "against": against}
    return {"verdict": verdict, "direction": direction, "reason": reason, "numbers": numbers, "cells": tests}
