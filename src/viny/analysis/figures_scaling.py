"""Diminishing returns drawn: saturating fits, gain per doubling, the worth of pre-training in labels and compute."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from viny.analysis import names, style
from viny.analysis.figures_results import LABELED, MIOU
from viny.analysis.files import KEYS


def scaling_fits(summary: pd.DataFrame, curves: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """Measured mIoU (points) with fitted laws (lines) and their intervals (bands).

    Above against fine-tuning images, a line per pre-training size; below against pre-training images, a line per
    fine-tuning size; a panel per intermediate task. Solid: a saturating power law that the data determine. Dashed:
    they do not, and the line is growth by the same amount per doubling. No line: neither law describes the points.

    Args:
        summary: of `viny.analysis.summary.summarize`.
        curves: scaling_curves.csv.
        fits: scaling.csv.
    """
    tasks = list(dict.fromkeys(summary["intermediate"]))
    points = summary[summary["miou_percent"].notna()]
    axis_labels = {"downstream": LABELED, "pretrain": "Pre-training images"}
    axes_shown = [axis for axis in axis_labels if (points.loc[points[axis] > 0, axis]).nunique() > 1]
    if not axes_shown:
        return style.empty("A law of growth needs several sizes on an axis; the study has one of each.")
    fig, axes = style.panels(len(tasks) * len(axes_shown), columns=len(tasks), sharey=True)
    for ax, (axis, task) in zip(axes, [(axis, task) for axis in axes_shown for task in tasks], strict=True):
        other = "pretrain" if axis == "downstream" else "downstream"
        keys = sorted(set(summary[other]))
        colors = style.size_colors(keys) if other == "pretrain" else _label_colors(keys)
        markers = style.size_markers(keys)
        lines = curves[(curves["axis"] == axis) & (curves["intermediate"] == task)]
        for key in keys:
            here = points[(points["intermediate"] == task) & (points[other] == key) & (points[axis] > 0)]
            ax.errorbar(
                here[axis], here["miou_percent"], here["miou_se"].fillna(0), fmt=markers[key], color=colors[key],
                capsize=1.5, label=_start(key),
            )  # fmt: skip
            line = lines[lines[other] == key]
            if len(line):
                look = "-" if line["law"].iloc[0] == "power" else "--"
                ax.plot(line[axis], line["miou_percent"], look, color=colors[key], lw=1, gid=f"fit {axis} {key} {task}")
                ax.fill_between(line[axis], line["low"], line["high"], color=colors[key], alpha=0.15, linewidth=0)
        style.size_axis(ax, points.loc[points[axis] > 0, axis], axis_labels[axis])
        ax.set_ylabel(MIOU if task == tasks[0] else "")
        ax.set_title(names.panel(task, short=len(tasks) > 2))
        if task == tasks[-1]:
            ax.legend(title=axis_labels[other], loc="center left", bbox_to_anchor=(1.0, 0.5))
    determined = int(fits["determined"].astype(bool).sum())
    sentence = (
        f"saturation established in {determined} of {len(fits)} fits (solid lines); dashed: equal gain per doubling"
    )
    fig.suptitle(sentence, fontsize=6.5, color=style.GREY)
    return fig


def gain_per_doubling(doubling: pd.DataFrame) -> Figure:
    """mIoU gained by doubling the labels (left) and the pre-training images (right), at each step of the axis.

    Args:
        doubling: of `viny.analysis.scaling.gain_per_doubling`; a point stands in the geometric middle of its step.
            Cells with an intermediate task are left to doubling.csv, if there are others.
    """
    known = doubling[doubling["gain"].notna()]
    if known.empty:
        return style.empty("A gain per doubling needs at least two sizes on an axis; the study has no two measured.")
    fig, axes = style.panels(2, sharey=True)
    for ax, axis, label in zip(axes, ("downstream", "pretrain"), (LABELED, "Pre-training images"), strict=True):
        steps = known[(known["axis"] == axis) & (known["intermediate"] == "none")]
        steps = steps if len(steps) else known[known["axis"] == axis]
        # Doubling from nothing has no meaning, so the step from 0 has no place on a logarithmic axis.
        steps = steps[steps["from"] > 0]
        other = "pretrain" if axis == "downstream" else "downstream"
        keys = sorted(set(steps[other]))
        colors = style.size_colors(keys) if other == "pretrain" else _label_colors(keys)
        for index, key in enumerate(keys):
            line = steps[steps[other] == key].sort_values("from")
            middle = np.sqrt(line["from"] * line["to"]) * style.dodge(index, len(keys))
            errors = line["se"].fillna(0)
            ax.errorbar(
                middle, line["gain"], errors, color=colors[key], marker=style.MARKERS[index % 8], capsize=1.5,
                label=_start(key),
            )  # fmt: skip
        ax.axhline(0, color="black", linewidth=0.7, zorder=1)
        ax.set_ylabel("Gain per doubling (points of mIoU)")
        what = "labels" if axis == "downstream" else "pre-training images"
        ax.set_title(
            f"Doubling the {what}" + (", no intermediate task" if set(steps["intermediate"]) == {"none"} else "")
        )
        if steps.empty:
            ax.text(0.5, 0.5, "needs two sizes above 0", transform=ax.transAxes, ha="center", color=style.GREY)
            ax.set_xticks([])
            continue
        style.size_axis(ax, {*steps["from"], *steps["to"]}, label)
        ax.set_xlim(steps["from"].min() / 1.1, steps["to"].max() * 1.1)
        title = "Pre-training images" if other == "pretrain" else LABELED
        ax.legend(title=title, ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), columnspacing=1.0)
    style.outer_labels(axes)
    return fig


def effective_data(effective: pd.DataFrame) -> Figure:
    """How many labeled images a model without pre-training would need for the same mIoU.

    Points on the diagonal: pre-training is worth nothing. Arrows: beyond the measured sizes, only a bound is known.
    """
    known = effective[effective["equivalent"].notna() & (effective["pretrain"] > 0)]
    if known.empty:
        return style.empty(
            "The worth of pre-training in labels needs cells without pre-training at two or more fine-tuning sizes."
        )
    tasks = list(dict.fromkeys(known["intermediate"]))
    sizes = sorted(set(known["pretrain"]))
    colors, markers = style.size_colors(sizes), style.size_markers(sizes)
    fig, axes = style.panels(len(tasks), sharey=True)
    ticks = sorted(set(effective["downstream"]))
    for ax, task in zip(axes, tasks, strict=True):
        ax.plot(ticks, ticks, color="black", linewidth=0.7, linestyle=":", gid="diagonal")
        for index, size in enumerate(sizes):
            line = known[(known["intermediate"] == task) & (known["pretrain"] == size)].sort_values("downstream")
            at = line["downstream"] * style.dodge(index, len(sizes))
            exact = line["bound"].fillna("") == ""
            low = (line["equivalent"] - line["equivalent_low"]).clip(lower=0).fillna(0)
            high = (line["equivalent_high"] - line["equivalent"]).clip(lower=0)
            beyond = ~np.isfinite(high)
            high = high.where(~beyond, 0)
            ax.plot(at, line["equivalent"], color=colors[size], linewidth=0.8, alpha=0.6)
            ax.errorbar(
                at[exact], line["equivalent"][exact], [low[exact], high[exact]], fmt=markers[size], color=colors[size],
                capsize=1.5, elinewidth=0.8, gid=f"effective {size} {task}",
            )  # fmt: skip
            _arrows(ax, at[~exact], line[~exact], colors[size], markers[size])
        ax.set_ylim(ticks[0] / 1.6, ticks[-1] * 1.7)
        style.size_axis(ax, ticks, LABELED)
        style.size_axis(ax, ticks, "Worth in labels without pre-training", axis="y")
        ax.set_title(names.panel(task, short=len(tasks) > 2))
    style.outer_labels(axes)
    bound = Line2D([], [], color=style.GREY, marker="o", mfc="white", linestyle="", label="only a bound (arrow)")
    style.size_legend(fig, sizes, more=[bound] if (known["bound"].fillna("") != "").any() else [])
    return fig


def gain_against_compute(cells: pd.DataFrame) -> Figure:
    """mIoU against all image passes spent on a cell: pre-training, intermediate task and fine-tuning together.

    Each line joins the cells with the same labels, from a random start (left end) to the largest pre-training.
    A panel per intermediate task; below, the same for seconds of training, where they were measured.
    """
    costs = {"passes": "image_passes", "seconds": "train_seconds"}
    labels = {"passes": "Training images seen, all stages", "seconds": "Training time, all stages (s)"}
    totals = {}
    for unit, own in costs.items():
        parts = [own, f"pretrain_{unit}", f"intermediate_{unit}"]
        if all(part in cells for part in parts):
            total = cells[parts].sum(axis=1, skipna=False)
            if total.notna().any():
                totals[unit] = total
    if not totals:
        return style.empty("The cost of the cells was not recorded.")
    tasks = list(dict.fromkeys(cells["intermediate"]))
    fig, axes = style.panels(len(tasks) * len(totals), columns=len(tasks), sharey=True, sharex="row")
    levels = sorted(set(cells["downstream"]))
    colors = _label_colors(levels)
    for ax, (unit, task) in zip(axes, [(unit, task) for unit in totals for task in tasks], strict=True):
        means = cells.assign(total=totals[unit]).groupby(KEYS)[["total", "miou_percent"]].mean().dropna().reset_index()
        for level, line in means[means["intermediate"] == task].groupby("downstream"):
            ax.plot(line["total"], line["miou_percent"], "o-", color=colors[level], gid=f"{unit} {level} {task}")
        style.cost_axis(ax, means["total"], labels[unit])
        ax.set_ylabel(MIOU if task == tasks[0] else "")
        ax.set_title(names.panel(task, short=len(tasks) > 2))
    handles = [Line2D([], [], marker="o", color=colors[level], label=names.size(level)) for level in levels]
    wide = fig.get_figwidth() > style.SINGLE
    fig.legend(handles=handles, title=LABELED, loc="outside upper center", ncols=len(handles) if wide else 3)
    return fig


def _label_colors(levels: list[int]) -> dict[int, tuple]:
    """Colors of fine-tuning sizes: another map than that of pre-training sizes, since they are another thing."""
    import matplotlib as mpl

    places = [0.7] if len(levels) == 1 else np.linspace(0.35, 0.95, len(levels))
    return {level: mpl.colormaps["YlGnBu"](place) for level, place in zip(levels, places, strict=True)}


def _start(images: int) -> str:
    return names.size(images) if images else "0 (random start)"


def _arrows(ax: Axes, at: pd.Series, line: pd.DataFrame, color, marker: str) -> None:
    """Bounds: an open marker with an arrow up (worth more than the largest size measured) or down."""
    for x, bound, value in zip(at, line["bound"], line["equivalent"], strict=True):
        if not math.isfinite(value):
            continue
        ax.plot([x], [value], marker, color=color, mfc="white")
        ax.annotate(
            "", (x, value * (1.35 if bound == ">" else 1 / 1.35)), (x, value),
            arrowprops={"arrowstyle": "->", "color": color, "linewidth": 0.8},
        )  # fmt: skip
