"""Whether intervals of forecasts cover what they say: `python -m benchmarks.forecasts [STUDIES]` prints the table.

Each simulated study has the paper's labels, one to seven encoders with own curves of one kind, noise of the encoder
(standard deviation 0.2) and of the cell (0.4, log-normal spread 0.5). Sizes beyond the known ones are forecast, law and
error of the law being found from the known ones, and compared with the mean that the runs there then have.
"""

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

from viny.analysis.buy import labels_needed
from viny.analysis.forecast import against_results, forecast, without
from viny.analysis.transfer import transfer_law

LABELS = np.array([250, 500, 1000, 2000, 4000, 6000])
SETTINGS = ((3, 2000, 7), (3, 2000, 3), (3, 2000, 1), (3, 1000, 7), (3, 4000, 7), (2, 2000, 7), (5, 2000, 7))
ENCODER_SD, CELL_SD, SPREAD = 0.2, 0.4, 0.5
FIXED = {"study": "simulated", "encoder": "", "intermediate": "none", "status": "done", "accuracy_percent": 0.0}
Shape = Callable[[np.ndarray, float], np.ndarray]  # of sizes from 1 and a factor that varies by encoder


def _sigmoid(n: np.ndarray, factor: float) -> np.ndarray:
    return 1 / (1 + np.exp(-3 * factor * (np.log(n) / np.log(24) - 0.3)))


# The last one bends late, which nothing before its bend tells: what happens when no candidate is near the truth.
SHAPES: dict[str, Shape] = {
    "a + b ln n": lambda n, factor: np.log(n),
    "a - b n^-0.15": lambda n, factor: -(n ** (-0.15 * factor)),
    "a - b n^-0.4": lambda n, factor: -(n ** (-0.4 * factor)),
    "a - b n^-0.8": lambda n, factor: -(n ** (-0.8 * factor)),
    "sigmoid in ln n": _sigmoid,
}


def simulate(shape: Shape, encoders: int, seeds: int, random: np.random.Generator) -> pd.DataFrame:
    """cells.csv of a study with the column `truth`: from 43 to 58 at the fewest labels to 64 to 69 at the most."""
    parts = []
    for encoder in range(encoders):
        curve = shape(LABELS / LABELS[0], np.exp(random.normal(0, 0.25)))
        low, high = random.uniform(43, 58), random.uniform(64, 69)
        truth = low + (high - low) * (curve - curve[0]) / (curve[-1] - curve[0])
        noise = random.normal(0, CELL_SD, (seeds, len(LABELS))) * np.exp(random.normal(0, SPREAD, len(LABELS)))
        scores = truth + random.normal(0, ENCODER_SD, (seeds, 1)) + noise * np.exp(-(SPREAD**2) / 2)
        place = {"seed": np.repeat(range(seeds), len(LABELS)), "downstream": np.tile(LABELS, seeds)}
        place |= {"truth": np.tile(truth, seeds), "miou_percent": scores.ravel()}
        parts.append(pd.DataFrame({"pretrain": encoder, **place}))
    return pd.concat(parts, ignore_index=True).assign(**FIXED)


def coverage(shape: str, encoders: int, seeds: int, known: int, studies: int, start: int = 0) -> dict[str, float]:
    """Shares of intervals of 95% that cover, and half widths.

    Returns:
        `forecast` of the scores at the larger sizes; their median half `width` in points; `labels` that reach the true
        score at the most labels.
    """
    random, inside, widths, labels = np.random.default_rng(start), [], [], []
    for _ in range(studies):
        cells = simulate(SHAPES[shape], encoders, seeds, random)
        small = without(cells, "downstream", known)
        found = forecast(small)
        found = against_results(found[found["axis"] == "downstream"], cells)
        inside.append((found["error_in_intervals"].abs() <= 1).mean())
        widths += list((found["high"] - found["low"]) / 2)
        goal = cells.loc[(cells["pretrain"] == 0) & (cells["downstream"] == LABELS[-1]), "truth"].iloc[0]
        needed = labels_needed(small, goal).iloc[0]
        labels.append(needed["labels_low"] <= LABELS[-1] <= needed["labels_high"])
    return {"forecast": np.mean(inside), "width": np.median(widths), "labels": np.mean(labels)}


def transfer_coverage(encoder_sd: float, cell_sd: float, studies: int, start: int = 0) -> list[float]:
    """Shares of intervals of 95% that cover alpha and beta of the transfer law, which holds."""
    random, covered = np.random.default_rng(start), []
    for _ in range(studies):
        rows = []
        for images, seed in itertools.product((0, 45_000, 100_000, 200_000), range(3)):
            worth = LABELS + (0.29 * LABELS**0.24 * images**0.62 if images else 0)
            scores = 43.7 + 6.8 * np.log(worth / 250) + random.normal(0, encoder_sd) + random.normal(0, cell_sd, 6)
            rows += [(images, seed, n, y) for n, y in zip(LABELS, scores, strict=True)]
        law = transfer_law(
            pd.DataFrame(rows, columns=["pretrain", "seed", "downstream", "miou_percent"]).assign(**FIXED)
        )
        ends = law.iloc[0]
        if ends["determined"]:
            pairs = (("alpha", 0.24), ("beta", 0.62))
            covered.append([ends[f"{name}_low"] <= truth <= ends[f"{name}_high"] for name, truth in pairs])
    return list(np.mean(covered, axis=0))


def main() -> None:
    """Print the tables: forecasts by truth and setting, then the transfer law by noise."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"coverage of 95% intervals in {studies} studies: score, labels for a goal (median half width of the score)")
    print("| truth | " + " | ".join(f"{s} seeds, {known:,} labels, {n} curves" for s, known, n in SETTINGS) + " |")
    print("|---" * (1 + len(SETTINGS)) + "|", flush=True)
    for shape in SHAPES:
        found = [coverage(shape, n, seeds, known, studies) for seeds, known, n in SETTINGS]
        shown = [f"{each['forecast']:.0%}, {each['labels']:.0%} ({each['width']:.1f})" for each in found]
        print(f"| {shape} | " + " | ".join(shown) + " |", flush=True)
    print("\n| transfer law: noise of encoder, of cell | alpha | beta |\n|---|---|---|")
    for encoder, cell in ((0.2, 0.4), (0.0, 0.4), (0.4, 0.2)):
        alpha, beta = transfer_coverage(encoder, cell, studies)
        print(f"| {encoder}, {cell} | {alpha:.0%} | {beta:.0%} |", flush=True)


if __name__ == "__main__":
    main()
