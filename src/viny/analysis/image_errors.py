"""What other test images would change: standard errors over images, and intervals over seeds and images together.

A fine-tuning run keeps the confusion matrix of each test image (confusions.npz). The test images are drawn anew, with
replacement, the same draw for all runs that share them, and every run is scored on each draw: a bootstrap that pairs
runs image by image. It shows how a mean over seeds, or a difference of two, would move with other images.

Three seeds are too few to be drawn from, so they enter by their t variance. The two variances are added, less the part
that both hold: that seeds differ from image to image. Degrees of freedom are Satterthwaite's, those of the images being
many.
"""

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.frames import KEYS, place_of
from viny.errors import VinyError
from viny.grid import Job

DRAWS = 2000
RUN = ["encoder", *KEYS, "seed"]
COLUMNS = ["se_images", "low_seeds_images", "high_seeds_images"]
AXES = {"pretrain": 1, "pretrain_step": 1, "intermediate": 2, "downstream_step": 3}  # what a comparison changes, in RUN


def resample(jobs: Iterable[Job], miou: str = "dataset") -> pd.DataFrame:
    """The mIoU (percent) of each fine-tuning run on bootstrap samples of its test images, one column per sample.

    The index is RUN. Runs whose results lack the confusion matrices, those of older versions, are left out.

    Args:
        miou: `dataset` or `per_image`, as in the study file.

    Raises:
        VinyError: a file is damaged.
    """
    samples: dict[tuple[str, ...], np.ndarray] = {}
    rows: dict[tuple, np.ndarray] = {}
    for job in jobs:
        path = job.folder / "confusions.npz"
        if job.stage == "finetune" and path.exists():
            names, confusions = _read(path)
            if names not in samples:  # a different draw for each set of test images
                random, n = np.random.default_rng(len(samples)), len(names)
                samples[names] = random.multinomial(n, np.full(n, 1 / n), DRAWS).astype(float)
            place = place_of(job)
            rows[tuple(place[key] for key in RUN)] = 100 * scores(samples[names], confusions, miou)
    index = pd.MultiIndex.from_tuples(rows, names=RUN) if rows else pd.MultiIndex.from_arrays([[]] * 5, names=RUN)
    return pd.DataFrame(list(rows.values()), index=index)


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
        the standard error over images, and the variance that the seeds' own spread holds as well.
    """
    seeds, mean = len(draws), draws.mean(axis=0)
    common = (draws - mean).var(axis=1, ddof=1).sum() / (seeds * (seeds - 1)) if seeds > 1 else 0.0
    return float(mean.std(ddof=1)), float(common)


def interval(value: float, se: float, df: float, images: tuple[float, float], confidence: float) -> tuple[float, float]:
    """Ends of the interval over seeds (standard error and degrees of freedom) and images (of `over_images`)."""
    se_images, common = images
    variance = max(se**2 + se_images**2 - common, se**2, se_images**2)
    reach = np.sqrt(variance) * stats.t.ppf((1 + confidence) / 2, df * variance**2 / se**4 if se > 0 else np.inf)
    return value - reach, value + reach


def of_cells(summary: pd.DataFrame, draws: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """`summary` with the columns `miou_se_images`, `miou_low_seeds_images` and `miou_high_seeds_images`."""

    def runs(row: Any) -> np.ndarray:
        return _runs(draws, (row.encoder, row.pretrain, row.intermediate, row.downstream)).to_numpy()

    frame = summary.rename(columns={"miou_percent": "value", "miou_se": "se"}).assign(df=summary["n"] - 1)
    return summary.join(_intervals(frame, runs, confidence).add_prefix("miou_"))


def of_effects(effects: pd.DataFrame, draws: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """`effects` with COLUMNS: paired by seed and image; the spread over seeds is the moderated one."""

    def runs(row: Any) -> np.ndarray:
        cell: tuple = ("", row.pretrain, row.intermediate, row.downstream)
        axis = AXES[row.family]
        other = row.baseline if row.family == "intermediate" else int(row.baseline)
        above, below = _runs(draws, cell), _runs(draws, (*cell[:axis], other, *cell[axis + 1 :]))
        if above.empty or below.empty:
            return np.empty((0, DRAWS))
        shared = above.index.intersection(below.index)
        if len(shared) == 0:
            return (above.mean() - below.mean()).to_numpy()[None]
        return (above.loc[shared] - below.loc[shared]).to_numpy()

    moderated = {"effect": "value", "se_moderated": "se", "df_moderated": "df"}
    frame = effects[["family", *KEYS, "baseline", *moderated]].rename(columns=moderated)
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


def _intervals(frame: pd.DataFrame, runs: Callable[[Any], np.ndarray], confidence: float) -> pd.DataFrame:
    """COLUMNS for each row of a frame with `value`, `se` and `df`; not a number where no matrices were kept."""
    found = pd.DataFrame(np.nan, index=frame.index, columns=COLUMNS)
    for row in frame.itertuples():
        draws = runs(row)
        if len(draws):
            images = over_images(draws)
            found.loc[row.Index] = images[0], *interval(row.value, row.se, row.df, images, confidence)
    return found


def _runs(draws: pd.DataFrame, cell: tuple) -> pd.DataFrame:
    """The rows of a cell by seed."""
    return draws.loc[cell] if cell in draws.index.droplevel("seed") else draws[:0]


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
