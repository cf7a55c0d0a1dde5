"""Differences and slopes over cells, with errors that hold for three seeds.

Every effect in this analysis is a contrast: a weighted sum of cell means. Three decisions hold throughout.

Pairing. Where all cells of a contrast share at least two seeds, the contrast is computed within each seed and tested by
a one-sample t with (seeds - 1) degrees of freedom. A seed fixes the encoder that several cells start from, so this is
also the correct treatment of cells that share an encoder: whatever they have in common is inside the seed's value.
Otherwise, and for published summaries, the standard errors of the cells are combined as independent, with
Welch-Satterthwaite degrees of freedom.

Moderation. With 3 runs a variance has 2 degrees of freedom, and a cell may show a standard error of 0.01 by luck.
Next to the plain test stands the moderated one: each variance is shrunk toward the typical variance of its family, by
as much as the spread of the family's variances tells (empirical Bayes; Smyth 2004, "Linear models and empirical Bayes
methods"). Cells of one encoder vary together, so they count once when degrees of freedom are added up.

Scope. The images of each size and the test images are the same for all seeds. Intervals speak of training anew on the
same images, not of other images.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from viny.analysis.frames import KEYS
from viny.analysis.summary import by_seed, summarize

Key = tuple[int, str, int]  # pretrain, intermediate, downstream
Weights = Mapping[Key, float]

PAIRED, WELCH = "paired by seed", "Welch, from summaries"
NO_ERROR, MISSING = "no error: single runs", "missing"
TEST_COLUMNS = ["n", "method", "effect", "se", "df", "low", "high", "p"]
MODERATED_COLUMNS = ["se_moderated", "df_moderated", "low_moderated", "high_moderated", "p_moderated"]


@dataclass(frozen=True)
class Measured:
    """What is known about a study's cells, ready for contrasts.

    Attributes:
        table: index (pretrain, intermediate, downstream); columns n, mean, se, se_moderated, df_moderated, in percent.
        seeds: same rows in the same order, one column per seed; no column for a published study.
        rows: row number of each cell.
    """

    table: pd.DataFrame
    seeds: pd.DataFrame
    rows: Mapping[Key, int]

    def has(self, key: Key) -> bool:
        """Whether the cell has at least one result."""
        return key in self.rows and self.table["n"].to_numpy()[self.rows[key]] > 0


def measure(cells: pd.DataFrame) -> Measured:
    """Prepare `cells` (either form of cells.csv) for contrasts of mIoU."""
    summary = summarize(cells)
    n = summary["n"].to_numpy(float)
    encoders = list(summary[["pretrain", "intermediate"]].itertuples(index=False, name=None))
    variance, df = moderate(summary["miou_se"].to_numpy(float) ** 2 * n, n - 1, encoders)
    table = summary.set_index(KEYS).rename(columns={"miou_percent": "mean", "miou_se": "se"})
    moderated = {"se_moderated": np.sqrt(variance / np.where(n > 0, n, np.nan)), "df_moderated": df}
    table = table[["n", "mean", "se"]].assign(**moderated)
    rows = {key: row for row, key in enumerate(table.index)}
    return Measured(table, by_seed(cells).reindex(table.index), rows)


def moderate(variances: np.ndarray, df: np.ndarray, encoders: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Shrink sample variances toward their common value; returns the shrunk variances and their degrees of freedom.

    The prior is estimated from the variances themselves, by the moments of their logarithms. Fewer than four variances
    say nothing about a common value and are returned as they are. Entries that are not numbers stay so.

    Args:
        variances: of one run, each with `df` degrees of freedom.
        encoders: which encoder each belongs to. Degrees of freedom never exceed what one variance per encoder has:
            simulated with noise that cells of an encoder share, tests keep their level this way and lose it otherwise.
    """
    variances, df = np.asarray(variances, float), np.asarray(df, float)
    known = np.isfinite(variances) & (df > 0)
    if known.sum() < 4 or not np.any(variances[known] > 0):
        return np.where(known, variances, np.nan), np.where(known, df, np.nan)
    s2, d = variances[known], df[known]
    s2 = np.maximum(s2, 1e-5 * np.median(s2[s2 > 0]))  # a variance of exactly zero has no logarithm
    e = np.log(s2) - special.digamma(d / 2) + np.log(d / 2)
    excess = np.var(e, ddof=1) - np.mean(special.polygamma(1, d / 2))
    if excess > 0:
        prior_df = 2 * _inverse_trigamma(excess)
        prior = np.exp(np.mean(e) + special.digamma(prior_df / 2) - np.log(prior_df / 2))
        shrunk = (prior_df * prior + d * s2) / (prior_df + d)
    else:  # the variances differ no more than chance makes them differ: one common variance
        prior_df, shrunk = np.inf, np.full(len(d), np.sum(d * s2) / np.sum(d))
    result, result_df = np.full(len(variances), np.nan), np.full(len(variances), np.nan)
    result[known] = shrunk
    most = pd.Series(d).groupby(pd.factorize(pd.Series(list(encoders), dtype=object)[known])[0]).max().sum()
    result_df[known] = np.minimum(prior_df + d, most)
    return result, result_df


def contrasts(measured: Measured, wanted: Sequence[Weights], confidence: float = 0.95) -> pd.DataFrame:
    """Test each weighted sum of cell means against zero; one row per contrast, in the order given.

    Columns: n (pairs, or runs of the smallest cell), method, effect, se, df, low, high, p (two-sided, uncorrected), and
    the moderated se, df, low, high, p. Paired contrasts are moderated together, so they should be of one kind.
    """
    frame = pd.DataFrame([_contrast(measured, weights) for weights in wanted])
    if frame.empty:
        return pd.DataFrame(columns=[*TEST_COLUMNS, *MODERATED_COLUMNS])
    paired = (frame["method"] == PAIRED).to_numpy()
    n = frame["n"].to_numpy(float)
    encoders = [next(iter(weights))[:2] for weights in wanted]
    variance, df = moderate(np.where(paired, frame["se"] ** 2 * n, np.nan), np.where(paired, n - 1, np.nan), encoders)
    frame.loc[paired, "se_moderated"] = np.sqrt(variance / n)[paired]
    frame.loc[paired, "df_moderated"] = df[paired]
    for end in ("", "_moderated"):
        se, degrees = frame[f"se{end}"].to_numpy(float), frame[f"df{end}"].to_numpy(float)
        reach = stats.t.ppf((1 + confidence) / 2, degrees) * se
        frame[f"low{end}"], frame[f"high{end}"] = frame["effect"] - reach, frame["effect"] + reach
        frame[f"p{end}"] = p_value(frame["effect"].to_numpy(float), se, degrees)
    return frame[[*TEST_COLUMNS, *MODERATED_COLUMNS]]


def dependent(measured: Measured, weights: Weights) -> tuple[float, float]:
    """Standard error and degrees of freedom of a contrast if all cells of one encoder had one and the same error.

    The most that a shared encoder can do to a published study, whose runs are not known one by one.
    """
    table = measured.table.loc[list(weights)]
    parts = table["se_moderated"] * np.abs(list(weights.values()))
    by_encoder = parts.groupby(level=["pretrain", "intermediate"]).sum()
    return float(np.linalg.norm(by_encoder)), float(table["df_moderated"].min())


def p_value(effect: ArrayLike, se: ArrayLike, df: ArrayLike, one_sided: bool = False) -> np.ndarray:
    """Student's p of `effect` against zero, two-sided or for the alternative effect > 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.asarray(effect, float) / np.asarray(se, float)
    return stats.t.sf(t, df) if one_sided else 2 * stats.t.sf(np.abs(t), df)


def holm(p: ArrayLike) -> np.ndarray:
    """Holm's step-down correction: strong control of the family-wise error under any dependence between the tests.

    Tests that could not be made (not a number) do not count as members of the family.
    """
    p = np.asarray(p, float)
    corrected = np.full(len(p), np.nan)
    made = np.flatnonzero(np.isfinite(p))
    order = made[np.argsort(p[made], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected


def difference(cell: Key, baseline: Key) -> Weights:
    """The contrast cell - baseline."""
    return {cell: 1.0, baseline: -1.0}


def polynomial(keys: Sequence[Key], x: ArrayLike, degree: int) -> Weights:
    """The contrast that estimates the leading coefficient of a polynomial in `x` by least squares (1: the slope)."""
    x = np.asarray(x, float)
    center, scale = x.mean(), np.ptp(x)
    rows = np.linalg.pinv(np.vander((x - center) / scale, degree + 1))
    return dict(zip(keys, rows[0] / scale**degree, strict=True))


def average(many: Sequence[Weights]) -> Weights:
    """The mean of several contrasts, itself a contrast."""
    total: dict[Key, float] = {}
    for weights in many:
        for key, weight in weights.items():
            total[key] = total.get(key, 0.0) + weight / len(many)
    return total


def _contrast(measured: Measured, weights: Weights) -> dict[str, float | str]:
    keys, c = list(weights), np.array(list(weights.values()))
    row: dict[str, float | str] = dict.fromkeys(("effect", "se", "df", "se_moderated", "df_moderated"), np.nan)
    if not all(measured.has(key) for key in keys):
        return {**row, "n": 0, "method": MISSING}
    rows = [measured.rows[key] for key in keys]
    values = c @ measured.seeds.to_numpy(float)[rows]
    values = values[np.isfinite(values)]  # seeds that all cells share
    if len(values) >= 2:
        se = np.std(values, ddof=1) / np.sqrt(len(values))
        return {**row, "n": len(values), "method": PAIRED, "effect": values.mean(), "se": se, "df": len(values) - 1}
    table = {name: measured.table[name].to_numpy(float)[rows] for name in measured.table}
    row["effect"] = c @ table["mean"]
    n = int(table["n"].min())
    if n < 2:
        return {**row, "n": n, "method": NO_ERROR}
    row["se"], row["df"] = _satterthwaite(c, table["se"], table["n"] - 1)
    row["se_moderated"], row["df_moderated"] = _satterthwaite(c, table["se_moderated"], table["df_moderated"])
    return {**row, "n": n, "method": WELCH}


def _satterthwaite(c: np.ndarray, se: np.ndarray, df: np.ndarray) -> tuple[float, float]:
    parts = (c * se) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.sqrt(parts.sum())), float(parts.sum() ** 2 / np.sum(parts**2 / df))


def _inverse_trigamma(value: float) -> float:
    """x > 0 with trigamma(x) = value."""
    log_x = optimize.brentq(lambda y: np.log(special.polygamma(1, np.exp(y))) - np.log(value), -40, 40)
    return float(np.exp(log_x))
