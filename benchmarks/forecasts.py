"""Whether intervals of forecasts cover what they say: `python -m benchmarks.forecasts [STUDIES]` prints the table.

Each simulated study has the paper's labels, one to seven encoders with own curves of one kind, noise of the encoder
(standard deviation 0.2) and of the cell (0.4, log-normal spread 0.5). Sizes beyond the known ones are forecast, law and
error of the law being found from the known ones, and compared with the mean that the runs there then have.
"""

import sys
from collections.abc import Callable

import numpy as np
import pandas as pd

from viny.analysis.forecast import against_results, forecast, without

LABELS = np.array([250, 500, 1000, 2000, 4000, 6000])
SETTINGS = ((3, 2000, 7), (3, 2000, 3), (3, 2000, 1), (3, 1000, 7), (3, 4000, 7), (2, 2000, 7), (5, 2000, 7))
ENCODER_SD, CELL_SD, SPREAD = 0.2, 0.4, 0.5
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
    """cells.csv of a study: scores from about 43 to 58 at the fewest labels to about 64 to 69 at the most."""
    parts = []
    for encoder in range(encoders):
        curve = shape(LABELS / LABELS[0], np.exp(random.normal(0, 0.25)))
        low, high = random.uniform(43, 58), random.uniform(64, 69)
        truth = low + (high - low) * (curve - curve[0]) / (curve[-1] - curve[0])
        noise = random.normal(0, CELL_SD, (seeds, len(LABELS))) * np.exp(random.normal(0, SPREAD, len(LABELS)))
        scores = truth + random.normal(0, ENCODER_SD, (seeds, 1)) + noise * np.exp(-(SPREAD**2) / 2)
        place = {"seed": np.repeat(range(seeds), len(LABELS)), "downstream": np.tile(LABELS, seeds)}
        parts.append(pd.DataFrame({"pretrain": encoder, **place, "miou_percent": scores.ravel()}))
    fixed = {"study": "simulated", "encoder": "", "intermediate": "none", "status": "done", "accuracy_percent": 0.0}
    return pd.concat(parts, ignore_index=True).assign(**fixed)


def coverage(shape: str, encoders: int, seeds: int, known: int, studies: int, start: int = 0) -> tuple[float, float]:
    """Share of intervals of 95% that cover, and their median half width in points."""
    random, inside, widths = np.random.default_rng(start), [], []
    for _ in range(studies):
        cells = simulate(SHAPES[shape], encoders, seeds, random)
        found = forecast(without(cells, "downstream", known))
        found = against_results(found[found["axis"] == "downstream"], cells)
        inside.append((found["error_in_intervals"].abs() <= 1).mean())
        widths += list((found["high"] - found["low"]) / 2)
    return float(np.mean(inside)), float(np.median(widths))


def main() -> None:
    """Print a row per truth and a column per (seeds, known labels, encoders)."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    print(f"coverage of 95% intervals in % of {studies} studies (median half width in points)")
    print("| truth | " + " | ".join(f"{s} seeds, {known:,} labels, {n} curves" for s, known, n in SETTINGS) + " |")
    print("|---" * (1 + len(SETTINGS)) + "|", flush=True)
    for shape in SHAPES:
        found = [coverage(shape, n, seeds, known, studies) for seeds, known, n in SETTINGS]
        print(f"| {shape} | " + " | ".join(f"{100 * c:.0f} ({w:.1f})" for c, w in found) + " |", flush=True)


if __name__ == "__main__":
    main()
