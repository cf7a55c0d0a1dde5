"""The transfer law: how the worth of pre-training grows with labels and with pre-training images.

D_T = k D_F^alpha N^beta (Hernandez et al. 2021, "Scaling laws for transfer"): D_F labels, N pre-training images, D_T
the labels that pre-training stands for, the difference to those that reach the same score without it (on the curve of
`viny.analysis.effective_data`). As there, it is fitted on the logit of D_T / (D_F + D_T), a linear regression on
ln D_F and ln N, over the cells without intermediate task whose score lies on the curve and above its own labels.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.contrasts import Key, Measured, measure
from viny.analysis.effective_data import interpolate, invert
from viny.analysis.formats import Table, number

FEWEST = 6  # cells: three parameters, and as many to see the scatter
WIDEST = 1.0  # half width of an exponent's interval beyond which nothing is said
STEP = 0.1  # of a standard error, for derivatives
COLUMNS = ["cells", "k", *(f"{name}{end}" for name in ("alpha", "beta") for end in ("", "_low", "_high"))]
COLUMNS += ["rms", "determined", "reason"]


def transfer_law(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Fit the law: one row of COLUMNS, without parameters and with a reason where the data do not determine it.

    Three errors may be behind an exponent: noise of single cells, carried through the curve and the fit; noise of whole
    encoders, the same in all their cells; and the scatter about the law. How the noise divides is not known, so the
    interval takes the largest of the three. `rms` is the scatter of ln D_T.
    """
    measured = measure(cells)
    start = [key for key in measured.table.index if key[:2] == (0, "none") and measured.has(key)]
    pretrained = [key for key in measured.table.index if key[0] > 0 and key[1] == "none" and measured.has(key)]
    means, errors = _noise(measured, [*start, *pretrained])
    reason = "the curve without pre-training needs two sizes"
    found: dict[str, Any] = {"cells": 0, "determined": False, "reason": reason}
    if len(start) > 1 and pretrained:
        labels = np.array([key[2] for key in pretrained], float)
        worth = _worth(np.array([key[2] for key in start], float), means)[0]
        inside = np.isfinite(worth) & (worth > labels)
        used = [key for key, there in zip(pretrained, inside, strict=True) if there]
        means, errors = _noise(measured, [*start, *used])
        found = {"cells": len(used), "determined": False, "reason": _too_few(used)}
        if not found["reason"]:
            found |= _fit(start, used, means, errors, confidence)
    return pd.DataFrame([found], columns=COLUMNS)


def transfer_table(law: pd.DataFrame, confidence: float) -> Table:
    """The law in a row for people."""
    row = law.iloc[0]
    ends = []
    for name in ("alpha", "beta"):
        ends.append(f"{number(row[name])} ({number(row[f'{name}_low'])} to {number(row[f'{name}_high'])})")
    note = (
        f"Labels that pre-training is worth = k × labels^alpha × pre-training images^beta, from {row['cells']} cells, "
        f"with {confidence:.0%} intervals; the scatter is of the logarithm. Hernandez et al. 2021."
    )
    shown = [[f"{row['k']:.3g}", *ends, number(row["rms"])]]
    return Table("", "The transfer law.", ["k", "alpha (labels)", "beta (images)", "scatter"], shown, law, note, left=0)


def _noise(measured: Measured, keys: list[Key]) -> tuple[np.ndarray, np.ndarray]:
    """(cells,) means and standard errors; no error where runs are single."""
    table = measured.table.loc[keys]
    return table["mean"].to_numpy(float), table["se_moderated"].fillna(0).to_numpy(float)


def _worth(sizes: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(draws, pre-trained cells) labels of equal score without pre-training, whose means come first, at `sizes`."""
    means = np.atleast_2d(means)
    fine, values = interpolate(sizes, means[:, : len(sizes)])
    return np.column_stack([invert(fine, values, score) for score in means[:, len(sizes) :].T])


def _fit(start: list[Key], used: list[Key], means: np.ndarray, errors: np.ndarray, confidence: float) -> dict[str, Any]:
    """Parameters with intervals, or the reason why they are not determined."""
    labels, images = (np.array([key[axis] for key in used], float) for axis in (2, 0))
    x = np.column_stack([np.ones(len(used)), np.log(labels), np.log(images)])
    steps = means + STEP * np.vstack([np.zeros(len(means)), np.diag(errors)])
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(_worth(np.array([key[2] for key in start], float), steps) / labels - 1)  # (1 + cells, used)
    fits = np.where(np.isfinite(y), y, y[0]) @ np.linalg.pinv(x).T  # a step off the curve counts as none
    residual, change = y[0] - x @ fits[0], (fits[1:] - fits[0]) / STEP
    encoders = pd.Series([key[0] for key in [*start, *used]])
    shared = pd.DataFrame(change).groupby(encoders.to_numpy()).sum().to_numpy()
    free = len(used) - 3
    scatter = np.diag(np.linalg.inv(x.T @ x)) * (residual @ residual) / free
    variance = np.max([(change**2).sum(axis=0), (shared**2).sum(axis=0), scatter], axis=0)
    reach = stats.t.ppf((1 + confidence) / 2, free) * np.sqrt(variance)
    k, alpha, beta = fits[0]
    open_ends = [what for what, half in (("labels", reach[1]), ("pre-training images", reach[2])) if half > WIDEST]
    if open_ends:
        return {"reason": f"the data leave the exponent of {' and of '.join(open_ends)} open"}
    row = {"k": np.exp(k), "rms": np.sqrt(np.mean(residual**2)), "determined": True, "reason": ""}
    for name, value, half in (("alpha", alpha + 1, reach[1]), ("beta", beta, reach[2])):
        row |= {name: value, f"{name}_low": value - half, f"{name}_high": value + half}
    return row


def _too_few(used: list[Key]) -> str:
    """Why these cells cannot determine the law; empty if they may."""
    if len(used) < FEWEST:
        return f"{len(used)} cells lie on the curve without pre-training, above their own labels; {FEWEST} are needed"
    for axis, what in ((0, "pre-training size"), (2, "number of labels")):
        if len({key[axis] for key in used}) < 2:
            return f"all cells on the curve without pre-training have the same {what}"
    return ""
