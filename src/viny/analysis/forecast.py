"""What cells without a result will score, from those that have one, with intervals that hold the error of the law.

Laws: `log` a + b ln n, `power` a - b n^-c. Which of them continues the curves of an axis is decided by extrapolation,
not by fit (Alabdulmohsin et al. 2022): each is fitted to the smaller sizes of every curve and asked for the larger
ones; the law with the smaller error is taken.

An interval has two parts: the noise of the means, carried through the fit, and the error of the law. No law is true.
What the first term that it leaves out does at size n is its reach h(n): (ln n)^p, for a law of p parameters, minus the
law's fit to it. The squared error of the law is kappa^2 h(n)^2. kappa comes from the errors at sizes that were left
out, over all curves; so that few curves do not look safe by luck, its upper limit of level 70% is taken.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from viny.analysis import names
from viny.analysis.contrasts import Measured, measure
from viny.analysis.formats import Table, number
from viny.analysis.frames import KEYS

LAWS = {"log": 2, "power": 3}  # number of parameters; without them no size is left out to check the law
FORMULAS = {"log": "a + b ln n", "power": "a - b n^-c"}
EXPONENTS = np.geomspace(0.02, 2, 60)
MOST = 1e6  # kappa is at most
LEVEL = 0.7  # of the upper limit of the law's error
FROM_SMALL = "from smaller sizes"  # in the column `made`: a forecast of sizes that have results, made without them
OPEN = "no result yet"
AXES = ("downstream", "pretrain")
COLUMNS = ["axis", *KEYS, "law", "known_to", "factor", "checked_factor"]
COLUMNS += ["predicted", "low", "high", "noise", "law_error"]
RESULT = ["measured", "error", "error_in_intervals"]


@dataclass(frozen=True)
class Curve:
    """Scores along one axis: (m,) images `n`, mIoU `y` in percent, standard errors `se`; `group` names its encoder."""

    place: dict[str, Any]
    group: Any
    n: np.ndarray
    y: np.ndarray
    se: np.ndarray

    def upto(self, points: int) -> "Curve":
        """The first points alone."""
        return Curve(self.place, self.group, self.n[:points], self.y[:points], self.se[:points])


@dataclass(frozen=True)
class Law:
    """The law that continues the curves of an axis, and how well it did where that could be checked.

    Attributes:
        rmse: error in points at sizes that were left out, of `checks` forecasts.
        kappa: scale of its error; checked: the largest factor beyond the sizes known that was checked.
    """

    axis: str
    name: str
    rmse: float
    checks: int
    kappa: float
    checked: float

    @property
    def parameters(self) -> int:
        """Number of parameters, the fewest sizes that it can be fitted to."""
        return LAWS[self.name]

    def predict(self, curve: Curve, sizes: np.ndarray, confidence: float, runs: bool = True) -> pd.DataFrame:
        """The score at (k,) `sizes`, with the interval for the mean of as many runs as the curve's cells have.

        Args:
            runs: False for the interval of the score that infinitely many runs would have.
        """
        value, weights, reach = fit(self.name, curve.n, curve.y, sizes)
        noise = np.sqrt(weights**2 @ curve.se**2 + runs * np.mean(curve.se**2))
        error = self.kappa * np.abs(reach)
        half = stats.norm.ppf((1 + confidence) / 2) * np.hypot(noise, error)
        ends = {"low": value - half, "high": value + half}
        return pd.DataFrame({"n": sizes, "predicted": value, **ends, "noise": noise, "law_error": error})


def fit(law: str, n: np.ndarray, y: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of `law` through (m,) scores `y` at `n`, not weighted: the error of the law counts at every size.

    Returns:
        (k,) values at `at`; (k, m) weights of the scores in them, to first order; (k,) reach (see the module).
    """
    x, z = np.log(n / n.max()), np.log(at / n.max())
    if law == "log":
        design, wanted = (np.column_stack([np.ones_like(v), v]) for v in (x, z))
        value = wanted @ np.linalg.lstsq(design, y)[0]
    else:
        c = _exponent(x, y)
        design, wanted = (np.column_stack([np.ones_like(v), np.exp(-c * v), v * np.exp(-c * v)]) for v in (x, z))
        value = wanted[:, :2] @ np.linalg.lstsq(design[:, :2], y)[0]
    weights = wanted @ np.linalg.pinv(design)
    order = LAWS[law]
    return value, weights, z**order - weights @ x**order


def _exponent(x: np.ndarray, y: np.ndarray) -> float:
    """c of the least misfit of a - b exp(-c x)."""
    shapes = np.exp(-np.outer(EXPONENTS, x))
    shapes -= shapes.mean(axis=1, keepdims=True)
    explained = np.minimum(shapes @ (y - y.mean()), 0) ** 2 / (shapes**2).sum(axis=1)  # b is not below 0
    return float(EXPONENTS[explained.argmax()])


def curves(measured: Measured, axis: str) -> list[Curve]:
    """Curves of two or more sizes along `downstream`, or along `pretrain` above 0.

    A missing standard error (a single run) counts as the largest that is known.
    """
    table = measured.table[measured.table["n"] > 0].reset_index()
    table = table[table[axis] > 0]
    others = [key for key in KEYS if key != axis]
    found = []
    for place, rows in table.groupby(others, sort=False):
        if len(rows) > 1:
            fixed = dict(zip(others, place, strict=True))
            group = (fixed.get("pretrain"), fixed["intermediate"])  # curves over encoders share those of their task
            se = rows["se_moderated"].fillna(table["se_moderated"].max())
            found.append(Curve(fixed, group, *(v.to_numpy(float) for v in (rows[axis], rows["mean"], se))))
    return found


def choose(axis: str, along: list[Curve]) -> Law | None:
    """The law for these curves; None if no size can be left out to check one, or single runs say nothing of noise."""
    checks = {law: _check(law, along) for law in LAWS}
    both = pd.concat(checks, names=["law"]).reset_index("law")
    if both.empty or not np.isfinite(both["noise"]).all():
        return None
    common = both[both.duplicated(["curve", "known", "size"], keep=False)]
    errors = (common if len(common) else both).groupby("law")["error"].agg(lambda e: float(np.sqrt(np.mean(e**2))))
    name = str(errors.idxmin())
    own = checks[name]
    factor = float((own["size"] / own["known"]).max())
    rmse = float(np.sqrt(np.mean(own["error"] ** 2)))
    return Law(axis, name, rmse, len(own), _kappa(own), factor)


def _check(law: str, along: list[Curve]) -> pd.DataFrame:
    """Forecasts of the larger sizes of each curve from its smaller ones, at every cut.

    At least three sizes are known; two where no curve has more than three and the law has two parameters.
    Columns: curve, group, known (largest size fitted), size, error in points, noise (variance), reach.
    """
    rows: list[tuple] = []
    least = max(LAWS[law], min(3, max((len(curve.n) for curve in along), default=0) - 1))
    for index, curve in enumerate(along):
        for cut in range(least, len(curve.n)):
            known = curve.upto(cut)
            value, weights, reach = fit(law, known.n, known.y, curve.n[cut:])
            noise = weights**2 @ known.se**2 + curve.se[cut:] ** 2
            at = [index] * len(value), [curve.group] * len(value), [known.n[-1]] * len(value), curve.n[cut:]
            rows += zip(*at, curve.y[cut:] - value, noise, reach, strict=True)
    columns = ["curve", "group", "known", "size", "error", "noise", "reach"]
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[2:], float))


def _kappa(checks: pd.DataFrame) -> float:
    """The kappa at which errors as small as these, or smaller, would have the probability 1 - LEVEL.

    Every group of curves counts as one observation, however many sizes were left out.
    """
    least = stats.chi2.ppf(1 - LEVEL, checks["group"].nunique())
    share = 1 / checks.groupby("group")["error"].transform("size").to_numpy()
    error, noise, reach = (checks[name].to_numpy() for name in ("error", "noise", "reach"))

    def excess(kappa: float) -> float:
        return float(share @ (error**2 / (noise + (kappa * reach) ** 2 + 1e-12)) - least)

    if excess(0) <= 0:
        return 0.0
    return float(optimize.brentq(excess, 0, MOST)) if excess(MOST) < 0 else MOST


def laws(measured: Measured) -> dict[str, Law]:
    """The law of each axis that has one."""
    found = {axis: choose(axis, curves(measured, axis)) for axis in AXES}
    return {axis: law for axis, law in found.items() if law}


def forecast(cells: pd.DataFrame, confidence: float = 0.95, more: Iterable[tuple[int, str, int]] = ()) -> pd.DataFrame:
    """Forecasts of the declared cells that have no result and of the cells `more`, a row each, in COLUMNS.

    Where a cell can be reached along both axes, the narrower interval is taken. `factor` says how far beyond the
    largest known size a cell is; beyond `checked_factor` nothing has checked the interval.
    """
    measured = measure(cells)
    wanted = dict.fromkeys(key for key in measured.table.index if not measured.has(key))
    wanted |= dict.fromkeys(key for key in more if not (key in measured.rows and measured.has(key)))
    found = []
    for axis, law in laws(measured).items():
        for curve in curves(measured, axis):
            place = [key for key in wanted if key[KEYS.index(axis)] > 0 and _on(curve, key)]
            at = np.array([key[KEYS.index(axis)] for key in place], float)
            if len(curve.n) >= law.parameters and place:
                rows = law.predict(curve, at, confidence).assign(
                    axis=axis, law=law.name, known_to=curve.n[-1], factor=at / curve.n[-1], checked_factor=law.checked
                )
                found.append(rows.assign(**dict(zip(KEYS, zip(*place, strict=True), strict=True))))
    if not found:
        return pd.DataFrame(columns=COLUMNS)
    rows = pd.concat(found, ignore_index=True)
    rows = rows.loc[(rows["high"] - rows["low"]).groupby([rows[key] for key in KEYS], sort=False).idxmin()]
    return rows[COLUMNS].sort_values(KEYS, ignore_index=True)


def _on(curve: Curve, key: tuple[int, str, int]) -> bool:
    place = dict(zip(KEYS, key, strict=True))
    return all(place[name] == value for name, value in curve.place.items())


def without(cells: pd.DataFrame, axis: str, size: float) -> pd.DataFrame:
    """The same cells, those beyond `size` on an axis without result."""
    beyond = cells[axis] > size
    scores = [name for name in cells if name.endswith(("_percent", "_pm"))]
    hidden = {name: cells[name].mask(beyond) for name in scores}
    return cells.assign(**hidden, status=cells["status"].mask(beyond, "missing"))


def from_small_sizes(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Forecasts of the larger sizes from those of at most half the largest alone, law and kappa included.

    It is what a seal would have said before the larger sizes were run.
    """
    found = []
    for axis in AXES:
        sizes = sorted(size for size in cells[axis].unique() if size > 0)
        known = [size for size in sizes if size <= sizes[-1] / 2]
        if len(known) > 2:
            rows = forecast(without(cells, axis, known[-1]), confidence)
            found.append(rows[(rows["axis"] == axis) & (rows[axis] > known[-1])])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def against_results(forecasts: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """The same rows beside what was measured.

    Adds `measured` (mean mIoU, NaN if there is none), `error` (measured - predicted, in points) and
    `error_in_intervals` (the same in half widths of the interval, which covers within -1 and 1).
    """
    measured = measure(cells).table["mean"]
    truth = np.array([measured.get(tuple(key), np.nan) for key in forecasts[KEYS].itertuples(index=False)], float)
    error = truth - forecasts["predicted"].astype(float)
    half = (forecasts["high"] - forecasts["low"]).astype(float) / 2
    return forecasts.assign(measured=truth, error=error, error_in_intervals=error / half)


def every_forecast(cells: pd.DataFrame, sealed: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Forecasts beside results: the sealed ones, those from the smaller sizes alone, and those of cells not run yet.

    `made` is the time of the seal, or says which of the others it is.
    """
    small = against_results(from_small_sizes(cells, confidence).assign(made=FROM_SMALL), cells)
    others = against_results(sealed, cells), against_results(forecast(cells, confidence).assign(made=OPEN), cells)
    frames = [frame for frame in (others[0], small[small["measured"].notna()], others[1]) if len(frame)]
    return pd.concat(frames, ignore_index=True)[["made", *COLUMNS, *RESULT]] if frames else others[0]


def forecast_table(compared: pd.DataFrame, confidence: float) -> Table:
    """`against_results` for people, with the share of intervals that cover."""
    rows = []
    for row in compared.to_dict("records"):
        interval = f"{number(row['predicted'])} ({number(row['low'])} to {number(row['high'])})"
        beyond = f"{row['factor']:.3g}{'*' if row['factor'] > row['checked_factor'] else ''}"
        errors = (number(row[name], signed=True) for name in ("error", "error_in_intervals"))
        place = names.place(*(row[key] for key in KEYS))
        rows.append([row["made"], *place, FORMULAS[row["law"]], beyond, interval, number(row["measured"]), *errors])
    known = compared[compared["measured"].notna()]
    note = f"{confidence:.0%} intervals, for the mean of as many runs as known cells have. *: beyond what was checked."
    if len(known):
        inside, error = (known["error_in_intervals"].abs() <= 1).sum(), np.sqrt((known["error"] ** 2).mean())
        note += f" {inside} of {len(known)} results lie inside; root mean square error {error:.2f} points."
    columns = ["made", "Pre-training", "Task", "Fine-tuning", "law", "times the known", "forecast", "result", "error"]
    return Table("", "Forecasts.", [*columns, "error / half interval"], rows, compared, note, left=3, group=1)
