"""Differences and slopes over cells, with errors that hold for a few seeds.

Every effect in this analysis is a contrast: a weighted sum of cell means. It is computed within each seed where all of
its cells share at least two seeds, and from the cells' means and errors otherwise. What its standard error combines:
`viny.analysis.noise`. Differences between two cells that start from the same encoder are best taken first, within each
seed (`against`), since whatever that encoder does to both is gone then.

Scope. The images of each size and the test images are the same for all seeds. Intervals speak of repeated training on
the same images, not of other images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from viny.analysis.frames import KEYS
from viny.analysis.noise import Noise, of_runs, of_summaries
from viny.analysis.summary import by_seed, is_summary, summarize

Key = tuple[int, str, int]  # pretrain, intermediate, downstream
Weights = Mapping[Key, float]

PAIRED, UNPAIRED = "paired by seed", "from means and errors"
NO_ERROR, MISSING = "no error: single runs", "missing"
TEST_COLUMNS = ["n", "method", "effect", "se", "df", "low", "high", "p"]


@dataclass(frozen=True)
class Measured:
    """What is known about a study's cells, ready for contrasts.

    Attributes:
        table: index (pretrain, intermediate, downstream); columns n, mean, se (its own), se_moderated, df_moderated, in
            percent or points.
        seeds: same rows in the same order, one column per seed; no column for a published study.
        shared: all seeds start from one encoder a size.
        rows: row number of each cell.
        encoders: number of each row's encoder.
        noise: models of the scatter; an error is the largest that they give.
    """

    table: pd.DataFrame
    seeds: pd.DataFrame
    shared: bool
    rows: Mapping[Key, int]
    encoders: np.ndarray
    noise: tuple[Noise, ...]

    def has(self, key: Key) -> bool:
        """Whether the cell has at least one result."""
        return key in self.rows and self.values[self.rows[key], 0] > 0

    @property
    def correlation(self) -> float:
        """Of the errors of two cells of one encoder; zero where it is not known."""
        return self.noise[0].correlation if self.noise else 0.0

    @cached_property
    def values(self) -> np.ndarray:
        """(cells, 3): n, mean and se of the table."""
        return self.table[["n", "mean", "se"]].to_numpy(float)

    @cached_property
    def scores(self) -> np.ndarray:
        """(cells, seeds) scores."""
        return self.seeds.to_numpy(float)

    def against(self, baselines: Mapping[Key, Key]) -> "Measured":
        """The cells minus their baselines, within each seed; standard errors are added up where no seed is shared."""
        pairs = {cell: base for cell, base in baselines.items() if {cell, base} <= self.rows.keys()}
        cell, base = ([self.rows[key] for key in keys] for keys in (pairs.keys(), pairs.values()))
        scores = self.scores[cell] - self.scores[base]
        (n, mean, se), (base_n, base_mean, base_se) = self.values[cell].T, self.values[base].T
        values = np.column_stack([np.minimum(n, base_n), mean - base_mean, np.hypot(se, base_se)])
        shared = np.isfinite(scores).sum(axis=1)
        paired = shared > 1
        center = np.nansum(scores, axis=1) / np.maximum(shared, 1)
        squares = np.nansum((scores - center[:, None]) ** 2, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            own = np.column_stack([shared, center, np.sqrt(squares / (shared - 1) / shared)])
        values[paired] = own[paired]
        index = pd.MultiIndex.from_tuples(pairs, names=KEYS) if pairs else self.table.index[:0]
        table = pd.DataFrame(values, index, ["n", "mean", "se"])
        return prepare(table, pd.DataFrame(scores, index, self.seeds.columns), self.shared)

    def draw(self, keys: Sequence[Key], draws: int, random: np.random.Generator) -> np.ndarray:
        """(1 + draws, cells): the means themselves, then means redrawn with their errors (missing errors: no draws).

        Cells of one encoder are redrawn with the part of the noise that they share.
        """
        table, rows = self.table.loc[list(keys)], [self.rows[key] for key in keys]
        mean, se, df = (table[name].to_numpy(float) for name in ("mean", "se_moderated", "df_moderated"))
        df = np.nan_to_num(df, nan=1.0)
        numbers, column = np.unique(self.encoders[rows], return_inverse=True)
        common = random.standard_normal((draws, len(numbers)))[:, column]
        share = self.correlation
        noise = np.sqrt(share) * common + np.sqrt(1 - share) * random.standard_normal((draws, len(rows)))
        scale = np.sqrt(df / random.chisquare(np.broadcast_to(df, (draws, len(rows)))))
        return np.vstack([mean, mean + se * noise * scale])

    def covariance(self, keys: Sequence[Key]) -> np.ndarray:
        """(cells, cells) covariance of the errors of the means."""
        encoders = self.encoders[[self.rows[key] for key in keys]]
        se = self.table.loc[list(keys), "se_moderated"].to_numpy(float)
        together = self.correlation * (encoders[:, None] == encoders) + (1 - self.correlation) * np.eye(len(se))
        return se[:, None] * together * se


def measure(cells: pd.DataFrame, shared: bool = False) -> Measured:
    """Prepare `cells` (either form of cells.csv) for contrasts of mIoU."""
    table = summarize(cells).set_index(KEYS).rename(columns={"miou_percent": "mean", "miou_se": "se"})
    return prepare(table[["n", "mean", "se"]], None if is_summary(cells) else by_seed(cells), shared)


def prepare(table: pd.DataFrame, seeds: pd.DataFrame | None, shared: bool) -> Measured:
    """Pool the noise of cells with n, mean and se (index KEYS), known by seed or, with `seeds` None, as they are."""
    seeds = pd.DataFrame(index=table.index, dtype=float) if seeds is None else seeds.reindex(table.index)
    numbers: dict[tuple[int, str], int] = {}
    encoders = np.array([numbers.setdefault(key[:2], len(numbers)) for key in table.index], int)
    n, variances = table["n"].to_numpy(float), (table["se"] ** 2 * table["n"]).to_numpy(float)
    scores = seeds.to_numpy(float)
    noise = of_runs(scores, encoders) if seeds.shape[1] else of_summaries(variances, n, encoders, shared)
    moderated = np.full((len(table), 2), np.nan)
    one = np.ones(1)
    for row in np.flatnonzero(np.isfinite(variances) & (n > 1)) if noise else []:
        own = (variances[row] / n[row], n[row] - 1)
        moderated[row] = max(model.error(one, n[[row]], np.zeros(1, int), own) for model in noise)
    table = table.assign(se_moderated=moderated[:, 0], df_moderated=moderated[:, 1])
    return Measured(table, seeds, shared, {key: row for row, key in enumerate(table.index)}, encoders, noise)


def contrasts(measured: Measured, wanted: Sequence[Weights], confidence: float = 0.95) -> pd.DataFrame:
    """Estimate each weighted sum of cell means; one row per contrast, in the order given.

    Columns: n (pairs, or runs of the smallest cell), method, effect, se, df, interval (low, high), and p (two-sided,
    against zero, uncorrected): p < 1 - confidence exactly where the interval leaves out zero.
    """
    if not wanted:
        return pd.DataFrame(columns=TEST_COLUMNS)
    n, method, *numbers = zip(*(_contrast(measured, weights) for weights in wanted), strict=True)
    effect, se, df = np.array(numbers, float)
    reach = stats.t.ppf((1 + confidence) / 2, df) * se
    columns = (n, method, effect, se, df, effect - reach, effect + reach, p_value(effect, se, df))
    return pd.DataFrame(dict(zip(TEST_COLUMNS, columns, strict=True)))


def p_value(effect: ArrayLike, se: ArrayLike, df: ArrayLike) -> np.ndarray:
    """Student's two-sided p of `effect` against zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.asarray(effect, float) / np.asarray(se, float)
    return 2 * stats.t.sf(np.abs(t), df)


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


def _contrast(measured: Measured, weights: Weights) -> tuple[int, str, float, float, float]:
    """The first five columns of `contrasts`."""
    keys, c = list(weights), np.array(list(weights.values()))
    if not keys or not all(measured.has(key) for key in keys):
        return 0, MISSING, np.nan, np.nan, np.nan
    rows = [measured.rows[key] for key in keys]
    values = c @ measured.scores[rows]
    values = values[np.isfinite(values)]  # seeds that all cells share
    own: tuple[float, float] | np.ndarray
    if len(values) >= 2:
        effect, n, method = values.mean(), np.full(len(c), float(len(values))), PAIRED
        own = values.var(ddof=1) / len(values), len(values) - 1
    else:
        n, mean, se = measured.values[rows].T
        effect, method, own = c @ mean, UNPAIRED, se**2 * n
    if n.min() < 2 or not measured.noise:
        return int(n.min()), NO_ERROR, effect, np.nan, np.nan
    _, encoders = np.unique(measured.encoders[rows], return_inverse=True)
    return int(n.min()), method, effect, *max(model.error(c, n, encoders, own) for model in measured.noise)
