"""How a claim gets its verdict: intervals against the range that the claim expects.

A verdict is read off the intervals that are shown. With the default confidence of 95%:

| verdict | each effect must agree | the average must agree |
|---|---|---|
| supported | every interval lies in the range | the interval of the average lies in the range |
| contradicted | an interval, widened for their number (Holm), lies outside | the interval lies outside |
| negligible | every interval lies within ± the smallest effect that matters | the interval does |
| undecided | none of these | none of these |
| not tested | the study lacks the cells | the study lacks the cells |

So a claim without any truth in it is supported, or a true one contradicted, in at most 5% of studies. What the
estimates look like without asking for certainty is kept apart, as `direction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis import names
from viny.analysis.contrasts import Measured, Weights, average, contrasts, holm, p_value
from viny.analysis.frames import KEYS

SUPPORTED, CONTRADICTED, NEGLIGIBLE, UNDECIDED = "supported", "contradicted", "negligible", "undecided"
NOT_TESTED = "not tested"
DRAWS, POWER, MOST_RUNS = 4_000, 0.8, 200
RECORDED = ["measure", *KEYS, "n", "method", "effect", "low", "high", "p"]
Place = tuple[int | None, str, int | None]  # of a contrast; None: along this axis


@dataclass(frozen=True)
class Expectation:
    """What a claim expects of effects: a range, the smallest effect that matters, the unit, and the confidence."""

    low: float
    high: float
    confidence: float
    negligible: float | None = None
    unit: str = "points"


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

    place: Place
    weights: Weights


def untested(reason: str) -> Verdict:
    """The study does not hold what the claim speaks of."""
    return Verdict(NOT_TESTED, "none", reason)


def evidence(measured: Measured, members: Sequence[Member], expected: Expectation) -> pd.DataFrame:
    """A row per member: its place, the columns of `contrasts`, and how it stands to the expected range.

    `excess` is how far inside the range the effect lies (negative: outside), `inside` whether its interval does,
    `p_against` the p of a range as far away as this.
    """
    rows = contrasts(measured, [member.weights for member in members], expected.confidence)
    effect, low, high = (rows[name].to_numpy(float) for name in ("effect", "low", "high"))
    excess = np.minimum(effect - expected.low, expected.high - effect)
    p = p_value(excess, rows["se"], rows["df"])
    limit = expected.negligible or 0.0
    place = dict(zip(KEYS, zip(*(member.place for member in members), strict=True), strict=True))
    found = pd.DataFrame(place, dtype=object).assign(
        excess=excess,
        inside=(low > expected.low) & (high < expected.high),
        p_against=np.where((excess < 0) | np.isnan(p), p, 1.0),
        small=(low > -limit) & (high < limit),
    )
    return pd.concat([found, rows], axis=1)


def on_each(frame: pd.DataFrame, expected: Expectation) -> Verdict:
    """Is every effect of `evidence` as expected? Undecided at best while one is missing or without error."""
    known, decidable = frame["excess"].notna(), frame["p_against"].notna()
    if not known.any():
        return untested("none of the cells has a result")
    against = int((holm(frame["p_against"]) < 1 - expected.confidence).sum())
    agree, sure = int((frame["excess"] > 0).sum()), int(frame["inside"].sum())
    counts = [
        (against, "certainly otherwise"),
        (int((~known).sum()), "missing"),
        (int((known & ~decidable).sum()), "without error (single runs)"),
    ]
    many = len(frame) > 1
    parts = [f"{agree} of {int(known.sum())} effects are as claimed, {sure} of them certainly"] * many
    parts += [f"{count} {what}" for count, what in counts if count]
    closeness = frame["excess"] / frame["se"].where(frame["se"] > 0)
    worst = frame.loc[closeness.idxmin() if closeness.notna().any() else frame["excess"].idxmin()]
    parts.append(f"{'weakest: ' * many}{_describe(worst)}")
    verdict = UNDECIDED
    if against:
        verdict = CONTRADICTED
    elif sure == len(frame):
        verdict = SUPPORTED
    elif frame["small"].all():
        verdict = NEGLIGIBLE
        parts.append(f"every effect is smaller than {expected.negligible:g}")
    elif decidable.all():
        parts.append(_more_runs(worst, expected))
    numbers = {"cells": len(frame), "as_claimed": agree, "certain": sure, "against": against}
    numbers |= {"weakest_effect": worst["effect"], "weakest_low": worst["low"], "weakest_high": worst["high"]}
    return Verdict(verdict, _direction(frame.loc[known, "excess"]), "; ".join(parts), numbers, _records(frame))


def on_average(measured: Measured, members: Sequence[Member], expected: Expectation) -> Verdict:
    """Is the average effect as expected, over the members that have results?"""
    there = [member for member in members if all(measured.has(key) for key in member.weights)]
    if not there:
        return untested("none of the cells has a result" if members else "the grid has too few sizes")
    frame = evidence(measured, there, expected)
    whole = Member((None, "", None), average([member.weights for member in there]))
    mean = evidence(measured, [whole], expected).iloc[0]
    reason = [f"on average {mean['effect']:+.2f}{_interval(mean)} {expected.unit}"]
    reason += [f"{int((frame['excess'] > 0).sum())} of {len(frame)} are as claimed"] if len(frame) > 1 else []
    verdict = UNDECIDED
    if mean["inside"]:
        verdict = SUPPORTED
    elif mean["p_against"] < 1 - expected.confidence:
        verdict = CONTRADICTED
    elif mean["small"]:
        verdict = NEGLIGIBLE
        reason.append(f"certainly smaller than {expected.negligible:g} either way")
    elif np.isnan(mean["se"]):
        reason.append("no error is known (single runs)")
    else:
        reason.append(_more_runs(mean, expected))
    reason += [f"{len(members) - len(there)} missing"] if len(there) < len(members) else []
    numbers = {"average": mean["effect"], "low": mean["low"], "high": mean["high"], "p": mean["p"], "cells": len(frame)}
    return Verdict(verdict, _direction(frame["excess"]), "; ".join(reason), numbers, _records(frame))


def association(measured: Measured, cells: Sequence[tuple[Place, Weights, Weights]], expected: Expectation) -> Verdict:
    """Is the covariance of two effects over the cells as expected?

    Where both effects share a cell's mean, its noise alone makes them go together; what it is expected to add is taken
    off. The interval is a basic one from a parametric bootstrap of all cell means.

    Args:
        cells: place, first effect, second effect.
    """
    there = [item for item in cells if all(measured.has(key) for weights in item[1:] for key in weights)]
    if len(there) < 4:
        return untested(f"{len(there)} cells with both effects, at least 4 are needed")
    keys = list(dict.fromkeys(key for item in there for weights in item[1:] for key in weights))
    sides = zip(*(item[1:] for item in there), strict=True)
    design = np.array([[[weights.get(key, 0.0) for key in keys] for weights in side] for side in sides])
    drawn = measured.draw(keys, DRAWS, np.random.default_rng(0))
    first, second = design @ drawn[0]
    records = [
        {**dict(zip(KEYS, place, strict=True)), "effect": float(a), "other": float(b)}
        for (place, *_), a, b in zip(there, first, second, strict=True)
    ]
    numbers: dict[str, Any] = {"cells": len(there)}
    if np.allclose(first, first[0]) or np.allclose(second, second[0]):
        reason = f"one of the effects is the same in all {len(there)} cells, so there is no association to judge"
        return Verdict(UNDECIDED, "mixed", reason, numbers, records)
    rank = float(stats.spearmanr(first, second).statistic)
    agrees = expected.low < rank < expected.high
    reason = f"rank correlation {rank:+.2f} over {len(there)} cells; "
    numbers |= {"covariance": float(np.cov(first, second)[0, 1]), "rank_correlation": rank}
    if np.isnan(drawn).any():
        reason += "no error is known (single runs)"
        return Verdict(UNDECIDED, "agrees" if agrees else "disagrees", reason, numbers, records)
    x, y = (drawn @ side.T for side in design)
    products = (x - x.mean(axis=1, keepdims=True)) * (y - y.mean(axis=1, keepdims=True))
    covariances = products.sum(axis=1) / (len(there) - 1)
    centered = design - design.mean(axis=1, keepdims=True)
    shared = np.trace(centered[0] @ measured.covariance(keys) @ centered[1].T) / (len(there) - 1)
    corrected = covariances[0] - shared
    tails = [(1 + expected.confidence) / 2, (1 - expected.confidence) / 2]
    low, high = corrected + covariances[1:].mean() - np.quantile(covariances[1:], tails)
    numbers |= {"covariance_corrected": corrected, "low": low, "high": high}
    verdict = UNDECIDED
    if expected.low < low and high < expected.high:
        verdict = SUPPORTED
    elif high < expected.low or expected.high < low:
        verdict = CONTRADICTED
    reason += f"covariance without shared noise {corrected:+.2f} ({low:+.2f} to {high:+.2f})"
    return Verdict(verdict, "agrees" if agrees else "disagrees", reason, numbers, records)


def _more_runs(row: pd.Series, expected: Expectation) -> str:
    """How many more runs of each cell would decide, with a power of 80%, if the estimate were the truth."""
    n = np.arange(row["n"] + 1, MOST_RUNS + 1)
    se, df = row["se"] * np.sqrt(row["n"] / n), row["df"] + n - row["n"]
    power = stats.nct.sf(stats.t.ppf((1 + expected.confidence) / 2, df), df, abs(row["excess"]) / se)
    enough = n[power >= POWER]
    if not len(enough):
        return f"were this the truth, {MOST_RUNS} runs a cell would not decide it"
    more = int(enough[0] - row["n"])
    return f"were this the truth, {more} more run{'s' * (more > 1)} a cell would decide it with {POWER:.0%} power"


def _direction(excess: pd.Series) -> str:
    if (excess > 0).all():
        return "agrees"
    return "disagrees" if (excess <= 0).all() else "mixed"


def _interval(row: pd.Series) -> str:
    return "" if np.isnan(row["low"]) else f" ({row['low']:+.2f} to {row['high']:+.2f})"


def _describe(row: pd.Series) -> str:
    where = [] if row["pretrain"] is None else [f"{row['pretrain']:,} pre-training images"]
    where += [names.task(row["intermediate"])] if row["intermediate"] not in ("none", "") else []
    where += [row["measure"].replace("_", " ")] if "measure" in row else []
    if row["downstream"] is not None:
        where.append(f"distance {row['downstream']}" if "measure" in row else f"{row['downstream']:,} labels")
    return f"{row['effect']:+.2f}{_interval(row)} at {', '.join(where)}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame[[name for name in RECORDED if name in frame]].astype(object).to_dict("records")
