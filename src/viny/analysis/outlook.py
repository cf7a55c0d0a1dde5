"""The figures of what is to be expected: forecasts against results, labels for a goal, loss against mIoU."""

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from viny.analysis import names, style
from viny.analysis.figures import MIOU
from viny.analysis.forecast import FROM_SMALL
from viny.analysis.heldout import ALL
from viny.analysis.names import LABELED, PRETRAINING


def forecasts(compared: pd.DataFrame) -> Figure:
    """Forecasts with their intervals against results (left), and errors in units of the interval (right).

    Filled: sealed before the run; open: from the smaller sizes of finished cells. Within the band the interval covers.
    """
    known = compared[compared["measured"].notna()]
    fig, (left, right) = plt.subplots(1, 2, figsize=(style.DOUBLE, style.HEIGHT + 0.35), layout="constrained")
    looks = style.looks("pretrain", sorted(set(known["pretrain"])))
    ends = [known[["measured", "low"]].min().min(), known[["measured", "high"]].max().max()]
    left.plot(ends, ends, gid="diagonal", **style.ZERO)
    right.axhspan(-1, 1, color="#e6e6e6", linewidth=0)
    right.axhline(0, **style.ZERO)
    sealed = known["made"] != FROM_SMALL
    place = {size: 1.02 ** (index - (len(looks) - 1) / 2) for index, size in enumerate(looks)}  # aside of each other
    for (size, before), rows in known.groupby(["pretrain", sealed]):
        look: dict[str, Any] = {**looks[size], "linestyle": "", **({} if before else {"mfc": "white"})}
        bars = [rows["predicted"] - rows["low"], rows["high"] - rows["predicted"]]
        left.errorbar(rows["measured"], rows["predicted"], bars, **look, **style.ERRORS)
        right.plot(rows["factor"] * place[size], rows["error_in_intervals"], **look)
    style.size_axis(right, known["factor"].round(2))
    right.set_xlim(known["factor"].min() / 1.3, known["factor"].max() * 1.3)
    right.set_ylim(*(sign * max(1.5, 1.1 * known["error_in_intervals"].abs().max()) for sign in (-1, 1)))
    left.set(xlabel=f"{MIOU}, result", ylabel=f"{MIOU}, forecast")
    right.set(xlabel="Size, times the largest known", ylabel="Error (half widths of the interval)")
    entries = style.handles(looks, names.from_size, linestyle="")
    for kind, fill, there in (("sealed", style.GREY, sealed.any()), ("from smaller sizes", "white", not sealed.all())):
        entries += [Line2D([], [], color=style.GREY, marker="o", ls="", mfc=fill, label=kind)] if there else []
    style.legend(fig, entries, PRETRAINING)
    return fig


def isoquants(needed: pd.DataFrame) -> Figure:
    """Labels against pre-training images at equal mIoU, with intervals; a panel per intermediate task.

    Above the dotted line no labels were measured. Arrows: beyond what was checked, or below the fewest labels.
    """
    sizes = sorted(set(needed["pretrain"]))
    used = [size for size in sizes if size > 0]
    step = used[1] / used[0] if len(used) > 1 else 4
    at = {size: size or used[0] / step for size in sizes}  # no pre-training stands a step left of the smallest size
    looks = style.looks("downstream", sorted(set(needed["goal"])))
    grid = style.panels(needed, "intermediate", names.panel, (PRETRAINING, f"{LABELED} needed"))
    for task, ax in grid.axes_dict.items():
        for index, (goal, look) in enumerate(looks.items()):
            rows = needed[(needed["intermediate"] == task) & (needed["goal"] == goal)].sort_values("pretrain")
            rows = rows.assign(at=rows["pretrain"].map(at) * 1.03 ** (index - (len(looks) - 1) / 2))
            known, color = rows[rows["bound"] == ""], look["color"]
            low = known["labels_low"].where(known["labels_low"] > 0, known["labels"])
            high = known["labels_high"].clip(upper=known["checked_to"])
            bars = [known["labels"] - low, high - known["labels"]]
            ax.errorbar(known["at"], known["labels"], bars, **{**look, **style.ERRORS, "linestyle": ""})
            trained = known[known["pretrain"] > 0]
            ax.plot(trained["at"], trained["labels"], color=color, linewidth=0.8, alpha=0.6)
            for row in rows.drop(known.index).itertuples():
                end = row.labels * (1.6 if row.bound == ">" else 1 / 1.6)
                ax.plot(row.at, row.labels, **{**look, "mfc": "white"})
                arrow = {"arrowstyle": "->", "color": color, "linewidth": 0.8}
                ax.annotate("", (row.at, end), (row.at, row.labels), arrowprops=arrow)
        style.size_axis(ax, at.values())
        ax.set_xticks(list(at.values()), [names.size(size) for size in sizes])
        ax.axhline(needed["measured_to"].max(), color=style.GREY, linewidth=0.7, linestyle=":", gid="measured")
        style.size_axis(ax, _round_sizes(needed["labels"]), axis="y")
        ax.set_ylim(needed["labels"].min() / 1.8, needed["labels"].max() * 1.8)
    style.legend(grid.figure, style.handles(looks, lambda goal: f"{goal:g}", linestyle=""), MIOU)
    return grid.figure


def heldout_loss(points: pd.DataFrame, correlations: pd.DataFrame) -> Figure:
    """mIoU of each encoder against its held-out pre-training loss, without intermediate task if there is a choice.

    A panel per number of labels, with the rank correlation over all encoders.
    """
    task = "none" if "none" in set(points["intermediate"]) else points["intermediate"].iloc[0]
    shown = points[points["intermediate"] == task]
    labels = ("Held-out pre-training loss", MIOU)
    said = correlations[(correlations["intermediate"] == task) & (correlations["among"] == ALL)].set_index("downstream")

    def title(size: int) -> str:
        row = said.loc[size]
        return f"{size:,} labels" + ("" if row["reason"] else f", rank correlation {row['correlation']:.2f}")

    grid = style.panels(shown, "downstream", title, labels, sharey=False)
    looks = style.looks("pretrain", sorted(set(points["pretrain"])))
    for size, ax in grid.axes_dict.items():
        for pretrain, rows in shown[shown["downstream"] == size].groupby("pretrain"):
            ax.plot(rows["pretrain_loss"], rows["miou_percent"], **{**looks[pretrain], "linestyle": ""})
    style.legend(grid.figure, style.handles(looks, linestyle=""), PRETRAINING)
    return grid.figure


def _round_sizes(values: pd.Series) -> list[float]:
    """1, 2, 5, 10, 20 ... from below the smallest to above the largest."""
    steps = [step * 10.0**power for power in range(12) for step in (1, 2, 5)]
    return [step for step in steps if values.min() / 2 <= step <= values.max() * 2]
