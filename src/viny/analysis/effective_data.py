"""What pre-training is worth in labeled images: statistics/effective_data.csv.

Effective data (as in Hernandez et al. 2021, "Scaling laws for transfer"): the number of labeled images at which a
network that was not pre-trained reaches the score that a pre-trained one reaches with `downstream` images, i.e. the
horizontal distance between the two curves. The curve without pre-training is interpolated monotonically (isotonic
regression, then PCHIP) over log images. It is never extended: a score above its last point is worth more than the
largest size (`bound` `>`), one below its first point less than the smallest (`<`). Intervals come from a parametric
bootstrap over the cells' means (Student's t with moderated errors, what cells of one encoder share drawn together; seed
fixed); a draw beyond the curve counts as infinity or zero, so an end of an interval may be `inf` or 0.
"""

import itertools
import math

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from viny.analysis.contrasts import measure
from viny.analysis.frames import KEYS
from viny.analysis.summary import grid

FINE = 600  # points of the interpolated curve
COLUMNS = [*KEYS, "miou_percent", "equivalent", "equivalent_low", "equivalent_high", "bound"]


def effective_data(
    cells: pd.DataFrame, confidence: float = 0.95, draws: int = 2_000, seed: int = 0, shared: bool = False
) -> pd.DataFrame:
    """For each pre-trained cell: how many labeled images reach its mIoU without pre-training, with interval.

    Columns: `equivalent` labels (the largest or smallest measured size where `bound` is `>` or `<`) and the ends of its
    interval. NaN where a cell is missing or fewer than two sizes were measured without pre-training.
    """
    sizes, tasks, labels = grid(cells)
    measured = measure(cells, shared)
    random = np.random.default_rng(seed)
    known = [d for d in labels if measured.has((0, "none", d))]
    curves = measured.draw([(0, "none", d) for d in known], draws, random) if len(known) >= 2 else None
    n = np.array(known, float)
    if curves is not None:
        sure = np.isfinite(curves).all(axis=1)  # rows without errors say nothing
        fine, values = interpolate(n, curves[sure])
    rows = []
    for cell in itertools.product([size for size in sizes if size > 0], tasks, labels):
        if cell not in measured.rows:
            continue  # not declared
        row = dict(zip(KEYS, cell, strict=True)) | {"bound": ""}
        if curves is not None and measured.has(cell):
            scores = measured.draw([cell], draws, random)[:, 0]
            drawn = np.full(len(scores), np.nan)
            drawn[sure] = invert(fine, values, scores[sure])
            drawn[~np.isfinite(scores)] = np.nan
            row |= {"miou_percent": measured.table.at[cell, "mean"]} | _equivalent(drawn, n, confidence)
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def interpolate(n: np.ndarray, curves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Monotone curves through (or, where scores fall, near) the points, over log n.

    Args:
        n: (m,) sizes, rising.
        curves: (draws, m) scores at these sizes.

    Returns:
        (FINE,) log sizes and (draws, FINE) scores that never fall.
    """
    rising = np.array([row if np.all(np.diff(row) >= 0) else isotonic_regression(row).x for row in curves])
    fine = np.linspace(math.log(n[0]), math.log(n[-1]), FINE)
    return fine, np.maximum.accumulate(PchipInterpolator(np.log(n), rising, axis=1)(fine), axis=1)


def invert(fine: np.ndarray, values: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """(draws,) images at which the curves of `interpolate` reach `scores`; inf above a curve, 0 below it."""
    upper = np.clip((values < scores[:, None]).sum(axis=1), 1, len(fine) - 1)
    row = np.arange(len(values))
    low, high = values[row, upper - 1], values[row, upper]
    share = np.clip((scores - low) / np.where(high > low, high - low, 1), 0, 1)
    found = np.exp(fine[upper - 1] + share * (fine[upper] - fine[upper - 1]))
    return np.where(scores > values[:, -1], np.inf, np.where(scores < values[:, 0], 0.0, found))


def _equivalent(drawn: np.ndarray, n: np.ndarray, confidence: float) -> dict[str, object]:
    """The columns of one cell from what its score (first) and its draws are worth."""
    low, high = np.nan, np.nan
    if not np.isnan(drawn[1:]).any():
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = np.quantile(drawn[1:], ends, method="inverted_cdf")  # no averaging with infinity
    bound = {np.inf: ">", 0.0: "<"}.get(drawn[0], "")
    value = {">": n[-1], "<": n[0]}.get(bound, drawn[0])
    return {"equivalent": value, "equivalent_low": low, "equivalent_high": high, "bound": bound}
