"""How much runs scatter, pooled over a study, and from that the errors of weighted sums of cell means.

A run's score is the mean of its cell, plus what its encoder does to all of its cells, plus noise of its own. A few runs
say little about the variance of one cell, so every error combines the contrast's own variance over the runs with the
variance that the whole study leads to expect, weighted by degrees of freedom (a moderated t; Smyth 2004, "Linear models
and empirical Bayes methods"):

    se^2 = (d v + f s^2) / (d + f), with at most d + f degrees of freedom

s^2 is the squared standard error by the contrast's own runs, with f degrees of freedom; v the expected one, and d what
v is worth. For a single cell d is `PRIOR`, a fixed number: estimated from a few variances of two degrees of freedom
each, it would be too large too often. A contrast over many cells averages their unequal variances, so d grows with the
number of cells. v is never worth more than the runs that it was estimated from; these include the contrast's own, so
both together have no more degrees of freedom than v. `python -m benchmarks.calibration` measures how often such
intervals cover the truth.
"""

from dataclasses import dataclass

import numpy as np

PRIOR = 4.0  # degrees of freedom of the pooled variance as a statement about one cell


@dataclass(frozen=True)
class Pool:
    """A variance pooled over encoders, with the degrees of freedom that its unequal parts leave."""

    value: float
    df: float

    @classmethod
    def of(cls, squares: np.ndarray, df: np.ndarray) -> "Pool":
        """Pool sums of squares with their degrees of freedom."""
        if not df.sum() or not squares.sum():
            return cls(0.0, float(df.sum()))
        quartic = np.sum(squares**2 / np.where(df > 0, df + 2, 1))  # estimates the sum of df sigma^4
        return cls(float(squares.sum() / df.sum()), float(min(df.sum(), squares.sum() ** 2 / quartic)))


@dataclass(frozen=True)
class Noise:
    """The scatter of single runs.

    Attributes:
        seeds: mean square of seeds within an encoder: variance of a run + `labels` x variance of an encoder.
        rest: mean square of what is left: variance of a run about its cell's mean and its seed's effect.
        labels: cells that a seed's effect is averaged over.
        together: where runs are not known one by one, all cells of an encoder are off by as many standard deviations.
    """

    seeds: Pool
    rest: Pool
    labels: float = 1.0
    together: bool = False

    @property
    def correlation(self) -> float:
        """Of the errors of two cells of one encoder."""
        shared = max(self.seeds.value - self.rest.value, 0.0) / self.labels
        return shared / (shared + self.rest.value) if self.rest.value else 0.0

    def error(
        self, weights: np.ndarray, n: np.ndarray, encoders: np.ndarray, own: tuple[float, float] | np.ndarray
    ) -> tuple[float, float]:
        """Standard error and degrees of freedom of a weighted sum of cell means.

        Args:
            weights, n, encoders: (m,) weight, number of runs, and encoder (0, 1, 2 ...) of each cell.
            own: squared standard error by its own runs and its degrees of freedom; or, where runs cannot be paired,
                (m,) variances of a run in each cell.
        """
        scaled = weights / np.sqrt(n)
        sums = np.bincount(encoders, scaled)
        a = np.sum(sums**2) / self.labels  # coefficients of the two variances; neither is negative
        b = max(np.sum(scaled**2) - a, 0.0)
        expected, df = _combine([(a * self.seeds.value, self.seeds.df), (b * self.rest.value, self.rest.df)])
        units = sums if self.together else scaled
        prior = PRIOR * np.sum(units**2) ** 2 / np.sum(units**4) if units.any() else PRIOR
        if isinstance(own, np.ndarray):
            errors = np.bincount(encoders, scaled * np.sqrt(own)) if self.together else scaled * np.sqrt(own)
            runs = np.array([n[encoders == g].min() for g in np.unique(encoders)]) if self.together else n
            own = _combine(list(zip(errors[errors != 0] ** 2, runs[errors != 0] - 1, strict=True)))
        worth = prior * df / (prior + df)
        total = worth + own[1]
        return float(np.sqrt((worth * expected + own[1] * own[0]) / total)), float(min(total, max(df, own[1])))


def _combine(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """The sum of independent variances and its degrees of freedom (Welch, Satterthwaite)."""
    total = sum(value for value, _ in parts)
    spread = sum(value**2 / df for value, df in parts if value)
    return total, total**2 / spread if spread else min((df for _, df in parts), default=1.0)


def of_runs(scores: np.ndarray, encoders: np.ndarray) -> tuple[Noise, ...]:
    """Pool scores known run by run.

    Args:
        scores: (cells, seeds); a missing run is not a number.
        encoders: (cells,) encoder of each (0, 1, 2 ...).

    Returns:
        one model; none if no cell was run twice.
    """
    blocks = [_squares(scores[encoders == g]) for g in range(max(encoders, default=-1) + 1)]
    seeds, seeds_df, rest, rest_df, cells = np.array(blocks, float).reshape(-1, 5).T
    if not seeds_df.sum():
        return ()
    return (Noise(Pool.of(seeds, seeds_df), Pool.of(rest, rest_df), float(cells.sum() / seeds_df.sum())),)


def of_summaries(variances: np.ndarray, n: np.ndarray, encoders: np.ndarray, shared: bool) -> tuple[Noise, ...]:
    """Pool the variances of a run in each cell where single runs are not known.

    How the cells of an encoder vary together is then not known either. A contrast's variance is linear in their
    correlation, so its largest value is at one of two ends: no correlation, or cells that are all off together.

    Args:
        variances, n, encoders: (cells,) variance of a run, number of runs, encoder (0, 1, 2 ...).
        shared: all runs of a size started from one encoder, so that the cells are independent given these encoders.

    Returns:
        models whose largest error holds; none if no variance is known.
    """
    known = np.isfinite(variances) & (n > 1)
    groups = [np.flatnonzero(known & (encoders == g)) for g in np.unique(encoders[known])]
    if not groups:
        return ()
    df = np.array([np.mean(n[group] - 1) for group in groups])
    pool = Pool.of(df * [np.mean(variances[group]) for group in groups], df)
    independent, together = Noise(pool, pool, np.inf), Noise(pool, Pool(0.0, 1.0), together=True)
    return (independent,) if shared else (independent, together)


def _squares(y: np.ndarray) -> tuple[float, float, float, float, float]:
    """Squares of an encoder's scores (cells, seeds): between seeds and their df, the rest and its df; and n - cells."""
    y = y[np.isfinite(y).sum(axis=1) > 1]
    known = np.isfinite(y)
    if not len(y):
        return 0, 0, 0, 0, 0
    count = known.sum(axis=1, keepdims=True)
    row, seed = np.nonzero(known)
    within = (y - np.nansum(y, axis=1, keepdims=True) / count)[known]
    design = np.eye(y.shape[1])[seed] - (known / count)[row]  # seeds, freed of the cells' means
    effect, _, rank, _ = np.linalg.lstsq(design, within, rcond=None)
    rest = np.sum((within - design @ effect) ** 2)
    runs = len(within) - len(y)
    return np.sum(within**2) - rest, rank, rest, runs - rank, runs
