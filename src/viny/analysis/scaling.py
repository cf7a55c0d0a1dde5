"""How scores grow with data: saturating power laws, their intervals, and a refusal where the data do not decide.

Law: mIoU(n) = a - b n^-c with b >= 0, c > 0 and asymptote a. As c goes to 0 it becomes alpha + beta log2 n, growth by
the same amount at each doubling without end; that log law is fitted beside it. Fits are weighted by moderated standard
errors (`viny.analysis.noise`). For fixed c the best a and b are closed-form, so intervals are profile-likelihood
intervals from a grid. A law is `determined` only if it describes the points, excludes c = 0 and bounds the asymptote
below 100%; otherwise a, b and c are left empty and `reason` says what the data leave open.

Along pre-training data the law starts at the smallest size above 0. Along labels all points belong to one encoder, and
the noise that it gives to all of them moves the whole curve: it is left out of the points' errors and added to that of
the asymptote.

In statistics/: scaling.csv (a row per curve: parameters, intervals, chi2 and p of the fit, log law),
scaling_curves.csv (points of the fitted curves with bootstrap bands), doubling.csv (gain per doubling at each step).
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis.contrasts import contrasts, measure, polynomial
from viny.analysis.summary import grid

FEWEST = 4  # points: three parameters and one to see whether they fit
LEAST_P = 0.01  # a law that data contradict at this level is not reported as found
EXPONENTS = np.concatenate([[0.0], np.geomspace(0.01, 5, 300)])
ABOVE = np.geomspace(0.02, 2000, 400)  # asymptotes tried, points above the highest score
CURVE_POINTS, DRAWS = 60, 400
SLOPE = ["per_doubling", "per_doubling_low", "per_doubling_high"]
PLACE = ["axis", "pretrain", "intermediate", "downstream"]
FIT_COLUMNS = [
    *[*PLACE, "points", "a", "a_low", "a_high", "b", "c", "c_low", "c_high", "chi2", "df", "p_fit"],
    *["determined", "reason", *SLOPE, "chi2_log", "p_log"],
]


@dataclass(frozen=True)
class Curve:
    """Scores along one axis, the other coordinates fixed.

    Attributes:
        place: axis (`downstream` or `pretrain`) and the fixed coordinates; the axis's own coordinate is missing.
        n: (m,) images.
        y: (m,) mIoU in percent, with standard errors `se`.
        shift: standard error of what moves all points together.
        slope: row of `viny.analysis.contrasts.contrasts` for the slope of y per doubling of n.
    """

    place: dict[str, Any]
    n: np.ndarray
    y: np.ndarray
    se: np.ndarray
    shift: float
    slope: pd.Series

    @property
    def df(self) -> float:
        """Degrees of freedom of the standard errors together."""
        return float(self.slope["df"])


def curves(cells: pd.DataFrame, confidence: float = 0.95, shared: bool = False) -> list[Curve]:
    """Every curve the grid holds: along downstream for each encoder, along pre-training for each task and size."""
    sizes, tasks, labels = grid(cells)
    measured = measure(cells, shared)
    used = [size for size in sizes if size > 0]
    keys: list[tuple[str, Any, str, Any]] = [("downstream", size, task, None) for size in sizes for task in tasks]
    keys += [("pretrain", None, task, d) for task in tasks for d in labels if len(used) > 1]
    found = []
    for axis, size, task, label in keys:
        along = labels if axis == "downstream" else used
        cell = [(size, task, n) if axis == "downstream" else (n, task, label) for n in along]
        known = [i for i, key in enumerate(cell) if measured.has(key)]
        if known:
            here, n = [cell[i] for i in known], np.array([along[i] for i in known], float)
            y, se = (measured.table.loc[here, name].to_numpy(float) for name in ("mean", "se_moderated"))
            share = measured.correlation if axis == "downstream" else 0.0
            place = dict(zip(PLACE, (axis, size, task, label), strict=True))
            weights = polynomial(here, np.log2(n), 1) if len(n) > 1 else {here[0]: 1.0}
            slope = contrasts(measured, [weights], confidence).iloc[0]
            shift = float(np.sqrt(share * np.mean(se**2)))
            found.append(Curve(place, n, y, np.sqrt(1 - share) * se, shift, slope))
    return found


def fit_curves(cells: pd.DataFrame, confidence: float = 0.95, shared: bool = False) -> pd.DataFrame:
    """Fit every curve; refusals say why in `reason`."""
    rows = [{**curve.place, **fit(curve, confidence)} for curve in curves(cells, confidence, shared)]
    return pd.DataFrame(rows, columns=FIT_COLUMNS).astype({"pretrain": "Int64", "downstream": "Int64"})


def fit(curve: Curve, confidence: float = 0.95) -> dict[str, Any]:
    """Fit the saturating law and the log law to one curve."""
    row: dict[str, Any] = {"points": len(curve.n), "determined": False}
    if not (curve.se > 0).all():
        return {**row, "reason": "no standard errors: single runs, or runs that do not differ"}
    row |= _log_law(curve) if len(curve.n) > 1 else {}
    if len(curve.n) < FEWEST:
        return {**row, "reason": f"{len(curve.n)} size(s), a law with three parameters needs {FEWEST}"}
    profile = _profile(curve)
    chi2, df = profile.min(), len(curve.n) - 3
    most = chi2 + stats.t.ppf((1 + confidence) / 2, curve.df) ** 2  # largest misfit inside intervals
    row |= {"chi2": chi2, "df": df, "p_fit": _p_fit(chi2, df, curve.df)}
    row["c_low"], row["c_high"] = _range(EXPONENTS, profile, most)
    asymptotes = curve.y.max() + ABOVE
    of_asymptote = _profile_of_asymptote(curve, asymptotes)
    row["a_low"], high = _range(asymptotes, of_asymptote, most)
    center, shift = asymptotes[of_asymptote.argmin()], stats.t.ppf((1 + confidence) / 2, curve.df) * curve.shift
    row["a_low"], high = center - np.hypot(center - row["a_low"], shift), center + np.hypot(high - center, shift)
    row["a_high"] = np.inf if high > 100 else high
    reason = _refusal(row, confidence)
    found = {} if reason else _parameters(curve, EXPONENTS[profile.argmin()])
    return {**row, **found, "determined": not reason, "reason": reason}


def curve_points(
    cells: pd.DataFrame, fits: pd.DataFrame, confidence: float = 0.95, shared: bool = False
) -> pd.DataFrame:
    """Fitted curves on a dense grid inside the measured range, with pointwise bands from a parametric bootstrap.

    A curve that neither law describes has no rows.
    """
    frames = []
    for curve, row in zip(curves(cells, confidence, shared), fits.to_dict("records"), strict=True):
        if row["determined"]:
            law, exponents = "power", EXPONENTS[1:]
        elif row["p_log"] >= LEAST_P:
            law, exponents = "log", np.array([0.0])
        else:
            continue
        n = np.geomspace(curve.n.min(), curve.n.max(), CURVE_POINTS)
        middle, low, high = _band(curve, n, exponents, confidence)
        frame = pd.DataFrame({**curve.place, "n": n, "law": law, "miou_percent": middle, "low": low, "high": high})
        frames.append(frame.assign(**{curve.place["axis"]: n}))
    columns = [*PLACE, "law", "miou_percent", "low", "high"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def gain_per_doubling(cells: pd.DataFrame, confidence: float = 0.95, shared: bool = False) -> pd.DataFrame:
    """Points gained per doubling of data over each step of each axis (sizes above 0), a row each, with tests."""
    sizes, tasks, labels = grid(cells)
    used = [size for size in sizes if size > 0]
    measured = measure(cells, shared)
    places, wanted = [], []
    for task in tasks:
        steps = [("downstream", (p, task, d), (p, task, e)) for p in sizes for d, e in itertools.pairwise(labels)]
        steps += [("pretrain", (p, task, d), (q, task, d)) for d in labels for p, q in itertools.pairwise(used)]
        for axis, start, end in steps:
            if not {start, end} <= measured.rows.keys():
                continue  # not declared
            first, last = (start[2], end[2]) if axis == "downstream" else (start[0], end[0])
            doublings = np.log2(last / first)
            places.append((axis, *start, first, last))
            wanted.append({end: 1 / doublings, start: -1 / doublings})
    tests = contrasts(measured, wanted, confidence).rename(columns={"effect": "gain"})
    return pd.concat([pd.DataFrame(places, columns=[*PLACE, "from", "to"]), tests], axis=1)


def bare_steps(doubling: pd.DataFrame) -> pd.DataFrame:
    """What charts show of `gain_per_doubling`: steps without intermediate task, and all on an axis that has none."""
    known, bare = doubling[doubling["gain"].notna()], doubling["intermediate"] == "none"
    shown = bare | ~doubling["axis"].isin(known.loc[bare, "axis"])
    return doubling[shown & doubling["axis"].isin(known["axis"])]


def _shape(n: np.ndarray, exponents: np.ndarray, reference: float) -> np.ndarray:
    """(len(n), exponents): (n / reference)^-c, and -log2(n / reference) for c = 0."""
    ratio = np.log2(n / reference)[:, None]
    return np.where(exponents > 0, np.exp2(-exponents * ratio), -ratio)


def _profile(curve: Curve) -> np.ndarray:
    """(exponents,): misfit at the best a and b >= 0."""
    w = curve.se**-2 / np.sum(curve.se**-2)
    x = _shape(curve.n, EXPONENTS, _middle(curve))
    x, y = x - w @ x, curve.y - w @ curve.y
    return np.sum(curve.se**-2) * (w @ y**2 - np.minimum(w * y @ x, 0) ** 2 / (w @ x**2))


def _profile_of_asymptote(curve: Curve, asymptotes: np.ndarray) -> np.ndarray:
    """(asymptotes,): misfit at the best b >= 0 and c > 0."""
    w = curve.se**-2
    x = _shape(curve.n, EXPONENTS[1:], _middle(curve))
    r = curve.y - asymptotes[:, None]  # y = a - b x, so r = -b x
    misfit = (w * r**2).sum(axis=1)[:, None] - np.minimum((r * w) @ x, 0) ** 2 / (w @ x**2)
    return misfit.min(axis=1)


def _parameters(curve: Curve, c: float) -> dict[str, float]:
    """a, b (for n in images) and c of the best fit."""
    w = 1 / curve.se
    design = np.column_stack([np.ones(len(curve.n)), -(curve.n**-c)])
    (a, b), *_ = np.linalg.lstsq(design * w[:, None], curve.y * w)
    return {"a": float(a), "b": float(b), "c": float(c)}


def _middle(curve: Curve) -> float:
    return float(np.exp(np.log(curve.n).mean()))


def _p_fit(chi2: float, df: int, error_df: float) -> float:
    """p of a misfit this large by chance; F and not chi2, because the errors are themselves estimated."""
    return float(stats.f.sf(chi2 / df, df, error_df))


def _range(values: np.ndarray, profile: np.ndarray, most: float) -> tuple[float, float]:
    """Smallest and largest value with a profile of at most `most`, interpolated between grid points."""
    inside = np.flatnonzero(profile <= most)
    if not len(inside):  # the grid of this parameter ends before the best fit of the other
        return float(values[-1]), float(values[-1])
    ends = []
    for i, j in ((inside[0], inside[0] - 1), (inside[-1], inside[-1] + 1)):
        share = (most - profile[i]) / (profile[j] - profile[i]) if 0 <= j < len(values) else 0.0
        ends.append(float(values[i] + share * (values[j % len(values)] - values[i])))
    return ends[0], ends[1]


def _refusal(row: dict[str, Any], confidence: float) -> str:
    """What the data leave open; empty if they determine the law."""
    if row["p_fit"] < LEAST_P:
        return f"the points scatter about every such law by more than their errors (p = {row['p_fit']:.2g})"
    left_open = []
    if row["c_low"] == 0:
        left_open.append("growth by the same amount per doubling, without saturation, is not excluded")
    if row["c_high"] >= EXPONENTS[-1]:
        left_open.append("saturation may be abrupt (no upper bound on c)")
    if row["a_low"] > 100:
        left_open.append("no sign of saturation (an asymptote would lie above 100)")
    elif row["a_high"] > 100:
        left_open.append(f"the asymptote may be anywhere above {row['a_low']:.1f}")
    return f"at {confidence:.0%}: " + "; ".join(left_open) if left_open else ""


def _log_law(curve: Curve) -> dict[str, float]:
    """Points per doubling with interval, and how well a straight line in log2 n fits."""
    row = {name: curve.slope[key] for name, key in zip(SLOPE, ("effect", "low", "high"), strict=True)}
    w, x = curve.se**-2, np.log2(curve.n)
    x, y = x - (w @ x) / w.sum(), curve.y - (w @ curve.y) / w.sum()
    chi2 = float(w @ (y - (w @ (x * y)) / (w @ x**2) * x) ** 2)
    p = _p_fit(chi2, len(x) - 2, curve.df) if len(x) > 2 else np.nan
    return {**row, "chi2_log": chi2, "p_log": p}


def _band(curve: Curve, n: np.ndarray, exponents: np.ndarray, confidence: float) -> tuple[np.ndarray, ...]:
    """Fitted values at `n` and their bootstrap quantiles; every draw is fitted again, its exponent included."""
    w = np.sqrt(curve.se**-2)
    shapes, dense = (_shape(v, exponents, _middle(curve)) for v in (curve.n, n))
    solves, predicts = [], []
    for j in range(len(exponents)):
        design = np.column_stack([np.ones(len(curve.n)), shapes[:, j]]) * w[:, None]
        inverse = np.linalg.pinv(design)
        solves.append(design @ inverse)
        predicts.append(np.column_stack([np.ones(len(n)), dense[:, j]]) @ inverse)
    solve, predict = np.array(solves), np.array(predicts)  # (exponents, m, m), (exponents, len(n), m)

    def fitted(z: np.ndarray) -> np.ndarray:
        """z: (draws, m) scores / se -> (draws, exponents index) of the least misfit."""
        return np.argmin(((z[:, None] - np.einsum("emk,dk->dem", solve, z)) ** 2).sum(axis=2), axis=1)

    z = (curve.y * w)[None]
    best = fitted(z)[0]
    random = np.random.default_rng(0)
    drawn = (solve[best] @ z[0])[None] + random.standard_t(curve.df, size=(DRAWS, len(curve.n)))
    lines = np.einsum("dnm,dm->dn", predict[fitted(drawn)], drawn)
    lines += curve.shift * random.standard_t(curve.df, size=(DRAWS, 1))
    low, high = np.quantile(lines, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return predict[best] @ z[0], low, high
