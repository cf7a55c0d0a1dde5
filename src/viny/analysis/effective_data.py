"""What pre-training is worth in labelled images, and what each stage buys for its compute.

    python -m viny.analysis.effective_data --cells results/demo/cells.csv --output results/demo/statistics

Effective data (as in Hernandez et al. 2021, "Scaling laws for transfer"): the number of labelled images at which a
network that was not pre-trained reaches the score that a pre-trained one reaches with `downstream` images, i.e. the
horizontal distance between the two curves. The curve without pre-training is interpolated monotonically (isotonic
regression, then PCHIP) over log images. It is never extended: a score above its last point is worth more than the
largest size (`bound` `>`), one below its first point less than the smallest (`<`). Intervals come from a parametric
bootstrap over the cells' means (Student's t with moderated errors; seed fixed); a draw beyond the curve counts as
infinity or zero, so an end of an interval may be `inf` or 0. Cells are drawn independently: the noise of an encoder
that its cells share moves neighboring answers together.

Returns: points bought by each step of each stage, and by what: images passed through the network (forward and
backward) and seconds of training. The cost of an encoder is counted in full in every cell although several cells may
share it. `share_of_passes` and `share_of_gain` say, for a step of pre-training, which part of all passes of the largest
size it took and which part of that size's whole gain it brought: 0.5 for 0.1 is compute mostly wasted.

| file | one row per | content |
|---|---|---|
| effective_data.csv | pre-trained cell | labels its score is worth, interval, multiplier, extra labels, text |
| returns.csv | step of a stage in a cell | gain, interval, extra passes and seconds, gain per million passes and hour |
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from viny import console
from viny.analysis.contrasts import Measured, measure
from viny.analysis.files import KEYS, read_cells, write_csv
from viny.analysis.statistics import effects
from viny.analysis.summary import grid
from viny.errors import command

FINE = 600  # points of the interpolated curve
EFFECTIVE_COLUMNS = [
    *KEYS,
    *["miou_percent", "equivalent", "equivalent_low", "equivalent_high", "bound"],
    *["multiplier", "multiplier_low", "multiplier_high", "extra", "extra_low", "extra_high", "text"],
]
STAGES = {"pretrain_step": "pretrain", "intermediate": "intermediate", "downstream_step": "downstream"}
COSTS = {
    "passes": ["pretrain_passes", "intermediate_passes", "image_passes"],
    "seconds": ["pretrain_seconds", "intermediate_seconds", "train_seconds"],
}


def effective_data(cells: pd.DataFrame, confidence: float = 0.95, draws: int = 2_000, seed: int = 0) -> pd.DataFrame:
    """For each pre-trained cell: how many labelled images reach its mIoU without pre-training, with interval.

    Columns: `equivalent` labels (the largest or smallest measured size where `bound` is `>` or `<`), `multiplier` =
    equivalent / downstream, `extra` = equivalent - downstream, `text` for people. NaN where a cell is missing or fewer
    than two sizes were measured without pre-training.
    """
    sizes, tasks, labels = grid(cells)
    measured = measure(cells)
    random = np.random.default_rng(seed)
    known = [d for d in labels if measured.has((0, "none", d))]
    baseline = [(0, "none", d) for d in known]
    usable = len(known) >= 2
    curves = _Curves.of(np.array(known, float), _draw(measured, baseline, draws, random)) if usable else None
    rows = []
    for size in sizes:
        for task in tasks:
            for d in labels if size > 0 else []:
                row = {"pretrain": size, "intermediate": task, "downstream": d, "bound": "", "text": "–"}
                if usable and measured.has((size, task, d)):
                    scores = _draw(measured, [(size, task, d)], draws, random)[:, 0]
                    row["miou_percent"] = measured.table.at[(size, task, d), "mean"]
                    row |= _equivalent(curves, scores, d, confidence)
                rows.append(row)
    return pd.DataFrame(rows, columns=EFFECTIVE_COLUMNS)


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


def returns(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Gain of every step of every stage, beside the compute that the step added.

    `low`, `high` are moderated intervals of the gain. Costs that are not known are missing.
    """
    costs = _costs(cells)
    found = effects(cells, confidence).to_dict("records")
    whole = {
        (cell["intermediate"], cell["downstream"]): cell["effect"]
        for cell in found
        if cell["family"] == "pretrain" and cell["pretrain"] == cells["pretrain"].max()
    }
    rows = []
    for step in (row for row in found if row["family"] in STAGES):
        cell = (step["pretrain"], step["intermediate"], step["downstream"])
        start, end = _ends(step)
        before = {
            "pretrain": (start, *cell[1:]),
            "intermediate": (cell[0], start, cell[2]),
            "downstream": (*cell[:2], start),
        }
        stage = STAGES[step["family"]]
        row = {"stage": stage, **dict(zip(KEYS, cell, strict=True)), "from": start, "to": end}
        row |= {"gain": step["effect"], "low": step["low_moderated"], "high": step["high_moderated"]}
        for name, total in costs.items():
            row[f"extra_{name}"] = total.get(cell, math.nan) - total.get(before[stage], math.nan)
        row["gain_per_million_passes"] = _per(row["gain"], row["extra_passes"] / 1e6)
        row["gain_per_hour"] = _per(row["gain"], row["extra_seconds"] / 3600)
        if stage == "pretrain":
            row["share_of_passes"] = (end - start) / cells["pretrain"].max()
            row["share_of_gain"] = _per(row["gain"], whole.get(cell[1:], math.nan))
        rows.append(row)
    columns = ["stage", *KEYS, "from", "to", "gain", "low", "high", "extra_passes", "gain_per_million_passes"]
    columns += ["extra_seconds", "gain_per_hour", "share_of_passes", "share_of_gain"]
    return pd.DataFrame(rows, columns=columns)


def _ends(step: dict) -> tuple[object, object]:
    if step["family"] == "intermediate":
        return "none", step["intermediate"]
    return int(step["baseline"]), step[STAGES[step["family"]]]


def _per(gain: float, cost: float) -> float:
    return gain / cost if cost else math.nan


def _costs(cells: pd.DataFrame) -> dict[str, dict[tuple, float]]:
    """Mean passes and seconds of a cell with all its stages, by cell."""
    totals = {}
    for name, columns in COSTS.items():
        known = all(column in cells for column in columns)
        total = cells[columns].sum(axis=1, skipna=False) if known else pd.Series(math.nan, index=cells.index)
        totals[name] = total.groupby([cells[key] for key in KEYS]).mean().to_dict()
    return totals


def _draw(measured: Measured, keys: list[tuple], draws: int, random: np.random.Generator) -> np.ndarray:
    """(1 + draws, cells): the means themselves, then means redrawn with their errors (missing errors: no draws)."""
    table = measured.table.loc[keys]
    mean, se = table["mean"].to_numpy(float), table["se_moderated"].to_numpy(float)
    noise = random.standard_t(np.nan_to_num(table["df_moderated"].to_numpy(float), nan=1.0), size=(draws, len(keys)))
    return np.vstack([mean, mean + se * noise])


@dataclass(frozen=True)
class _Curves:
    """The curve without pre-training (row 0) and its draws, interpolated; rows without errors are not `sure`."""

    n: np.ndarray
    fine: np.ndarray
    values: np.ndarray
    sure: np.ndarray

    @classmethod
    def of(cls, n: np.ndarray, curves: np.ndarray) -> "_Curves":
        sure = np.isfinite(curves).all(axis=1)
        fine, values = interpolate(n, curves[sure])
        return cls(n, fine, values, sure)


def _equivalent(curves: _Curves, scores: np.ndarray, d: int, confidence: float) -> dict[str, object]:
    n = curves.n
    drawn = np.full(len(scores), np.nan)
    drawn[curves.sure] = invert(curves.fine, curves.values, scores[curves.sure])
    sure = curves.sure & np.isfinite(scores)
    drawn[~sure] = np.nan
    low, high = np.nan, np.nan
    if sure[1:].all():
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        low, high = np.quantile(drawn[1:], ends, method="inverted_cdf")  # no averaging with infinity
    bound = {np.inf: ">", 0.0: "<"}.get(drawn[0], "")
    value = {">": n[-1], "<": n[0]}.get(bound, drawn[0])
    return {
        "equivalent": value,
        "equivalent_low": low,
        "equivalent_high": high,
        "bound": bound,
        "multiplier": value / d,
        "multiplier_low": low / d,
        "multiplier_high": high / d,
        "extra": value - d,
        "extra_low": low - d,
        "extra_high": high - d,
        "text": _text(value, low, high, bound, n),
    }


def _text(value: float, low: float, high: float, bound: str, n: np.ndarray) -> str:
    def end(x: float) -> str:
        return f"> {n[-1]:,.0f}" if np.isinf(x) else (f"< {n[0]:,.0f}" if x == 0 else f"{x:,.0f}")

    middle = f"{bound} {value:,.0f}".strip()
    if np.isnan(low) or end(low) == end(high) == middle:
        return middle
    return f"{middle} ({end(low)} to {end(high)})"


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.effective_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="the study's cells.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--confidence", type=float, default=0.95, help="level of the intervals")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    cells = read_cells(args.cells)
    worth = effective_data(cells, args.confidence)
    write_csv(args.output / "effective_data.csv", worth)
    write_csv(args.output / "returns.csv", returns(cells, args.confidence))
    console.say(f"{int(worth['equivalent'].notna().sum())} pre-trained cells counted in labels: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
