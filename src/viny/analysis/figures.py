"""The figures that are drawn from tables, by the names of the CSV files that they take."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from viny.analysis import names, style
from viny.analysis.frames import KEYS
from viny.analysis.names import LABELED, PRETRAINING
from viny.analysis.scaling import bare_steps
from viny.analysis.summary import against_compute, tasks

MIOU = "mIoU (%)"
POINTS = "Change in mIoU (points)"
LOSSES = {
    "pretrain": "Training loss (mean |error|)",
    "intermediate": "Training loss (cross-entropy)",
    "finetune": "Training loss (cross-entropy)",
}
MOST_PANELS = 6
AXES = {"downstream": LABELED, "pretrain": PRETRAINING}
OTHER = {"downstream": "pretrain", "pretrain": "downstream"}
BLIND_LOOKS: dict[str, dict[str, Any]] = {
    "position": {"label": "position only", "linestyle": "-.", "color": style.GREY, "linewidth": 0.8},
    "majority": {"label": "majority class", "linestyle": ":", "color": style.GREY, "linewidth": 0.8},
}
COSTS = {"samples": "Training images seen, all stages", "seconds": "Training time, all stages (s)"}


def miou_by_size(summary: pd.DataFrame) -> Figure:
    """mIoU against fine-tuning images, one line per pre-training size, one panel per intermediate task.

    Error bars are standard errors over runs. Encoders that were not trained here are dotted lines, predictions that see
    no image grey ones.
    """
    return _by_size(summary, "miou_percent", "miou_se", MIOU)


def change_by(family: str, effects: pd.DataFrame) -> Figure:
    """What a stage changes, cell by cell, with standard errors: `pretrain` or `intermediate` of effects.csv."""
    changes = effects[effects["family"] == family]
    if changes["effect"].isna().all():
        stage = {"pretrain": "pre-training", "intermediate": "an intermediate task"}[family]
        return style.empty(f"No cell has been run both with and without {stage}.")
    measured = changes.groupby("intermediate")["effect"].transform("count") > 0
    fig = _by_size(changes[measured | (family == "intermediate")], "effect", "se", POINTS)
    for ax in fig.axes:
        ax.axhline(0, **style.ZERO)
    return fig


def _by_size(frame: pd.DataFrame, value: str, error: str, label: str) -> Figure:
    others = frame[frame["encoder"] != ""] if "encoder" in frame else frame[:0].assign(encoder="")
    sizes = frame.drop(others.index)
    styles = style.looks("pretrain", sorted(set(sizes["pretrain"])))
    external = style.looks("encoder", others["encoder"])
    blind = {f"{name}_{value}": look for name, look in BLIND_LOOKS.items() if f"{name}_{value}" in frame}
    chance = frame.groupby("downstream")[list(blind)].first()
    grid = style.panels(frame, "intermediate", names.panel, (LABELED, label))
    for task, ax in grid.axes_dict.items():
        for rows, hue, looks, line in ((sizes, "pretrain", styles, "-"), (others, "encoder", external, ":")):
            panel = rows[rows["intermediate"] == task]
            style.error_lines(ax, panel, "downstream", value, error, hue, looks, linestyle=line)
        for name, look in blind.items():
            ax.plot(chance.index, chance[name], gid=name, **look)
        style.size_axis(ax, frame["downstream"])
    entries = style.handles(styles, names.from_size) + style.handles(external, str, linestyle=":")
    entries += [Line2D([], [], **look) for look in blind.values()]
    style.legend(grid.figure, entries, PRETRAINING, missing=frame[value].isna().any())
    return grid.figure


def beside_paper(beside: pd.DataFrame) -> Figure:
    """Each cell's mIoU and the paper's, and their difference, for the cells that the paper has too."""
    rows = beside[(beside["metric"] == "miou") & beside["published"].notna()]
    if rows["ours"].isna().all():
        return style.empty(
            "The study shares no measured cell with the paper's grid, so there is nothing to put beside it."
        )
    fig, (left, right) = plt.subplots(1, 2, figsize=(style.DOUBLE, style.HEIGHT + 0.35), layout="constrained")
    styles = style.looks("pretrain", sorted(set(rows["pretrain"])))
    ends = [rows[["ours", "published"]].min().min(), rows[["ours", "published"]].max().max()]
    left.plot(ends, ends, gid="diagonal", **style.ZERO)
    right.axhline(0, **style.ZERO)
    rows = rows.assign(error=rows["combined_se"].fillna(rows["published_se"]))
    for task, lines in rows.groupby("intermediate", sort=False):
        look: dict[str, Any] = {} if task == "none" else {"mfc": "white", "linestyle": "--"}
        for size, line in lines.groupby("pretrain"):
            bars = {"xerr": line["published_se"], "yerr": line["ours_se"].fillna(0), **style.ERRORS}
            left.errorbar(line["published"], line["ours"], **{**bars, **styles[size], **look, "linestyle": ""})
        style.error_lines(right, lines, "downstream", "difference", "error", "pretrain", styles, **look)
    style.size_axis(right, rows["downstream"])
    left.set(xlabel=f"{MIOU}, the paper", ylabel=f"{MIOU}, this study")
    right.set(xlabel=LABELED, ylabel="This study minus the paper (points)")
    entries = style.handles(styles, names.from_size)
    if (rows["intermediate"] != "none").any():
        entries += [Line2D([], [], color=style.GREY, ls="--", marker="o", mfc="white", label="after a task")]
    style.legend(fig, entries, PRETRAINING, missing=rows["ours"].isna().any())
    return fig


def variants(compared: pd.DataFrame) -> Figure:
    """Difference of each variant to the study itself, one row per variant and one color per cell.

    Thick bars are standard errors, thin ones intervals.
    """
    cells = compared[compared["scope"] == "cell"]
    if cells["effect"].isna().all():
        return style.empty("No cell has been run both in the study itself and in a variant.")
    places = [" / ".join(names.place(*cell)) for cell in cells[KEYS].values]
    order, looks = list(dict.fromkeys(compared["variant"])), style.looks("cell", places)
    height = 0.75 + len(order) * max(0.24, 0.08 * len(looks)) + 0.15 * math.ceil(len(looks) / 2)  # inches
    fig, ax = plt.subplots(figsize=(style.DOUBLE, height), layout="constrained")
    for row, variant in enumerate(order):
        own = cells.assign(place=places)[cells["variant"] == variant]
        for index, cell in enumerate(own.itertuples()):
            look = looks[cell.place]
            y = row + min(0.22, 0.8 / len(own)) * (index - (len(own) - 1) / 2)
            if pd.isna(cell.effect):
                edge: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "clip_on": False, "gid": "missing"}
                ax.plot([0.01], [y], "x", color=look["color"], **edge)
                continue
            ax.plot([cell.low, cell.high], [y, y], color=look["color"], linewidth=0.8)
            ax.errorbar(cell.effect, y, xerr=cell.se, **look, elinewidth=2.2)
    ax.axvline(0, **style.ZERO)
    ax.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel(f"{POINTS}, against the study itself")
    title = f"{PRETRAINING} / task / {LABELED.lower()}"
    style.legend(fig, style.handles(looks, str, linestyle=""), title, cells["effect"].isna().any(), columns=2)
    return fig


def training_curves(histories: pd.DataFrame, stage: str) -> Figure:
    """Loss per epoch of all runs of one stage.

    Panels: pre-training shows all sizes in one, the intermediate stage one panel per task, fine-tuning one per
    number of labels (the smallest, the largest and evenly between, if there are more than six).
    """
    runs = histories[histories["stage"] == stage]
    if runs.empty:
        return style.empty(f"No {names.stage(stage).lower()} run has left a training curve.")
    runs = runs.sort_values(["encoder", "pretrain"], kind="stable")
    panel = {"pretrain": "stage", "intermediate": "intermediate", "finetune": "downstream"}[stage]
    every = sorted(set(runs[panel]))
    chosen = [every[i] for i in np.linspace(0, len(every) - 1, min(len(every), MOST_PANELS)).round().astype(int)]
    after = runs["intermediate"].fillna("none").ne("none") & (stage == "finetune")
    own = runs["encoder"] == ""
    runs = runs.assign(after=after, start=runs["pretrain"].map(names.from_size).where(own, runs["encoder"]))
    looks = {names.from_size(size): look for size, look in style.looks("pretrain", runs.loc[own, "pretrain"]).items()}
    looks |= style.looks("encoder", runs.loc[~own, "encoder"])
    say = {
        "pretrain": lambda _: "",
        "intermediate": names.task,
        "finetune": lambda n: f"{names.size(n)} {LABELED.lower()}",
    }
    grid = style.panels(runs, panel, say[stage], ("Epoch", LOSSES[stage]), height=1.9, col_order=chosen)
    for key, ax in grid.axes_dict.items():
        here = runs[runs[panel] == key]
        for (start, dashed, *_), run in here.groupby(["start", "after", "intermediate", "seed"], dropna=False):
            line = "--" if dashed else "-"
            ax.plot(run["epoch"], run["loss"], line, color=looks[start]["color"], linewidth=0.8, alpha=0.9)
        if here["loss"].min() > 0 and here["loss"].max() > 10 * here["loss"].min():
            ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    entries = style.handles(looks, str, marker="")
    if after.any():
        entries.append(Line2D([], [], color=style.GREY, ls="--", label="after an intermediate task"))
    style.legend(grid.figure, entries, PRETRAINING)
    return grid.figure


def similarity_by_distance(similarity: pd.DataFrame) -> Figure:
    """Mean cosine similarity of two patch tokens against their Manhattan distance on the patch grid.

    One line per intermediate task, one panel per encoder; bars are standard errors over seeds.
    """
    if similarity.empty:
        return style.empty("No encoder's geometry was measured (geometry: enabled: false).")
    similarity = similarity.sort_values(["encoder", "pretrain"], kind="stable")
    starts = [names.start(*at) for at in similarity[["pretrain", "encoder"]].itertuples(index=False)]
    groups = similarity.assign(start=starts).groupby(["start", "intermediate", "distance"], sort=False)
    curves = groups["similarity"].agg(["mean", "sem"]).astype(float).reset_index()
    looks = style.looks("intermediate", tasks(similarity))
    labels = ("Manhattan distance (patches)", "Cosine similarity")
    grid = style.panels(curves, "start", lambda start: f"Encoder: {start}", labels)
    for start, ax in grid.axes_dict.items():
        style.error_lines(
            ax, curves[curves["start"] == start], "distance", "mean", "sem", "intermediate", looks, step=0
        )
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    style.legend(grid.figure, style.handles(looks, names.task))
    return grid.figure


def scaling_fits(summary: pd.DataFrame, curves: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """Measured mIoU (points) with fitted laws (lines) and their intervals (bands).

    Above against fine-tuning images, a line per pre-training size; below against pre-training images, a line per
    fine-tuning size; a panel per intermediate task. Solid: a saturating power law that the data determine. Dashed:
    they do not, and the line is growth by the same amount per doubling. No line: neither law describes the points.
    """
    points = summary[summary["miou_percent"].notna()]
    shown = [axis for axis in AXES if points.loc[points[axis] > 0, axis].nunique() > 1]
    if not shown:
        return style.empty("A law of growth needs several sizes on an axis; the study has one of each.")
    points = pd.concat([points[points[axis] > 0].assign(axis=axis) for axis in shown])
    grid = style.panels(points, "intermediate", names.panel, ("", MIOU), row="axis", sharex="row")
    for (axis, task), ax in grid.axes_dict.items():
        other = OTHER[axis]
        looks = style.looks(other, sorted(set(summary[other])))
        here = points[(points["axis"] == axis) & (points["intermediate"] == task)]
        lines = curves[(curves["axis"] == axis) & (curves["intermediate"] == task)]
        style.error_lines(ax, here, axis, "miou_percent", "miou_se", other, looks, step=0, linestyle="")
        for key, line in lines.groupby(other):
            law, color = "-" if line["law"].iloc[0] == "power" else "--", looks[key]["color"]
            ax.plot(line[axis], line["miou_percent"], law, color=color, lw=1, gid=f"fit {axis} {key} {task}")
            ax.fill_between(line[axis], line["low"], line["high"], color=color, alpha=0.15, linewidth=0)
        style.size_axis(ax, points.loc[points["axis"] == axis, axis])
        ax.set_xlabel(AXES[axis])
        if ax in grid.axes[:, -1]:
            entries = style.handles(looks, names.from_size, linestyle="")
            ax.legend(handles=entries, title=AXES[other], loc="center left", bbox_to_anchor=(1.0, 0.5))
    sentence = f"saturation established in {int(fits['determined'].sum())} of {len(fits)} fits (solid lines)"
    grid.figure.suptitle(f"{sentence}; dashed: equal gain per doubling", fontsize=6.5, color=style.GREY)
    return grid.figure


def gain_per_doubling(doubling: pd.DataFrame) -> Figure:
    """mIoU gained by doubling the labels (left) and the pre-training images (right), at each step of the axis.

    A point stands in the geometric middle of its step. Cells with an intermediate task are left to doubling.csv, if
    there are others.
    """
    known = bare_steps(doubling)
    if known.empty:
        return style.empty("A gain per doubling needs at least two sizes on an axis; the study has no two measured.")
    known = known.assign(middle=np.sqrt(known["from"].astype(float) * known["to"].astype(float)))
    titles = {"downstream": "Doubling the labels", "pretrain": "Doubling the pre-training images"}
    labels = ("", "Points of mIoU per doubling")
    order = [axis for axis in AXES if axis in set(known["axis"])]
    grid = style.panels(known, "axis", titles.__getitem__, labels, col_order=order, sharex=False)
    for axis, ax in grid.axes_dict.items():
        steps, other = known[known["axis"] == axis], OTHER[axis]
        looks = style.looks(other, sorted(set(doubling.loc[doubling["axis"] == axis, other])))
        style.error_lines(ax, steps, "middle", "gain", "se", other, looks)
        ax.axhline(0, **style.ZERO)
        if (steps["intermediate"] == "none").all():
            ax.set_title(f"{titles[axis]}, no intermediate task")
        style.size_axis(ax, {*steps["from"], *steps["to"]})
        ax.set(xlim=(steps["from"].min() / 1.1, steps["to"].max() * 1.1), xlabel=AXES[axis])
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "columnspacing": 1.0, "ncols": 6}
        entries = style.handles(looks, names.from_size) + style.crosses(steps["gain"].isna().any())
        ax.legend(handles=entries, title=AXES[other], **below)
    return grid.figure


def effective_data(effective: pd.DataFrame) -> Figure:
    """How many labeled images a model without pre-training would need for the same mIoU.

    Points on the diagonal: pre-training is worth nothing. Arrows: beyond the measured sizes, only a bound is known, and
    no line joins it.
    """
    known = effective[effective.groupby("intermediate")["equivalent"].transform("count") > 0]
    if known.empty:
        return style.empty(
            "The worth of pre-training in labels needs cells without pre-training at two or more fine-tuning sizes."
        )
    looks = style.looks("pretrain", sorted(set(known["pretrain"])))
    ticks = sorted(set(effective["downstream"]))
    labels = (LABELED, "Worth in labels without pre-training")
    grid = style.panels(known, "intermediate", names.panel, labels)
    for task, ax in grid.axes_dict.items():
        ax.plot(ticks, ticks, color="black", linewidth=0.7, linestyle=":", gid="diagonal")
        for index, (size, look) in enumerate(looks.items()):
            line = known[(known["intermediate"] == task) & (known["pretrain"] == size)].sort_values("downstream")
            line = line.assign(at=line["downstream"] * 1.03 ** (index - (len(looks) - 1) / 2))
            exact = line[line["bound"].fillna("") == ""]
            joined = line["equivalent"].where(line.index.isin(exact.index))
            ax.plot(line["at"], joined, color=look["color"], linewidth=0.8, alpha=0.6)
            ends = [exact["equivalent"] - exact["equivalent_low"], exact["equivalent_high"] - exact["equivalent"]]
            bars = [end.replace(np.inf, np.nan).clip(lower=0).fillna(0) for end in ends]
            gid = f"effective {size} {task}"
            ax.errorbar(exact["at"], exact["equivalent"], bars, **{**look, **style.ERRORS, "linestyle": "", "gid": gid})
            for point in line.drop(exact.index).dropna(subset="equivalent").itertuples():
                ax.plot(point.at, point.equivalent, **look, mfc="white")
                end = point.equivalent * (1.35 if point.bound == ">" else 1 / 1.35)
                arrow = {"arrowstyle": "->", "color": look["color"], "linewidth": 0.8}
                ax.annotate("", (point.at, end), (point.at, point.equivalent), arrowprops=arrow)
        ax.set_ylim(ticks[0] / 1.6, ticks[-1] * 1.7)
        style.size_axis(ax, ticks)
        style.size_axis(ax, ticks, axis="y")
    entries = style.handles(looks, names.from_size)
    if known["bound"].fillna("").ne("").any():
        entries += [Line2D([], [], color=style.GREY, marker="o", mfc="white", ls="", label="only a bound (arrow)")]
    style.legend(grid.figure, entries, PRETRAINING)
    return grid.figure


def gain_against_compute(cells: pd.DataFrame) -> Figure:
    """mIoU against all that was spent on a cell: pre-training, intermediate task and fine-tuning together.

    Each line joins the cells with the same labels, from a random start (left end) to the largest pre-training.
    A panel per intermediate task; above images seen, below seconds of training, where they were measured.
    """
    points = against_compute(cells)
    if points.empty:
        return style.empty("The cost of the cells was not recorded.")
    looks = style.looks("downstream", sorted(set(cells["downstream"])))
    grid = style.panels(points, "intermediate", names.panel, ("", MIOU), row="unit", sharex="row")
    for (unit, task), ax in grid.axes_dict.items():
        here = points[points["unit"] == unit]
        for level, line in here[here["intermediate"] == task].groupby("downstream"):
            gid = f"{unit} {level} {task}"
            ax.plot(line["cost"], line["miou_percent"], "o-", color=looks[level]["color"], gid=gid)
        style.cost_axis(ax, here["cost"])
        ax.set_xlabel(COSTS[unit])
    style.legend(grid.figure, style.handles(looks, marker="o"), LABELED)
    return grid.figure
