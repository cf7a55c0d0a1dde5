"""One look for all figures: sizes of a two-column page, colors that color-blind readers can tell apart, and saving.

Colors: pre-training sizes are ordered, so they step through viridis (grey: no pre-training); categories take the
Okabe-Ito colors. Each line also has its own marker, so that a figure survives a black-and-white print.
"""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from viny.analysis import names

SINGLE = 3.3  # inches: one column of a two-column page
DOUBLE = 6.9  # inches: both columns
PANEL_HEIGHT = 2.3
DOTS_PER_INCH = 200

GREY = "#5b5b5b"
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
CLASS_COLORS = {"foreground": "#E69F00", "background": "#3b4a6b", "border": "#f2f2f2"}
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]

SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "figure.dpi": 100,
    "savefig.dpi": DOTS_PER_INCH,
    "pdf.fonttype": 42,
    "image.interpolation": "nearest",
}


def apply() -> None:
    """Set matplotlib's defaults; every drawing command calls this once."""
    mpl.rcParams.update(mpl.rcParamsDefault)
    mpl.use("Agg")
    mpl.rcParams.update(SETTINGS)


def panels(count: int, height: float = PANEL_HEIGHT, columns: int = 3, **kwargs: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels: one column of the page for one panel, both columns for more.

    More panels than `columns` go to further rows; four stand in a square.
    """
    columns = 2 if (count, columns) == (4, 3) else min(count, columns)
    rows = -(-count // columns)
    width = SINGLE if count == 1 else DOUBLE
    fig, axes = plt.subplots(
        rows, columns, figsize=(width, height * rows + 0.35), layout="constrained", squeeze=False, **kwargs
    )
    flat = list(axes.flat)
    for unused in flat[count:]:
        unused.remove()
    return fig, flat[:count]


def outer_labels(axes: Sequence[Axes]) -> None:
    """Keep labels of the x-axis where no panel is below, those of the y-axis where none is to the left."""
    places = {(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start): ax for ax in axes}
    for (row, column), ax in places.items():
        if (row + 1, column) in places:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        if (row, column - 1) in places:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)


def pictures(
    rows: int,
    columns: int,
    left: float = 0.35,
    right: float = 0.05,
    top: float = 0.3,
    bottom: float = 0.3,
    caption: float = 0.14,
) -> tuple[Figure, np.ndarray]:
    """A grid of small square pictures, at most as wide as the page; margins and room for captions in inches."""
    gap = 0.03
    side = min(0.85, (DOUBLE - left - right) / columns - gap)
    width = left + right + columns * (side + gap) - gap
    height = top + bottom + rows * (side + caption)
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
    for (row, column), ax in np.ndenumerate(axes):
        x, y = left + column * (side + gap), height - top - side - row * (side + caption)
        ax.set_position((x / width, y / height, side / width, side / height))
    return fig, axes


def picture(ax: Axes, pixels: np.ndarray, **kwargs: Any) -> Any:
    """Show an image without ticks, with a thin frame."""
    drawn = ax.imshow(pixels, aspect="auto", **kwargs)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set(visible=True, linewidth=0.3, color=GREY)
    return drawn


def empty(sentence: str, width: float = SINGLE) -> Figure:
    """A figure that says why there is nothing to see."""
    fig = plt.figure(figsize=(width, 1.2))
    fig.text(0.5, 0.5, sentence, ha="center", va="center", wrap=True, color=GREY, fontsize=7.5)
    return fig


def size_colors(sizes: Iterable[int]) -> dict[int, Any]:
    """A color for each pre-training size: grey for 0, then viridis from light (few) to dark (many)."""
    some = sorted(size for size in set(sizes) if size > 0)
    places = [0.4] if len(some) == 1 else np.linspace(0.72, 0.08, len(some))
    return {0: GREY} | {size: mpl.colormaps["viridis"](place) for size, place in zip(some, places, strict=True)}


def size_markers(sizes: Iterable[int]) -> dict[int, str]:
    """A marker for each pre-training size, in the order of the colors; the first is that of 0."""
    some = sorted(size for size in set(sizes) if size > 0)
    return {0: MARKERS[0]} | {size: MARKERS[1 + i % (len(MARKERS) - 1)] for i, size in enumerate(some)}


def task_colors(tasks: Sequence[str]) -> dict[str, str]:
    """A color for each intermediate task: grey for none."""
    some = [task for task in tasks if task != "none"]
    return {"none": GREY} | {task: OKABE_ITO[i % len(OKABE_ITO)] for i, task in enumerate(some)}


def size_axis(ax: Axes, sizes: Iterable[float], label: str, axis: str = "x") -> None:
    """A logarithmic axis with a tick at each size that the study has (at most eight are labeled)."""
    ticks = sorted(set(map(float, sizes)))
    if axis == "x":
        ax.set_xscale("log")
        ax.set_xlabel(label)
        this = ax.xaxis
    else:
        ax.set_yscale("log")
        ax.set_ylabel(label)
        this = ax.yaxis
    shown = ticks if len(ticks) <= 8 else ticks[:: -(-len(ticks) // 8)]
    this.set_major_locator(FixedLocator(shown))
    this.set_minor_locator(NullLocator())
    this.set_major_formatter(FuncFormatter(lambda value, _: names.size(value)))


def cost_axis(ax: Axes, values: Iterable[float], label: str) -> None:
    """A logarithmic x-axis of costs: ticks at 1, 10, 100 ..., and at 2 and 5 between them if it is short."""
    values = list(values)
    decades = math.log10(max(values) / min(values)) if min(values) > 0 else 9
    ax.set_xscale("log")
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2 else (1.0, 2.0, 5.0)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: names.size(value)))


def dodge(index: int, count: int, step: float = 0.03) -> float:
    """Factor that moves line `index` of `count` aside on a logarithmic axis, so that error bars stay apart."""
    return (1 + step) ** (index - (count - 1) / 2)


def mark_missing(ax: Axes, places: Iterable[float], color: Any) -> None:
    """A cross on the lower edge of the panel wherever a declared cell has no result."""
    at = list(places)
    if at:
        ax.plot(
            at, [0.02] * len(at), "x", color=color, transform=ax.get_xaxis_transform(), clip_on=False, gid="missing"
        )


def size_legend(
    fig: Figure, sizes: Iterable[int], missing: bool = False, markers: bool = True, more: Sequence[Line2D] = ()
) -> None:
    """One legend of pre-training sizes above all panels.

    Args:
        missing: explain the crosses of `mark_missing` too.
        markers: whether the lines of the figure carry markers.
        more: further entries.
    """
    title = "Pre-training images"
    sizes = sorted(set(sizes))
    colors, shapes = size_colors(sizes), size_markers(sizes)
    handles = [
        Line2D(
            [],
            [],
            color=colors[s],
            marker=shapes[s] if markers else "",
            label=names.size(s) if s else "0 (random start)",
        )
        for s in sizes
    ]
    if missing:
        handles.append(Line2D([], [], color=GREY, marker="x", linestyle="", label="no result yet"))
    handles += more
    head = Line2D([], [], linestyle="", label=f"{title}:")
    wide = fig.get_figwidth() > SINGLE
    columns = len(handles) + 1 if wide else 3
    if wide:
        fig.legend(handles=[head, *handles], loc="outside upper center", ncols=columns, columnspacing=1.2)
    else:
        fig.legend(handles=handles, title=title, loc="outside upper center", ncols=columns, columnspacing=1.2)


def save(fig: Figure, stem: Path, note: str = "") -> None:
    """Write `stem`.png and `stem`.pdf, the same bytes for the same data, and close the figure.

    Args:
        note: a word on the data that must travel with the figure, such as `procedural images`.
    """
    if note:
        engine = fig.get_layout_engine()
        height = 0.11 / fig.get_figheight()
        if engine is not None:
            engine.set(rect=(0, height, 1, 1 - height))
        fig.text(0.995, 0.04 / fig.get_figheight(), note, ha="right", va="bottom", fontsize=5.5, color=GREY, gid="note")
    stem.parent.mkdir(parents=True, exist_ok=True)
    undated = {".png": {"Software": None}, ".pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    for suffix, metadata in undated.items():
        path = stem.with_suffix(suffix)
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        fig.savefig(temporary, metadata=metadata)
        temporary.replace(path)
        fig.set_layout_engine("none")  # the places found for the first format serve for the second
    plt.close(fig)
