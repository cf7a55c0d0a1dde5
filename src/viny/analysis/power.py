"""How many seeds a difference needs: power of the two-sided t test of two means with equal errors, unpaired."""

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.summary import summarize

POWER = 0.8
MOST = 10_000  # seeds
PUBLISHED_SD = 0.45  # of one run, points of mIoU: the published ±, pooled and read as standard deviations


def power(difference: float, sd: float, seeds: int, confidence: float = 0.95) -> float:
    """Probability that a true difference between two cells of `seeds` runs each is found significant."""
    df, noncentral = 2 * seeds - 2, (difference / sd) ** 2 * seeds / 2
    if noncentral > 1e4:  # beyond what the distribution is computed for
        return 1.0
    return float(stats.ncf.sf(stats.f.isf(1 - confidence, 1, df), 1, df, noncentral))  # t squared is F


def seeds_needed(difference: float, sd: float, confidence: float = 0.95, wanted: float = POWER) -> int | None:
    """The fewest seeds that find `difference` (points) with probability `wanted`; None if MOST do not."""
    low, high = 1, 2
    while high < MOST and power(difference, sd, high, confidence) < wanted:
        low, high = high, 2 * high
    if high >= MOST:
        return None
    while high - low > 1:  # `low` seeds are too few, `high` are enough
        middle = (low + high) // 2
        low, high = (low, middle) if power(difference, sd, middle, confidence) >= wanted else (middle, high)
    return high


def run_sd(cells: pd.DataFrame) -> float | None:
    """Standard deviation of the mIoU of one run, pooled over the cells (percent); None where no cell has two runs."""
    table = summarize(cells).query("n > 1").dropna(subset=["miou_se"])
    df = table["n"] - 1
    return float(np.sqrt((df * table["miou_se"] ** 2 * table["n"]).sum() / df.sum())) if df.sum() else None


def advice(cells: pd.DataFrame, difference: float, seeds: int, confidence: float = 0.95) -> str:
    """How many seeds a difference needs by the errors of these cells, or the paper's, and what `seeds` of them find."""
    own = run_sd(cells)
    sd, source = (own, "of these results") if own else (PUBLISHED_SD, "published; no cell here has two runs yet")
    needed = seeds_needed(difference, sd, confidence)
    enough = f"{needed:,} seeds" if needed else f"more than {MOST:,} seeds"
    here = power(difference, sd, seeds, confidence) if seeds > 1 else 0.0
    return (
        f"{enough} in each of two cells find a difference of {difference:g} points with {POWER:.0%} power "
        f"({confidence:.0%} confidence, unpaired)\n"
        f"a run has a standard deviation of {sd:.2f} points ({source}); the power of {seeds} is {here:.0%}"
    )
