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

from viny.analysis.contrasts import WELCH, Key, Measured, Weights, average, contrasts, dependent, holm, p_value
from viny.analysis.frames import KEYS

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = "supported", "contradicted", "undecided", "not tested"
DRAWS = 4_000
RECORDED = ["measure", *KEYS, "n", "method", "effect", "low_moderated", "high_moderated", "p_for"]


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


def evidence(
    measured: Measured, members: Sequence[Member], sign: int, confidence: float, margin: float = 0.0
) -> pd.DataFrame:
    """A row per member: its place, the columns of `contrasts`, and one-sided tests of sign x effect > margin.

    `excess` is sign x effect - margin; `p_for` and `p_against` test it above and below zero.
    """
    place = pd.DataFrame([member.place for member in members], columns=KEYS, dtype=object)
    frame = pd.concat([place, contrasts(measured, [member.weights for member in members], confidence)], axis=1)
    frame["excess"] = sign * frame["effect"] - margin
    for name, side in (("p_for", 1), ("p_against", -1)):
        frame[name] = p_value(side * frame["excess"], frame["se_moderated"], frame["df_moderated"], one_sided=True)
    return frame


def always(frame: pd.DataFrame, confidence: float) -> Verdict:
    """Is the effect on the claimed side in every row of `evidence`?

    Supported: each cell alone is significant (intersection-union test; needs no correction). Contradicted: at least one
    cell is significantly on the other side after Holm's correction. Undecided otherwise, also if a cell is missing.
    """
    known, decidable = frame["excess"].notna(), frame["p_for"].notna()
    if not known.any():
        return untested("none of the cells has a result")
    alpha = 1 - confidence
    significant, against = int((frame["p_for"] < alpha).sum()), _against(frame, alpha)
    right = int((frame["excess"] > 0).sum())
    counts = [
        (against, "significantly the other way"),
        (int((~known).sum()), "missing"),
        (int((known & ~decidable).sum()), "without error (single runs)"),
    ]
    parts = [f"{right} of {int(known.sum())} cells point the claimed way, {significant} of them significantly"]
    parts += [f"{count} {what}" for count, what in counts if count]
    worst = frame.loc[frame["p_for"].idxmax() if decidable.any() else frame["excess"].idxmin()]
    parts.append(f"weakest: {_describe(worst)}")
    verdict = UNDECIDED
    if against:
        verdict = CONTRADICTED
    elif decidable.all() and significant == len(frame):
        verdict = SUPPORTED
    plain = p_value(frame["excess"], frame["se"], frame["df"], one_sided=True)
    numbers = {
        **{"cells": len(frame), "claimed_direction": right, "significant": significant, "against": against},
        **{"significant_unmoderated": int((plain < alpha).sum())},
        **{"largest_p": frame["p_for"].max(), "weakest_effect": worst["effect"]},
    }
    return Verdict(verdict, _direction(frame.loc[known, "excess"]), "; ".join(parts), numbers, _records(frame))


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
    frame = evidence(measured, there, sign, confidence, margin)
    whole = Member((None, "", None), average([member.weights for member in there]))
    mean = evidence(measured, [whole], sign, confidence, margin).iloc[0]
    alpha = 1 - confidence
    against = _against(frame, alpha)
    verdict = UNDECIDED
    if mean["p_against"] < alpha or against:
        verdict = CONTRADICTED
    elif mean["p_for"] < alpha:
        verdict = SUPPORTED
    reason = f"on average {mean['effect']:+.2f} {unit}{_interval(mean)}; "
    reason += f"{int((frame['excess'] > 0).sum())} of {len(frame)} point the claimed way"
    if against:
        reason += f", {against} significantly the other way"
    if np.isnan(mean["p_for"]):
        reason += "; no error is known (single runs)"
    if len(there) < len(members):
        reason += f"; {len(members) - len(there)} missing"
    numbers = {"average": mean["effect"], "low": mean["low_moderated"], "high": mean["high_moderated"]}
    numbers |= {"p": mean["p_for"], "cells": len(frame), "against": against, "margin": margin}
    if mean["method"] == WELCH:
        together = float(p_value(mean["excess"], *dependent(measured, whole.weights), one_sided=True))
        numbers["p_if_encoders_cells_vary_together"] = together
        if verdict == SUPPORTED and not together < alpha:
            reason += "; rests on the runs of an encoder's cells being independent"
    return Verdict(verdict, _direction(frame["excess"]), reason, numbers, _records(frame))


def about(measured: Measured, member: Member, value: float, margin: float, confidence: float) -> Verdict:
    """Is the effect `value`, give or take `margin`?

    Supported: both one-sided tests put it inside (equivalence, i.e. the interval of level 1 - 2 alpha lies inside).
    Contradicted: the interval of level 1 - alpha lies outside. Undecided otherwise.
    """
    frame = evidence(measured, [member], 1, confidence)
    row = frame.iloc[0]
    if np.isnan(row["effect"]):
        return untested("the cell has no result")
    inside = abs(row["effect"] - value) <= margin
    reach = stats.t.ppf(confidence, row["df_moderated"]) * row["se_moderated"]
    verdict = UNDECIDED
    if value - margin <= row["effect"] - reach and row["effect"] + reach <= value + margin:
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
    pairs = list(zip(*(item[1:] for item in there), strict=True))
    design = np.array([[[weights.get(key, 0.0) for key in keys] for weights in side] for side in pairs])
    table = measured.table.loc[keys]
    mean, se, df = (table[name].to_numpy(float) for name in ("mean", "se_moderated", "df_moderated"))
    worth, harm = design @ mean
    records = [
        {**dict(zip(KEYS, place, strict=True)), "worth": float(a), "harm": float(b)}
        for (place, *_), a, b in zip(there, worth, harm, strict=True)
    ]
    for name, effect in (("worth", worth), ("harm", harm)):
        if np.allclose(effect, effect[0]):
            reason = f"the {name} is the same in all {len(there)} cells, so there is no association to judge"
            return Verdict(UNDECIDED, "mixed", reason, {"cells": len(there)}, records)
    observed = float(np.cov(worth, harm)[0, 1])
    rank = float(stats.spearmanr(worth, harm).statistic)
    numbers = {"covariance": observed, "rank_correlation": rank, "cells": len(there)}
    direction = "agrees" if rank > 0 else "disagrees"
    reason = f"rank correlation {rank:+.2f} over {len(there)} cells; "
    if np.isnan(se).any():
        return Verdict(UNDECIDED, direction, reason + "no error is known (single runs)", numbers, records)
    random = np.random.default_rng(0)
    drawn = mean + se * random.standard_t(df, size=(DRAWS, len(keys)))
    x, y = drawn @ design[0].T, drawn @ design[1].T
    covariances = ((x - x.mean(axis=1, keepdims=True)) * (y - y.mean(axis=1, keepdims=True))).sum(axis=1)
    covariances /= len(there) - 1
    alpha = 1 - confidence
    low, high = 2 * observed - np.quantile(covariances, [1 - alpha, alpha])
    corrected = 2 * observed - covariances.mean()
    numbers |= {"covariance_corrected": corrected, "low": low, "high": high}
    verdict = SUPPORTED if low > 0 else (CONTRADICTED if high < 0 else UNDECIDED)
    reason += f"covariance without shared noise {corrected:.2f} ({1 - 2 * alpha:.0%} interval {low:.2f} to {high:.2f})"
    return Verdict(verdict, direction, reason, numbers, records)


def _against(frame: pd.DataFrame, alpha: float) -> int:
    """Rows that are significantly on the other side after Holm's correction."""
    return int((holm(frame["p_against"]) < alpha).sum())


def _direction(excess: pd.Series) -> str:
    if (excess > 0).all():
        return "agrees"
    return "disagrees" if (excess <= 0).all() else "mixed"


def _interval(row: pd.Series) -> str:
    if np.isnan(row["low_moderated"]):
        return ""
    return f" ({row['low_moderated']:+.2f} to {row['high_moderated']:+.2f})"


def _describe(row: pd.Series) -> str:
    where = [f"pretrain {row['pretrain']:,}"]
    where += [row["intermediate"]] if row["intermediate"] != "none" else []
    where += [row["measure"].removesuffix("_percent").replace("_", " ")] if "measure" in row else []
    where += [f"downstream {row['downstream']:,}"] if row["downstream"] is not None else []
    where += [] if np.isnan(row["p_for"]) else [f"p = {row['p_for']:.2g}"]
    return f"{row['effect']:+.2f} ({', '.join(where)})"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    shown = frame[[name for name in RECORDED if name in frame]]
    names = {"low_moderated": "low", "high_moderated": "high", "p_for": "p"}
    return shown.rename(columns=names).astype(object).to_dict("records")
