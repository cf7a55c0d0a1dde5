"""What other test images would change: standard errors over images, and intervals over seeds and images together.

A fine-tuning run keeps the confusion matrix of each test image (confusions.npz). The test images are drawn again, with
replacement, the same draw for all runs that share them, and every run is scored on each draw: a bootstrap that pairs
runs image by image. It shows how a mean over seeds, or a difference of two, would move with other images.

Three seeds are too few to be drawn from. Their variance is known up to a chi-square with n - 1 degrees of freedom, as
in Student's t, and that of the images is added to it, less the part that both hold: that seeds differ from image to
image. The interval averages over what the variance of the seeds may be. (With Satterthwaite's degrees of freedom
instead, intervals of two seeds cover 90%.)
"""

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import brentq

from viny.analysis.frames import KEYS
from viny.analysis.observed import place_of
from viny.errors import VinyError
from viny.grid import Job

DRAWS = 2000
QUANTILES = (np.arange(1000) + 0.5) / 1000
CELL = ["encoder", *KEYS]
COLUMNS = ["se_images", "low_seeds_images", "high_seeds_images"]
# What a comparison changes, as a place in CELL.
AXES = {"pretrain": 1, "pretrain_step": 1, "intermediate": 2, "downstream_step": 3}
Draws = dict[tuple, dict[int, np.ndarray]]  # by cell and seed, the scores of a run on each of DRAWS samples


def resample(jobs: Iterable[Job], miou: str = "dataset") -> Draws:
    """The mIoU (percent) of each fine-tuning run on bootstrap samples of its test images.

    Runs whose results lack the confusion matrices, those of older versions, are left out.

    Args:
        miou: `dataset` or `per_image`, as in the study file.

    Raises:
        VinyError: a file is damaged.
    """
    samples: dict[tuple[str, ...], np.ndarray] = {}  # by names of the test images
    found: Draws = {}
    for job in jobs:
        path = job.folder / "confusions.npz"
        if job.stage == "finetune" and path.exists():
            names, confusions = _read(path)
            if names not in samples:
                random, n = np.random.default_rng(len(samples)), len(names)
                samples[names] = random.multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)
            place = place_of(job)
            runs = found.setdefault(tuple(place[key] for key in CELL), {})
            runs[place["seed"]] = 100 * scores(samples[names], confusions, miou)
    return found


def scores(samples: np.ndarray, confusions: np.ndarray, miou: str = "dataset") -> np.ndarray:
    """mIoU of samples of images, 0..1.

    Args:
        samples: (draws, N) how often an image is in a sample.
        confusions: (N, K, K) pixels of each image by truth (rows) and prediction.

    Returns:
        (draws,) of the summed matrices, or the mean over images (`per_image`: a class that is absent counts as 0).
    """
    right = np.diagonal(confusions, axis1=1, axis2=2).astype(float)  # (N, K)
    union = confusions.sum(axis=1) + confusions.sum(axis=2) - right
    with np.errstate(invalid="ignore"):
        if miou == "dataset":
            return np.nanmean((samples @ right) / (samples @ union), axis=1)
        counts = union.any(axis=1)  # an image of ignored pixels has no score
        each = np.nan_to_num(right / union).mean(axis=1)
        return (samples @ (each * counts)) / (samples @ counts)


def over_images(draws: np.ndarray) -> tuple[float, float]:
    """What images do to a mean over seeds, from the scores (seeds, draws) of runs on the same samples.

    Returns:
        the standard error over images, and the part of its square that the seeds' own spread holds as well.
    """
    seeds, mean = len(draws), draws.mean(axis=0)
    se = float(mean.std(ddof=1))
    common = (draws - mean).var(axis=1, ddof=1).sum() / (seeds * (seeds - 1)) if seeds > 1 else 0.0
    return se, min(float(common), se**2)


def interval(value: float, se: float, df: float, images: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Ends of the interval over seeds (standard error and degrees of freedom) and images (of `over_images`).

    It is never narrower than Student's over seeds alone.
    """
    if np.isnan(se):
        return np.nan, np.nan
    se_images, common = images
    seeds = se**2 * df / stats.chi2.ppf(QUANTILES, df)  # what the variance over seeds may be
    deviation = np.sqrt(se_images**2 + np.maximum(seeds - common, 0))
    reach = brentq(lambda r: 2 * stats.norm.sf(r / deviation).mean() - (1 - confidence), 0, 100 * deviation.max())
    return value - reach, value + reach


def of_cells(summary: pd.DataFrame, draws: Draws, confidence: float) -> pd.DataFrame:
    """`summary` with the columns `miou_se_images`, `miou_low_seeds_images` and `miou_high_seeds_images`."""

    def runs(row: Any) -> list[np.ndarray]:
        return list(draws.get((row.encoder, row.pretrain, row.intermediate, row.downstream), {}).values())

    frame = summary.rename(columns={"miou_percent": "value", "miou_se": "se"}).assign(df=summary["n"] - 1)
    return summary.join(_intervals(frame, runs, confidence).add_prefix("miou_"))


def of_effects(effects: pd.DataFrame, draws: Draws, confidence: float) -> pd.DataFrame:
    """`effects` with COLUMNS, paired by seed and image."""

    def runs(row: Any) -> list[np.ndarray]:
        axis, cell = AXES[row.family], ["", row.pretrain, row.intermediate, row.downstream]
        other = [*cell[:axis], type(cell[axis])(row.baseline), *cell[axis + 1 :]]
        above, below = (draws.get(tuple(place), {}) for place in (cell, other))
        shared = above.keys() & below.keys()
        if shared or not (above and below):
            return [above[seed] - below[seed] for seed in shared]
        return [np.mean(list(above.values()), axis=0) - np.mean(list(below.values()), axis=0)]

    frame = effects[["family", *KEYS, "baseline", "effect", "se", "df"]].rename(columns={"effect": "value"})
    return effects.join(_intervals(frame, runs, confidence))


def sentence(summary: pd.DataFrame, effects: pd.DataFrame) -> str:
    """What the errors over runs leave out, in words; empty where no run kept the matrices of its images."""
    mean, difference = summary["miou_se_images"].median(), effects["se_images"].median()
    if np.isnan(mean):
        return ""
    both = "" if np.isnan(difference) else f" and {difference:.2f} to a difference"
    return (
        f"Errors and tests are over runs on the same test images. Other test images would add a standard error of "
        f"{mean:.2f} points to a mean{both} (medians; statistics/summary.csv and effects.csv have each)."
    )


def _intervals(frame: pd.DataFrame, runs: Callable[[Any], list[np.ndarray]], confidence: float) -> pd.DataFrame:
    """COLUMNS for each row of a frame with `value`, `se` and `df`; not a number where no matrices were kept."""
    found = pd.DataFrame(np.nan, index=frame.index, columns=COLUMNS)
    for row in frame.itertuples():
        if draws := runs(row):
            images = over_images(np.array(draws))
            found.loc[row.Index] = images[0], *interval(row.value, row.se, row.df, images, confidence)
    return found


def _read(path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the test images, and their matrices (N, K, K); never unpickles."""
    try:
        with np.load(path, allow_pickle=False) as file:
            names, confusions = tuple(file["names"].tolist()), file["confusions"]
        if confusions.ndim != 3 or len(confusions) != len(names) or confusions.shape[1] != confusions.shape[2]:
            raise ValueError("it holds no square matrix for each image")
        return names, confusions
    except (ValueError, OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise VinyError(f"{path} is damaged ({error}); delete its folder and run snakemake again") from None
