"""What the cells scored, and what each stage changed."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from viny.analysis import names, style

MIOU = "mIoU (%)"
POINTS = "Change in mIoU (points)"
LABELED = "Fine-tuning images"


def miou_by_size(summary: pd.DataFrame) -> Figure:
    """mIoU against fine-tuning images, one line per pre-training size, one panel per intermediate task.

    Args:
        summary: of `viny.analysis.summary.summarize`; error bars are standard errors over runs.
    """
    tasks = list(dict.fromkeys(summary["intermediate"]))
    fig, axes = style.panels(len(tasks), sharey=True)
    for ax, task in zip(axes, tasks, strict=True):
        panel = summary[summary["intermediate"] == task]
        _lines(ax, panel, "miou_percent", "miou_se", sizes=summary["pretrain"])
        style.size_axis(ax, summary["downstream"], LABELED)
        ax.set_ylabel(MIOU)
        if len(tasks) > 1:
            ax.set_title(names.panel(task, short=len(tasks) > 2))
    style.outer_labels(axes)
    style.size_legend(fig, summary["pretrain"], missing=bool(summary["miou_percent"].isna().any()))
    return fig


def change_by_intermediate(effects: pd.DataFrame) -> Figure:
    """Change of mIoU by each intermediate task, in pairs of runs with the same seed.

    Args:
        effects: of `viny.analysis.statistics.effects`; bars are the standard errors of the paired differences.
    """
    changes = effects[effects["family"] == "intermediate"]
    if changes["effect"].notna().sum() == 0:
        return style.empty("No cell has been run both with and without an intermediate task.")
    tasks = list(dict.fromkeys(changes["intermediate"]))
    fig, axes = style.panels(len(tasks), sharey=True)
    for ax, task in zip(axes, tasks, strict=True):
        panel = changes[changes["intermediate"] == task]
        _lines(ax, panel, "effect", "se", sizes=changes["pretrain"])
        _zero(ax)
        style.size_axis(ax, changes["downstream"], LABELED)
        ax.set_ylabel(POINTS)
        ax.set_title(f"{names.panel(task, short=len(tasks) > 2)}, against none")
    style.outer_labels(axes)
    style.size_legend(fig, changes["pretrain"], missing=bool(changes["effect"].isna().any()))
    return fig


def change_by_pretraining(effects: pd.DataFrame) -> Figure:
    """Change of mIoU by pre-training, against the same cell from a random start; one panel per intermediate task."""
    changes = effects[effects["family"] == "pretrain"]
    if changes["effect"].notna().sum() == 0:
        return style.empty("No cell has been run both with and without pre-training.")
    tasks = list(dict.fromkeys(changes.loc[changes["effect"].notna(), "intermediate"]))
    fig, axes = style.panels(len(tasks), sharey=True)
    for ax, task in zip(axes, tasks, strict=True):
        panel = changes[changes["intermediate"] == task]
        _lines(ax, panel, "effect", "se", sizes=changes["pretrain"])
        _zero(ax)
        style.size_axis(ax, changes["downstream"], LABELED)
        ax.set_ylabel(POINTS)
        if len(tasks) > 1:
            ax.set_title(names.panel(task, short=len(tasks) > 2))
    style.outer_labels(axes)
    style.size_legend(fig, changes["pretrain"], missing=bool(changes["effect"].isna().any()))
    return fig


def beside_paper(beside: pd.DataFrame) -> Figure:
    """Each cell's mIoU and the paper's, and their difference, for the cells that the paper has too.

    Args:
        beside: of `viny.analysis.published.beside_paper`.
    """
    rows = beside[(beside["metric"] == "miou") & beside["published"].notna() & beside["ours"].notna()]
    if rows.empty:
        return style.empty(
            "The study shares no measured cell with the paper's grid, so there is nothing to put beside it."
        )
    fig, (left, right) = style.panels(2)
    sizes, tasks = sorted(set(rows["pretrain"])), list(dict.fromkeys(rows["intermediate"]))
    colors, markers = style.size_colors(sizes), style.size_markers(sizes)
    ends = [rows[["ours", "published"]].min().min(), rows[["ours", "published"]].max().max()]
    left.plot(ends, ends, color="black", linewidth=0.7, zorder=1, gid="diagonal")
    for (size, task), line in rows.groupby(["pretrain", "intermediate"], sort=False):
        plain = task == "none"
        look = {"color": colors[size], "marker": markers[size], "mfc": colors[size] if plain else "white"}
        thin = {"elinewidth": 0.8, "capsize": 1.5}
        errors = line["published_se"], line["ours_se"].fillna(0)
        left.errorbar(line["published"], line["ours"], errors[1], errors[0], linestyle="", **look, **thin)
        at = line["downstream"] * style.dodge(sizes.index(size), len(sizes))
        error = line["combined_se"].fillna(line["published_se"])
        right.errorbar(at, line["difference"], error, linestyle="-" if plain else "--", **look, **thin)
    _zero(right)
    left.set(xlabel=f"{MIOU}, the paper", ylabel=f"{MIOU}, this study")
    right.set(ylabel="This study minus the paper (points)")
    style.size_axis(right, rows["downstream"], LABELED)
    after = [Line2D([], [], color=style.GREY, ls="--", marker="o", mfc="white", label="after an intermediate task")]
    style.size_legend(fig, sizes, more=after if tasks != ["none"] else [])
    return fig


def variants(compared: pd.DataFrame) -> Figure:
    """Difference of each variant to the study itself, one row per variant and one color per cell.

    Args:
        compared: of `viny.analysis.variants.compare`. Thick bars are standard errors, thin ones intervals.
    """
    cells = compared[compared["scope"] == "cell"]
    if cells["effect"].notna().sum() == 0:
        return style.empty("No cell has been run both in the study itself and in a variant.")
    order = list(dict.fromkeys(cells["variant"]))
    places = list(dict.fromkeys(_place(cells.sort_values(["pretrain", "intermediate", "downstream"]))))
    look = {place: (style.OKABE_ITO[i % 7], style.MARKERS[i % 8]) for i, place in enumerate(places)}
    height = 0.6 + len(order) * max(0.24, 0.08 * len(places)) + 0.15 * math.ceil(len(places) / 3)  # inches
    fig, ax = plt.subplots(figsize=(style.DOUBLE, height), layout="constrained")
    for row, variant in enumerate(order):
        own = cells[cells["variant"] == variant]
        for index, (place, cell) in enumerate(zip(_place(own), own.itertuples(), strict=True)):
            color, marker = look[place]
            y = row + min(0.22, 0.8 / len(own)) * (index - (len(own) - 1) / 2)
            if pd.isna(cell.effect):
                at = {"transform": ax.get_yaxis_transform(), "clip_on": False, "gid": "missing"}
                ax.plot([0.01], [y], "x", color=color, **at)
                continue
            ax.plot([cell.low, cell.high], [y, y], color=color, linewidth=0.8)
            ax.plot([cell.effect - cell.se, cell.effect + cell.se], [y, y], color=color, linewidth=2.2)
            ax.plot([cell.effect], [y], marker, color=color)
    ax.axvline(0, color="black", linewidth=0.7, zorder=1)
    ax.set_yticks(range(len(order)), [name.replace("_", " ") for name in order])
    ax.set_ylim(len(order) - 0.5, -0.5)
    ax.set_xlabel(f"{POINTS}, against the study itself")
    handles = [Line2D([], [], color=c, marker=m, linestyle="", label=place) for place, (c, m) in look.items()]
    if cells["effect"].isna().any():
        handles.append(Line2D([], [], color=style.GREY, marker="x", linestyle="", label="no result yet"))
    fig.legend(handles=handles, loc="outside upper center", ncols=3, columnspacing=1.2)
    return fig


def _place(cells: pd.DataFrame) -> list[str]:
    """A cell in words: `2k pre-training images, CLS-Intel, 250 labels`."""
    parts = []
    for pretrain, task, labels in cells[["pretrain", "intermediate", "downstream"]].itertuples(index=False):
        words = [f"{names.size(pretrain)} pre-training images", f"{names.size(labels)} labels"]
        words[1:1] = [] if task == "none" else [names.task(task, short=True)]
        parts.append(", ".join(words))
    return parts


def _lines(ax: Axes, panel: pd.DataFrame, value: str, error: str, sizes: pd.Series) -> None:
    """One line per pre-training size with error bars; crosses on the edge for cells without a result."""
    sizes = sorted(set(sizes))
    colors, markers = style.size_colors(sizes), style.size_markers(sizes)
    for index, size in enumerate(sizes):
        line = panel[panel["pretrain"] == size].sort_values("downstream")
        there = line[line[value].notna()]
        at = there["downstream"] * style.dodge(index, len(sizes))
        sns.lineplot(
            x=at, y=there[value], ax=ax, color=colors[size], marker=markers[size], mec=colors[size], legend=False
        )
        ax.errorbar(
            at, there[value], there[error].fillna(0), fmt="none", ecolor=colors[size], elinewidth=0.8, capsize=1.5
        )
        style.mark_missing(ax, line.loc[line[value].isna(), "downstream"], colors[size])


def _zero(ax: Axes) -> None:
    ax.axhline(0, color="black", linewidth=0.7, zorder=1)
