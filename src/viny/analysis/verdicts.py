"""The rules by which a claim gets its verdict; the claims themselves are in `viny.analysis.claims`.

A verdict is one of `supported`, `contradicted`, `undecided`, `not tested`. What the numbers look like without asking
for significance is kept apart, as `direction`: `agrees`, `disagrees`, `mixed` or `none`. All tests are one-sided at
alpha = 1 - confidence, on moderated errors (`viny.analysis.contrasts`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.contrasts import (
    WELCH,
    Key,
    Measured,
    Weights,
    average,
    contrasts,
    dependent,
    holm,
    p_value,
)
from viny.analysis.files import KEYS

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"
DRAWS = 4_000


@dataclass
class Verdict:
    """What the data say of one claim.

    Attributes:
        reason: one line for people, with the numbers that decided.
        numbers: what was computed, by name.
        cells: the cells behind it, one record each.
    """

    verdict: str
    direction: str
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Member:
    """One cell's or curve's part in a claim: a contrast, and the place it is reported at (None: along this axis)."""

    place: tuple[int | None, str, int | None]
    weights: Weights


def untested(reason: str) -> Verdict:
    """The study does not hold what the claim speaks of."""
    return Verdict(NOT_TESTED, "none", reason)


def always(measured: Measured, members: Sequence[Member], sign: int, confidence: float, margin: float = 0.0) -> Verdict:
    """Is sign x effect > margin in every cell?

    Supported: each cell alone is significant (intersection-union test; needs no correction). Contradicted: at least one
    cell is significantly on the other side after Holm's correction. Undecided otherwise, also if a cell is missing.
    """
    frame = _tests(measured, members, sign, confidence, margin)
    effect = sign * frame["effect"] - margin
    known, tested = effect.notna(), frame["p_for"].notna()
    if not known.any():
        return untested("none of the cells has a result")
    alpha = 1 - confidence
    significant, against = int((frame["p_for"] < alpha).sum()), int((frame["p_against_holm"] < alpha).sum())
    right = int((effect > 0).sum())
    parts = [f"{right} of {int(known.sum())} cells point the claimed way, {significant} of them significantly"]
    if against:
        parts.append(f"{against} significantly the other way")
    if (~known).any():
        parts.append(f"{int((~known).sum())} missing")
    if (known & ~tested).any():
        parts.append(f"{int((known & ~tested).sum())} without error (single runs)")
    worst = frame.loc[frame["p_for"].idxmax() if tested.any() else effect.idxmin()]
    parts.append(f"weakest: {_describe(worst)}")
    verdict = UNDECIDED
    if against:
        verdict = CONTRADICTED
    elif tested.all() and significant == len(frame):
        verdict = SUPPORTED
    numbers = {"cells": len(frame), "claimed_direction": right, "significant": significant, "against": against}
    numbers["significant_unmoderated"] = int((_p(frame, "", sign, margin) < alpha).sum())
    numbers |= {"largest_p": frame["p_for"].max(), "weakest_effect": worst["effect"]}
    return Verdict(verdict, _direction(effect[known]), "; ".join(parts), numbers, _records(frame))


def on_average(
    measured: Measured, members: Sequence[Member], sign: int, confidence: float, unit: str, margin: float = 0.0
) -> Verdict:
    """Is sign x effect > margin on average over the cells that have results?

    Supported: the average is significant and no cell contradicts. Contradicted: the average, or after Holm's correction
    a cell, is significantly on the other side. Undecided otherwise. Cells known only by their standard errors count as
    independent; the reason says so where the verdict would not stand if the cells of an encoder varied together.
    """
    there = [member for member in members if all(measured.has(key) for key in member.weights)]
    if not there:
        return untested("none of the cells has a result" if members else "the grid has too few sizes")
    frame = _tests(measured, there, sign, confidence, margin)
    whole = average([member.weights for member in there])
    mean = contrasts(measured, [whole], confidence)
    toward, opposed = float(_p(mean, "_moderated", sign, margin)[0]), float(_p(mean, "_moderated", -sign, -margin)[0])
    alpha = 1 - confidence
    against = int((frame["p_against_holm"] < alpha).sum())
    row = mean.iloc[0]
    estimate = float(row["effect"])
    verdict = UNDECIDED
    if opposed < alpha or against:
        verdict = CONTRADICTED
    elif toward < alpha:
        verdict = SUPPORTED
    effect = sign * frame["effect"] - margin
    reason = f"on average {estimate:+.2f} {unit}{_interval(row)}; "
    reason += f"{int((effect > 0).sum())} of {len(frame)} point the claimed way"
    if against:
        reason += f", {against} significantly the other way"
    if np.isnan(toward):
        reason += "; no error is known (single runs)"
    if len(there) < len(members):
        reason += f"; {len(members) - len(there)} missing"
    numbers = {"average": estimate, "low": row["low_moderated"], "high": row["high_moderated"], "p": toward}
    numbers |= {"cells": len(frame), "against": against, "margin": margin}
    if row["method"] == WELCH:
        se, df = dependent(measured, whole)
        numbers["p_if_encoders_cells_vary_together"] = float(p_value(sign * estimate - margin, se, df, "above"))
        if verdict == SUPPORTED and not numbers["p_if_encoders_cells_vary_together"] < alpha:
            reason += "; rests on the runs of an encoder's cells being independent"
    return Verdict(verdict, _direction(effect), reason, numbers, _records(frame))


def about(measured: Measured, member: Member, value: float, margin: float, confidence: float) -> Verdict:
    """Is the effect `value`, give or take `margin`?

    Supported: both one-sided tests put it inside (equivalence, i.e. the interval of level 1 - 2 alpha lies inside).
    Contradicted: the interval of level 1 - alpha lies outside. Undecided otherwise.
    """
    frame = _tests(measured, [member], 1, confidence, 0.0)
    row = frame.iloc[0]
    if np.isnan(row["effect"]):
        return untested("the cell has no result")
    inside = abs(row["effect"] - value) <= margin
    reach = stats.t.ppf(confidence, row["df_moderated"]) * row["se_moderated"]
    low, high = row["effect"] - reach, row["effect"] + reach
    verdict = UNDECIDED
    if low >= value - margin and high <= value + margin:
        verdict = SUPPORTED
    elif row["low_moderated"] > value + margin or row["high_moderated"] < value - margin:
        verdict = CONTRADICTED
    reason = f"{row['effect']:+.2f} points{_interval(row)} against {value:g} ± {margin:g}"
    if np.isnan(row["se_moderated"]):
        reason += "; no error is known (single run)"
    elif verdict == UNDECIDED:
        reason += "; the interval reaches inside and outside" if inside else "; too uncertain to exclude it"
    numbers = {"effect": row["effect"], "low": row["low_moderated"], "high": row["high_moderated"]}
    numbers |= {"claimed": value, "margin": margin}
    return Verdict(verdict, "agrees" if inside else "disagrees", reason, numbers, _records(frame))


def association(measured: Measured, cells: Sequence[tuple[Key, Weights, Weights]], confidence: float) -> Verdict:
    """Does the second effect of a cell (harm) grow with its first (worth), over the cells?

    The statistic is the covariance of the two. Where they share a cell's mean, its noise alone makes them go together;
    a parametric bootstrap of all cell means shows by how much, and the basic bootstrap interval takes that off.
    """
    there = [item for item in cells if all(measured.has(key) for weights in item[1:] for key in weights)]
    if len(there) < 4:
        return untested(f"{len(there)} cells with both effects, at least 4 are needed")
    keys = list(dict.fromkeys(key for item in there for weights in item[1:] for key in weights))
    at = {key: i for i, key in enumerate(keys)}
    design = np.zeros((2, len(there), len(keys)))
    for row, (_, *pair) in enumerate(there):
        for which, weights in enumerate(pair):
            for key, weight in weights.items():
                design[which, row, at[key]] = weight
    table = measured.table.loc[keys]
    mean, se, df = (table[name].to_numpy(float) for name in ("mean", "se_moderated", "df_moderated"))
    first, second = design @ mean
    observed = float(np.cov(first, second)[0, 1])
    rank = float(stats.spearmanr(first, second).statistic)
    records = [
        {**dict(zip(KEYS, place, strict=True)), "worth": float(a), "harm": float(b)}
        for (place, *_), a, b in zip(there, first, second, strict=True)
    ]
    numbers = {"covariance": observed, "rank_correlation": rank, "cells": len(there)}
    direction = "agrees" if rank > 0 else "disagrees"
    if np.isnan(se).any():
        reason = f"rank correlation {rank:+.2f} over {len(there)} cells; no error is known (single runs)"
        return Verdict(UNDECIDED, direction, reason, numbers, records)
    random = np.random.default_rng(0)
    drawn = mean + se * random.standard_t(df, size=(DRAWS, len(keys)))
    x, y = drawn @ design[0].T, drawn @ design[1].T
    covariances = ((x - x.mean(axis=1, keepdims=True)) * (y - y.mean(axis=1, keepdims=True))).sum(axis=1)
    covariances /= len(there) - 1
    alpha = 1 - confidence
    low, high = 2 * observed - np.quantile(covariances, [1 - alpha, alpha])
    numbers |= {"covariance_corrected": 2 * observed - covariances.mean(), "low": low, "high": high}
    verdict = SUPPORTED if low > 0 else (CONTRADICTED if high < 0 else UNDECIDED)
    reason = (
        f"rank correlation {rank:+.2f} over {len(there)} cells; covariance without shared noise "
        f"{numbers['covariance_corrected']:.2f} ({1 - 2 * alpha:.0%} interval {low:.2f} to {high:.2f})"
    )
    return Verdict(verdict, direction, reason, numbers, records)


def _tests(measured: Measured, members: Sequence[Member], sign: int, confidence: float, margin: float) -> pd.DataFrame:
    frame = contrasts(measured, [member.weights for member in members], confidence)
    place = pd.DataFrame([member.place for member in members], columns=KEYS, dtype=object)
    frame = pd.concat([place, frame], axis=1)
    frame["p_for"] = _p(frame, "_moderated", sign, margin)
    frame["p_against_holm"] = holm(_p(frame, "_moderated", -sign, -margin))
    return frame


def _p(frame: pd.DataFrame, end: str, sign: int, margin: float) -> np.ndarray:
    """One-sided p for sign x effect > margin."""
    return p_value(sign * frame["effect"] - margin, frame[f"se{end}"], frame[f"df{end}"].to_numpy(float), "above")


def _direction(effect: pd.Series) -> str:
    if (effect > 0).all():
        return "agrees"
    return "disagrees" if (effect <= 0).all() else "mixed"


def _interval(row: pd.Series) -> str:
    if np.isnan(row["low_moderated"]):
        return ""
    return f" ({row['low_moderated']:+.2f} to {row['high_moderated']:+.2f})"


def _describe(row: pd.Series) -> str:
    task = "" if row["intermediate"] == "none" else f", {row['intermediate']}"
    p = "" if np.isnan(row["p_for"]) else f", p = {row['p_for']:.2g}"
    return f"{row['effect']:+.2f} (pretrain {row['pretrain']:,}{task}, downstream {row['downstream']:,}{p})"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    names = {"low_moderated": "low", "high_moderated": "high", "p_for": "p"}
    columns = [*KEYS, "n", "method", "effect", *names]
    return frame[columns].rename(columns=names).astype(object).to_dict("records")
