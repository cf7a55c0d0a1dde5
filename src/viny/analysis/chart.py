"""Charts of the page: figures for plotly.js as plain dictionaries, which are made in no time.

Colors are CSS variables of the page's style sheet, where they have a value for light and one for dark screens; the
page's script puts in the values. Every line has a marker and a name of its own besides its color.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.formats import number

RAMP, CATEGORIES = 8, 7  # colors of ordered levels and of categories in the style sheet
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "x", "star")
QUIET = "var(--quiet)"
SIZES = {"triangle-up": 11, "triangle-down": 11, "star": 11}  # in pixels; others are 8
MOST_TICKS, ASIDE = 8, 0.02

Figure = dict[str, Any]  # of plotly.js: data, layout; and `title`, which the page shows above it


@dataclass(frozen=True)
class Look:
    """How a line is drawn; without a symbol it has no markers, without a dash it is not joined."""

    color: str
    symbol: str = ""
    dash: str = "solid"


@dataclass
class Chart:
    """A chart of the page.

    Attributes:
        title: a short heading. caption: how to read it.
        panels: figures side by side. legend: looks of lines by name; those that are drawn can be switched off.
        legend_title: what the lines differ in.
        scale: axis (`x` or `y`) that the reader can switch between logarithmic and linear, and what is on it.
        sources: files, relative to the page, with the numbers and the figure for print.
    """

    title: str
    caption: str
    panels: list[Figure]
    legend: dict[str, Look]
    legend_title: str = ""
    scale: tuple[str, str] | None = None
    sources: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Leave lines out of the legend that no panel has."""
        drawn = {trace["meta"] for panel in self.panels for trace in panel["data"]}
        self.legend = {name: look for name, look in self.legend.items() if name in drawn}


def looks(levels: Iterable[Any], ordered: bool, label: Any = str, dash: str = "solid") -> dict[str, Look]:
    """The look of each level by its label: 0 and `none` grey, ordered levels from light to dark, others in colors."""
    levels = list(dict.fromkeys(levels))
    some = [level for level in levels if level not in (0, "none")]
    if ordered:
        places = np.linspace(0 if len(some) > 1 else RAMP - 1, RAMP - 1, len(some)).round().astype(int) + 1
        colors = {level: f"var(--ramp-{place})" for level, place in zip(sorted(some), places, strict=True)}
    else:
        colors = {level: f"var(--color-{i % CATEGORIES + 1})" for i, level in enumerate(some)}
    first = int(ordered and len(some) == len(levels))  # a size keeps its marker where 0 is not shown
    return {
        label(level): Look(colors.get(level, QUIET), SYMBOLS[(i + first) % len(SYMBOLS)], dash)
        for i, level in enumerate([*(level for level in levels if level not in some), *colors])
    }


def panels(points: pd.DataFrame, styles: Mapping[str, Look], x: Figure, y: Figure) -> list[Figure]:
    """A figure for each value of the column `panel`, with a line for each value of `line`.

    Args:
        points: columns panel, line, x, y, hover; low and high (ends of an interval) and `bound` (`>` or `<`: an open
            marker with an arrow) may be missing. A line has a gap where `y` is missing or a bound. Points with
            intervals stand a little aside of each other.
        x, y: the axes, as plotly.js knows them.
    """
    points = points[points.groupby(["panel", "line"])["y"].transform("count") > 0]
    step = ASIDE if "low" in points and x.get("type") == "log" else 0.0
    marked = [name for name, look in styles.items() if look.symbol and name in set(points["line"])]
    aside = {name: (1 + step) ** (i - (len(marked) - 1) / 2) for i, name in enumerate(marked)}
    made = []
    for title, rows in points.assign(x=points["x"] * points["line"].map(aside).fillna(1)).groupby("panel", sort=False):
        lines = [(name, look, rows[rows["line"] == name].sort_values("x")) for name, look in styles.items()]
        data = [trace for name, look, line in lines if len(line) for trace in _traces(name, look, line)]
        made.append({"title": title, "data": data, "layout": {"xaxis": x, "yaxis": y}})
    return made


def ranged(axis: Figure, points: pd.DataFrame) -> Figure:
    """A linear axis that shows all points with their intervals, for panels to share."""
    values = pd.concat([points[name] for name in ("y", "low", "high") if name in points]).replace(
        [np.inf, -np.inf], np.nan
    )
    margin = 0.06 * (values.max() - values.min()) or 1.0
    return {**axis, "range": column([values.min() - margin, values.max() + margin])}


def _traces(name: str, look: Look, line: pd.DataFrame) -> list[dict[str, Any]]:
    """The points of a line, joined, and apart from them those that are bounds."""
    bound = line["bound"].fillna("") if "bound" in line else pd.Series("", line.index)
    exact, bounds = line.assign(y=line["y"].where(bound == "")), line[bound != ""]
    made = [_trace(name, look, exact)] if exact["y"].notna().any() else []
    if len(bounds):
        trace = _trace(name, replace(look, dash=""), bounds)
        trace["marker"]["symbol"] += "-open"
        trace |= {"mode": "markers+text", "text": ["↑" if sign == ">" else "↓" for sign in bounds["bound"]]}
        places = ["top center" if sign == ">" else "bottom center" for sign in bounds["bound"]]
        made.append(trace | {"textposition": places, "textfont": {"color": look.color}})
    return made


def _trace(name: str, look: Look, line: pd.DataFrame) -> dict[str, Any]:
    mode = "+".join(["markers"] * bool(look.symbol) + ["lines"] * bool(look.dash))
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": mode,
        "meta": name,
        "x": column(line["x"]),
        "y": column(line["y"]),
    }
    trace |= {"hovertext": list(line["hover"]), "hoverinfo": "text"}
    trace |= {"line": {"color": look.color, "dash": look.dash or "solid", "width": 2 if look.symbol else 1.5}}
    trace["marker"] = {
        "color": look.color,
        "size": SIZES.get(look.symbol, 8),
        "symbol": look.symbol or "circle",
    }
    if "low" in line and line["low"].notna().any():
        up, down = (
            end.replace(np.inf, np.nan).clip(lower=0) for end in (line["high"] - line["y"], line["y"] - line["low"])
        )
        error = {"type": "data", "symmetric": False, "array": column(up), "arrayminus": column(down)}
        trace["error_y"] = {**error, "color": look.color, "thickness": 1.2, "width": 3}
    return trace


def band(name: str, look: Look, line: pd.DataFrame) -> list[dict[str, Any]]:
    """A line (`x`, `y`) with a band between `low` and `high`."""
    around = {
        "x": column(pd.concat([line["x"], line["x"][::-1]])),
        "y": column(pd.concat([line["low"], line["high"][::-1]])),
    }
    quiet = {"type": "scatter", "meta": name, "hoverinfo": "skip", "mode": "lines"}
    fill = {"fill": "toself", "fillcolor": look.color, "opacity": 0.15, "line": {"width": 0}}
    middle = {
        "x": column(line["x"]),
        "y": column(line["y"]),
        "line": {"color": look.color, "dash": look.dash, "width": 1.5},
    }
    return [{**quiet, **around, **fill}, {**quiet, **middle}]


def column(values: Iterable[Any]) -> list[float | None]:
    """Numbers for JSON: six significant digits, None for what is missing."""
    return [None if pd.isna(value) else float(f"{value:.6g}") for value in values]


def size_axis(title: str, sizes: Iterable[float]) -> Figure:
    """A logarithmic axis with a tick at each size that the study has (at most eight are labeled)."""
    ticks = sorted({float(size) for size in sizes if size > 0})
    shown = ticks if len(ticks) <= MOST_TICKS else ticks[:: -(-len(ticks) // MOST_TICKS)]
    return {**axis(title), "type": "log", "tickvals": shown, "ticktext": [names.size(size) for size in shown]}


def log_axis(title: str, values: pd.Series) -> Figure:
    """A logarithmic axis of any values: ticks at 1, 2, 5, 10, closer on a short one, at 1, 10, 100 on a long one."""
    low, high = float(values[values > 0].min()), float(values.max())
    decades = np.log10(high / low)
    steps = (1,) if decades > 2.5 else (1, 2, 5) if decades > 0.7 else (1, 1.5, 2, 3, 5, 7)
    ticks = [step * 10.0**power for power in range(-4, 13) for step in steps]
    return size_axis(title, [tick for tick in ticks if low / 1.1 <= tick <= high * 1.1])


def axis(title: str, **more: Any) -> Figure:
    """An axis with its title."""
    return {"title": {"text": title}, **more}


def hover(head: Any, *lines: str) -> str:
    """The text at a point; `head` comes from a study file, so it is escaped."""
    return "<br>".join([f"<b>{html.escape(str(head))}</b>", *filter(None, lines)])


def interval(row: Any, confidence: float, signed: bool = False, low: str = "low", high: str = "high") -> str:
    """`95% interval 50.10 to 54.20`, or why there is none."""
    if pd.isna(row[low]) or pd.isna(row[high]):
        return "no interval (single runs)"
    return f"{confidence:.0%} interval {number(row[low], signed=signed)} to {number(row[high], signed=signed)}"
