"""Training curves of every stage.

    python -m viny.analysis.figures_training --histories results/demo/histories.csv --output results/demo/figures

Writes training_pretrain, training_intermediate and training_finetune (PNG and PDF): the loss of each epoch, one thin
line per run; a stage that was not run says so.
"""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from viny import console
from viny.analysis import names, style
from viny.errors import command

LOSSES = {
    "pretrain": "Training loss (mean |error|)",
    "intermediate": "Training loss (cross-entropy)",
    "finetune": "Training loss (cross-entropy)",
}
PANEL = {"pretrain": "pretrain", "intermediate": "intermediate", "finetune": "downstream"}
MOST_PANELS = 6


def training_curves(histories: pd.DataFrame, stage: str) -> Figure:
    """Loss per epoch of all runs of one stage.

    Panels: pre-training shows all sizes in one, the intermediate stage one panel per task, fine-tuning one per
    number of labels (the smallest, the largest and evenly between, if there are more than six).
    """
    runs = histories[histories["stage"] == stage]
    if runs.empty:
        return style.empty(f"No {names.stage(stage).lower()} run has left a training curve.")
    keys = [None] if stage == "pretrain" else _some(list(dict.fromkeys(runs[PANEL[stage]])))
    fig, axes = style.panels(len(keys), height=1.9, sharey=True)
    sizes = sorted(set(runs["pretrain"]))
    colors = style.size_colors(sizes)
    for ax, key in zip(axes, keys, strict=True):
        panel = runs if key is None else runs[runs[PANEL[stage]] == key]
        for (size, task, _), run in panel.groupby(["pretrain", "intermediate", "seed"], dropna=False):
            dashed = stage == "finetune" and task != "none"
            ax.plot(
                run["epoch"],
                run["loss"],
                color=colors[size],
                linewidth=0.8,
                alpha=0.9,
                linestyle="--" if dashed else "-",
            )
        if panel["loss"].min() > 0 and panel["loss"].max() > 10 * panel["loss"].min():
            ax.set_yscale("log")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        ax.set(xlabel="Epoch", ylabel=LOSSES[stage])
        if key is not None:
            ax.set_title(names.task(key) if stage == "intermediate" else f"{names.size(key)} fine-tuning images")
    if stage == "finetune" and (runs["intermediate"] != "none").any():
        axes[0].plot([], [], "--", color=style.GREY, label="after an intermediate task")
        axes[0].legend()
    style.outer_labels(axes)
    style.size_legend(fig, sizes, markers=False)
    return fig


def _some(keys: list) -> list:
    """At most six of the sorted keys, always with the first and the last."""
    keys = sorted(keys)
    if len(keys) <= MOST_PANELS:
        return keys
    return [keys[round(i * (len(keys) - 1) / (MOST_PANELS - 1))] for i in range(MOST_PANELS)]


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.figures_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--histories", type=Path, required=True)
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    histories = pd.read_csv(args.histories)
    for stage in LOSSES:
        style.save(training_curves(histories, stage), args.output / f"training_{stage}", args.note)
    console.say(f"{len(LOSSES)} figures of training curves in {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
