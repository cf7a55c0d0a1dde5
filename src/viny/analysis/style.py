"""One look for all figures: sizes of a two-column page, colors that color-blind readers can tell apart, and saving.

Colors: pre-training sizes are ordered, so they step through viridis (grey: no pre-training); numbers of labels through
another map; categories take the Okabe-Ito colors. Each line also has its own marker, so that a figure survives a
black-and-white print.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from viny.analysis import names
from viny.files import replacing

SINGLE = 3.3  # inches: one column of a two-column page
DOUBLE = 6.9  # inches: both columns
HEIGHT = 2.3  # of a panel
DOTS_PER_INCH = 200

GREY = "#5b5b5b"
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
ERRORS: dict[str, Any] = {"elinewidth": 0.8, "capsize": 1.5}

SETTINGS: Any = {
    **{"font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7.5, "axes.labelsize": 7},
    **{"axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False},
    **{"axes.grid": True, "axes.axisbelow": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.5},
    **{"lines.linewidth": 1.2, "lines.markersize": 3.5},
    **{f"{axis}tick.{key}": value for axis in "xy" for key, value in (("labelsize", 6.5), ("major.size", 2.5))},
    **{f"{axis}tick.major.width": 0.6 for axis in "xy"},
    **{"legend.fontsize": 6.5, "legend.title_fontsize": 6.5, "legend.frameon": False, "legend.handlelength": 1.8},
    **{"figure.dpi": 100, "savefig.dpi": DOTS_PER_INCH, "pdf.fonttype": 42, "image.interpolation": "nearest"},
}

ZERO: dict[str, Any] = {"color": "black", "linewidth": 0.7, "zorder": 1}  # the line of no effect

Looks = Mapping[Any, Mapping[str, Any]]  # of each level of a variable: color and marker


def apply() -> None:
    """Set matplotlib's defaults."""
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.use("Agg")
    mpl.rcParams.update(SETTINGS)


def panels(
    frame: pd.DataFrame,
    column: str,
    title: Callable[[Any], str],
    labels: tuple[str, str],
    row: str | None = None,
    height: float = HEIGHT,
    **kwargs: Any,
) -> Any:
    """Seaborn's grid with a panel for each value of `column`: one column of the page for one panel, both for more.

    Without rows more than three panels go to further rows; four stand in a square. A single `none` has no title.

    Args:
        title: makes the title of a panel from the value of its column.
        labels: of the two axes.
        kwargs: for `seaborn.FacetGrid`.
    """
    count = max(frame[column].nunique(), 1)
    across = count if row or count <= 3 else 2 if count == 4 else 3
    width = SINGLE if count == 1 else DOUBLE
    kwargs |= {"col": column, "row": row, "col_wrap": across if across < count else None, "despine": False}
    grid = sns.FacetGrid(frame, height=height, aspect=width / across / height, **kwargs)
    # The width is that of the page; what stands above and below the panels adds to the height.
    grid.figure.set_size_inches(width, grid.figure.get_figheight() + 0.35)
    grid.figure.set_layout_engine("constrained")
    grid.set_axis_labels(*labels).set_titles("")
    if list(grid.col_names) != ["none"]:
        for ax, value in zip(grid.axes.flat, grid.col_names, strict=False):
            ax.set_title(title(value))
    return grid


def looks(variable: str, levels: Iterable[Any]) -> dict[Any, dict[str, Any]]:
    """Color and marker of each level of `pretrain`, `downstream` or a category.

    Of sizes 0 is grey and the others go from light (few) to dark (many); of categories `none` is grey.
    """
    levels = list(dict.fromkeys(levels))
    none = [level for level in levels if level in (0, "none")]
    some = [level for level in levels if level not in none]
    if variable in ("pretrain", "downstream"):
        some = sorted(some)
        name, first, last = ("viridis", 0.72, 0.08) if variable == "pretrain" else ("YlGnBu", 0.35, 0.95)
        colors = [mpl.colormaps[name](place) for place in np.linspace(first, last, len(some))]
    else:
        colors = [OKABE_ITO[i % len(OKABE_ITO)] for i in range(len(some))]
    pairs = [(level, GREY) for level in none] + list(zip(some, colors, strict=True))
    first = int(variable == "pretrain" and not none)  # a size keeps its marker where 0 is not shown
    return {level: {"color": c, "marker": MARKERS[(i + first) % len(MARKERS)]} for i, (level, c) in enumerate(pairs)}


def error_lines(
    ax: Axes, frame: pd.DataFrame, x: str, y: str, error: str, hue: str, styles: Looks, step: float = 0.03, **look: Any
) -> None:
    """One line with error bars per level of `hue`, `step` apart; a gap, and a cross below it, where `y` is missing."""
    for index, (level, own) in enumerate(styles.items()):
        line = frame[frame[hue] == level].sort_values(x)
        gone = line.loc[line[y].isna(), x]
        if len(gone) < len(line):
            at = line[x] * (1 + step) ** (index - (len(styles) - 1) / 2)  # aside on a logarithmic axis
            ax.errorbar(at, line[y], line[error].fillna(0), **{**own, **ERRORS, **look})
        if len(gone):
            edge: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "clip_on": False, "gid": "missing"}
            ax.plot(gone, [0.02] * len(gone), "x", color=own["color"], **edge)


def size_axis(ax: Axes, sizes: Iterable[float], axis: str = "x") -> None:
    """A logarithmic axis with a tick at each size that the study has (at most eight are labeled)."""
    ticks = sorted(set(map(float, sizes)))
    ax.set(**{f"{axis}scale": "log"})
    this = ax.xaxis if axis == "x" else ax.yaxis
    this.set_major_locator(FixedLocator(ticks if len(ticks) <= 8 else ticks[:: -(-len(ticks) // 8)]))
    _plain_ticks(this)


def cost_axis(ax: Axes, values: Iterable[float]) -> None:
    """A logarithmic x-axis of costs: ticks at 1, 10, 100 ..., and at 2 and 5 between them if it is short."""
    known = [value for value in values if value > 0]
    decades = math.log10(max(known) / min(known)) if known else 9
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    _plain_ticks(ax.xaxis)


def _plain_ticks(axis: Any) -> None:
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: names.size(value)))


def handles(styles: Looks, label: Any = names.size, **kwargs: Any) -> list[Line2D]:
    """Entries of a legend for the levels of a variable."""
    return [Line2D([], [], label=label(level), **{**look, **kwargs}) for level, look in styles.items()]


def legend(
    fig: Figure, entries: Sequence[Line2D], title: str = "", missing: bool = False, columns: int | None = None
) -> None:
    """One legend above all panels; with `missing` it explains the crosses of `error_lines`, too."""
    every = [*entries, *crosses(missing)]
    columns = columns or (8 if fig.get_figwidth() > SINGLE else 2 + (len(every) != 4))
    fig.legend(
        handles=every, title=title, loc="outside upper center", ncols=min(len(every), columns), columnspacing=1.2
    )


def crosses(missing: bool) -> list[Line2D]:
    """The entry of a legend for the crosses of `error_lines`, if there are any."""
    return [Line2D([], [], color=GREY, marker="x", linestyle="", label="no result yet")] if missing else []


def empty(sentence: str) -> Figure:
    """A figure that says why there is nothing to see."""
    fig = plt.figure(figsize=(SINGLE, 1.2), layout="constrained")
    fig.text(0.5, 0.5, sentence, ha="center", va="center", wrap=True, color=GREY, fontsize=7.5)
    return fig


def save(fig: Figure, stem: Path, note: str = "") -> None:
    """Write `stem`.png and `stem`.pdf with a note on the data, the same bytes each time, and close the figure."""
    if note:
        engine: Any = fig.get_layout_engine()
        height = 0.11 / fig.get_figheight()
        engine.set(rect=(0, height, 1, 1 - height))
        fig.text(0.995, 0.04 / fig.get_figheight(), note, ha="right", va="bottom", fontsize=5.5, color=GREY, gid="note")
    undated = {".png": {"Software": None}, ".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    for suffix, metadata in undated.items():
        with replacing(stem.with_name(stem.name + suffix)) as path:
            fig.savefig(path, format=suffix[1:], metadata=metadata)
        fig.set_layout_engine("none")  # the places found for the first format serve for the second
    plt.close(fig)
