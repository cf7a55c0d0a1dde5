"""How scores grow with data: saturating power laws, their intervals, and a refusal where the data do not decide.

    python -m viny.analysis.scaling --cells results/demo/cells.csv --output results/demo/statistics

Law: mIoU(n) = a - b n^-c with b >= 0, c > 0 and asymptote a. As c goes to 0 it becomes alpha + beta log2 n, growth by
the same amount at each doubling without end; that log law is fitted beside it. Fits are weighted by moderated standard
errors (`viny.analysis.contrasts`). For fixed c the best a and b are closed-form, so intervals are profile-likelihood
intervals from a grid. A law is `determined` only if it describes the points, excludes c = 0 and bounds the asymptote
below 100%; otherwise a, b and c are left empty and `reason` says what the data leave open.

Along pre-training data the law starts at the smallest size above 0. The joint fit shares c between the encoders of one
intermediate task, each with its own a and b. Errors of different cells are taken as independent; noise of an encoder
that all its cells share moves its whole curve, so it belongs to a more than the interval of a says.

| file | one row per | content |
|---|---|---|
| scaling.csv | curve, joint fit | parameters, intervals, chi2 and p of fit, `determined`, `reason`; log law |
| scaling_curves.csv | point of a curve | fitted mIoU with bootstrap band; `law` is `power` if determined, or `log` |
| doubling.csv | step of an axis | gain per doubling of data over this step, with intervals and p |
"""

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from viny import console
from viny.analysis.contrasts import Measured, contrasts, measure
from viny.analysis.files import read_cells, write_csv
from viny.analysis.summary import grid
from viny.errors import command

FEWEST = 4  # points: three parameters and one to see whether they fit
LEAST_P = 0.01  # a law that data contradict at this level is not reported as found
EXPONENTS = np.concatenate([[0.0], np.geomspace(0.01, 5, 300)])
ABOVE = np.geomspace(0.02, 2000, 400)  # asymptotes tried, points above the highest score
CURVE_POINTS, DRAWS = 60, 400
PLACE = ["axis", "pretrain", "intermediate", "downstream"]
FIT_COLUMNS = [
    *["scope", *PLACE, "points", "a", "a_low", "a_high", "b", "c", "c_low", "c_high", "chi2", "df", "p_fit"],
    *["determined", "reason", "per_doubling", "per_doubling_low", "per_doubling_high", "chi2_log", "p_log"],
]


@dataclass(frozen=True)
class Curve:
    """Scores along one axis, the other coordinates fixed.

    Attributes:
        place: axis (`downstream` or `pretrain`) and the fixed coordinates; the axis's own coordinate is missing.
        n: (m,) images.
        y: (m,) mIoU in percent, with standard errors `se`.
        df: degrees of freedom of the standard errors together.
    """

    place: dict[str, object]
    n: np.ndarray
    y: np.ndarray
    se: np.ndarray
    df: float


def curves(cells: pd.DataFrame) -> list[Curve]:
    """Every curve the grid holds: along downstream for each encoder, along pre-training for each task and size."""
    sizes, tasks, labels = grid(cells)
    measured = measure(cells)
    found = []
    for size in sizes:
        for task in tasks:
            place = {"axis": "downstream", "pretrain": size, "intermediate": task, "downstream": None}
            found.append(_curve(measured, place, [(size, task, d) for d in labels], labels))
    used = [size for size in sizes if size > 0]
    for task in tasks:
        for d in labels if len(used) > 1 else []:
            place = {"axis": "pretrain", "pretrain": None, "intermediate": task, "downstream": d}
            found.append(_curve(measured, place, [(size, task, d) for size in used], used))
    return [curve for curve in found if curve is not None]


def fit_curves(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Fit every curve, and jointly those of one task along downstream; refusals say why in `reason`."""
    found = curves(cells)
    rows = [{"scope": "curve", **curve.place, **fit(curve, confidence)} for curve in found]
    for task in dict.fromkeys(curve.place["intermediate"] for curve in found):
        group = [c for c in found if c.place["axis"] == "downstream" and c.place["intermediate"] == task]
        if len(group) > 1:
            place = {"axis": "downstream", "pretrain": None, "intermediate": task, "downstream": None}
            rows.append({"scope": "joint", **place, **fit_joint(group, confidence)})
    frame = pd.DataFrame(rows, columns=FIT_COLUMNS)
    return frame.astype({"pretrain": "Int64", "downstream": "Int64"})


def fit(curve: Curve, confidence: float = 0.95) -> dict[str, object]:
    """Fit the saturating law and the log law to one curve."""
    row: dict[str, object] = {"points": len(curve.n), "determined": False}
    if len(curve.n) < 2 or not np.isfinite(curve.se).all():
        return {**row, "reason": _too_few(curve)}
    row |= _log_law(curve, confidence)
    if len(curve.n) < FEWEST:
        return {**row, "reason": _too_few(curve)}
    profile = _profile(curve)
    c = EXPONENTS[profile.argmin()]
    row |= {"chi2": profile.min(), "df": len(curve.n) - 3}
    row["p_fit"] = _p_fit(row["chi2"], row["df"], curve.df)
    most = profile.min() + stats.t.ppf((1 + confidence) / 2, curve.df) ** 2
    row["c_low"], row["c_high"] = _range(EXPONENTS, profile, most)
    asymptotes = curve.y.max() + ABOVE
    row["a_low"], row["a_high"] = _range(asymptotes, _profile_of_asymptote(curve, asymptotes), most)
    if row["a_high"] > 100:
        row["a_high"] = np.inf
    row |= _verdict(row, confidence)
    if row["determined"]:
        row |= _parameters(curve, c)
    return row


def fit_joint(group: list[Curve], confidence: float = 0.95) -> dict[str, object]:
    """One exponent for several curves, each with its own asymptote and b."""
    group = [curve for curve in group if len(curve.n) >= 3 and np.isfinite(curve.se).all()]
    points = sum(len(curve.n) for curve in group)
    row: dict[str, object] = {"points": points, "determined": False}
    df = points - 2 * len(group) - 1
    if len(group) < 2 or df < 1:
        return {**row, "reason": "fewer than two curves with three sizes and standard errors"}
    profile = np.sum([_profile(curve) for curve in group], axis=0)
    row |= {"chi2": profile.min(), "df": df}
    error_df = sum(curve.df for curve in group)
    row["p_fit"] = _p_fit(row["chi2"], df, error_df)
    most = profile.min() + stats.t.ppf((1 + confidence) / 2, error_df) ** 2
    row["c_low"], row["c_high"] = _range(EXPONENTS, profile, most)
    row |= _verdict(row, confidence)
    if row["determined"]:
        row["c"] = EXPONENTS[profile.argmin()]
    return row


def curve_points(cells: pd.DataFrame, fits: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Fitted curves on a dense grid inside the measured range, with pointwise bands from a parametric bootstrap.

    A curve that neither law describes has no rows.
    """
    frames = []
    for curve, row in zip(curves(cells), fits[fits["scope"] == "curve"].to_dict("records"), strict=True):
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


def gain_per_doubling(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Points gained per doubling of data over each step of each axis (sizes above 0)."""
    sizes, tasks, labels = grid(cells)
    used = [size for size in sizes if size > 0]
    places, wanted = [], []
    for task in tasks:
        steps = [("downstream", size, d, (size, task, d), (size, task, e)) for size in sizes for d, e in _steps(labels)]
        steps += [("pretrain", p, d, (p, task, d), (q, task, d)) for d in labels for p, q in _steps(used)]
        for axis, size, d, start, end in steps:
            first, last = (start[2], end[2]) if axis == "downstream" else (start[0], end[0])
            doublings = np.log2(last / first)
            places.append(
                {"axis": axis, "pretrain": size, "intermediate": task, "downstream": d, "from": first, "to": last}
            )
            wanted.append({end: 1 / doublings, start: -1 / doublings})
    tests = contrasts(measure(cells), wanted, confidence).rename(columns={"effect": "gain"})
    return pd.concat([pd.DataFrame(places, columns=[*PLACE, "from", "to"]), tests], axis=1)


def _curve(measured: Measured, place: dict[str, object], keys: list[tuple], n: list[int]) -> Curve | None:
    known = [i for i, key in enumerate(keys) if measured.has(key)]
    if not known:
        return None
    table = measured.table.loc[[keys[i] for i in known]]
    return Curve(
        place,
        np.array([n[i] for i in known], float),
        table["mean"].to_numpy(float),
        table["se_moderated"].to_numpy(float),
        float(table["df_moderated"].sum()),
    )


def _too_few(curve: Curve) -> str:
    if not np.isfinite(curve.se).all():
        return "no standard errors: single runs"
    return f"{len(curve.n)} size(s), a law with three parameters needs {FEWEST}"


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


def _verdict(row: dict, confidence: float) -> dict[str, object]:
    if row["p_fit"] < LEAST_P:
        misfit = f"the points scatter about every such law by more than their errors (p = {row['p_fit']:.2g})"
        return {"determined": False, "reason": misfit}
    left_open = []
    if row["c_low"] == 0:
        left_open.append("growth by the same amount per doubling, without saturation, is not excluded")
    if row["c_high"] >= EXPONENTS[-1]:
        left_open.append("saturation may be abrupt (no upper bound on c)")
    if row.get("a_low", 0) > 100:
        left_open.append("no sign of saturation (an asymptote would lie above 100)")
    elif row.get("a_high", 0) > 100:
        left_open.append(f"the asymptote may be anywhere above {row['a_low']:.1f}")
    if left_open:
        return {"determined": False, "reason": f"at {confidence:.0%}: " + "; ".join(left_open)}
    return {"determined": True, "reason": ""}


def _log_law(curve: Curve, confidence: float) -> dict[str, float]:
    """Points per doubling with interval, and how well a straight line in log2 n fits."""
    w = curve.se**-2
    x = np.log2(curve.n)
    centered = x - (w @ x) / w.sum()
    slope = w @ (centered * curve.y) / (w @ centered**2)
    residual = curve.y - (w @ curve.y) / w.sum() - slope * centered
    chi2 = float(w @ residual**2)
    reach = stats.t.ppf((1 + confidence) / 2, curve.df) / np.sqrt(w @ centered**2)
    found = {"per_doubling": slope, "per_doubling_low": slope - reach, "per_doubling_high": slope + reach}
    p = _p_fit(chi2, len(x) - 2, curve.df) if len(x) > 2 else np.nan
    return {**found, "chi2_log": chi2, "p_log": p}


def _band(curve: Curve, n: np.ndarray, exponents: np.ndarray, confidence: float) -> tuple[np.ndarray, ...]:
    """Fitted values at `n` and their bootstrap quantiles; every draw is fitted anew, its exponent included."""
    w = np.sqrt(curve.se**-2)
    shapes, dense = (_shape(v, exponents, _middle(curve)) for v in (curve.n, n))
    solve, predict = [], []
    for j in range(len(exponents)):
        design = np.column_stack([np.ones(len(curve.n)), shapes[:, j]]) * w[:, None]
        inverse = np.linalg.pinv(design)
        solve.append(design @ inverse)
        predict.append(np.column_stack([np.ones(len(n)), dense[:, j]]) @ inverse)
    solve, predict = np.array(solve), np.array(predict)  # (exponents, m, m), (exponents, len(n), m)

    def fitted(z: np.ndarray) -> np.ndarray:
        """z: (draws, m) scores / se -> (draws, exponents index) of the least misfit."""
        return np.argmin(((z[:, None] - np.einsum("emk,dk->dem", solve, z)) ** 2).sum(axis=2), axis=1)

    z = (curve.y * w)[None]
    best = fitted(z)[0]
    random = np.random.default_rng(0)
    drawn = (solve[best] @ z[0])[None] + random.standard_t(curve.df, size=(DRAWS, len(curve.n)))
    lines = np.einsum("dnm,dm->dn", predict[fitted(drawn)], drawn)
    low, high = np.quantile(lines, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return predict[best] @ z[0], low, high


def _steps(values: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(values))


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.scaling",
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
    fits = fit_curves(cells, args.confidence)
    write_csv(args.output / "scaling.csv", fits)
    write_csv(args.output / "scaling_curves.csv", curve_points(cells, fits, args.confidence))
    write_csv(args.output / "doubling.csv", gain_per_doubling(cells, args.confidence))
    console.say(f"{int(fits['determined'].sum())} of {len(fits)} saturating laws are determined: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
