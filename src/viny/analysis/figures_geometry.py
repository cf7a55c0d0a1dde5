"""How an encoder arranges the patches of an image: similarity against distance, and heat maps.

    python -m viny.analysis.figures_geometry --similarity results/demo/similarity.csv \
        --maps RESULTS/geometry/.../similarity.npz ... --output results/demo/figures

Writes (PNG and PDF) similarity_by_distance and similarity_maps.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from viny import console
from viny.analysis import names, style
from viny.analysis.figures_images import Examples, load, one_seed
from viny.analysis.files import read_frame
from viny.errors import command

KINDS = ["background", "foreground", "border"]


def similarity_by_distance(similarity: pd.DataFrame) -> Figure:
    """Mean cosine similarity of two patch tokens against their Manhattan distance on the patch grid.

    One line per intermediate task, one panel per pre-training size; bars are standard errors over seeds.

    Args:
        similarity: similarity.csv: pretrain, intermediate, seed, distance, similarity.
    """
    if similarity.empty:
        return style.empty("No encoder's geometry was measured (geometry: enabled: false).")
    sizes = sorted(set(similarity["pretrain"]))
    tasks = sorted(set(similarity["intermediate"]), key=lambda task: (task != "none", task))
    colors = style.task_colors(tasks)
    fig, axes = style.panels(len(sizes), sharey=True, sharex=True)
    for ax, size in zip(axes, sizes, strict=True):
        for index, task in enumerate(tasks):
            here = similarity[(similarity["pretrain"] == size) & (similarity["intermediate"] == task)]
            if here.empty:
                continue
            line = here.groupby("distance")["similarity"].agg(["mean", "sem"])
            look = {"color": colors[task], "marker": style.MARKERS[index % 8]}
            ax.errorbar(line.index, line["mean"], line["sem"].fillna(0), capsize=1.5, **look)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        ax.set(
            xlabel="Manhattan distance (patches)", ylabel="Cosine similarity", title=f"Encoder: {names.encoder(size)}"
        )
    style.outer_labels(axes)
    handles = [
        plt.Line2D([], [], color=colors[t], marker=style.MARKERS[i % 8], label=names.task(t))
        for i, t in enumerate(tasks)
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=2 if len(axes) == 1 else 4)
    return fig


def similarity_maps(encoders: list[Examples]) -> Figure:
    """Cosine similarity of one reference patch (square) with all others; a row per encoder, three reference patches."""
    if not encoders:
        return style.empty("No encoder's geometry was measured (geometry: enabled: false).")
    columns = [kind for kind in KINDS if kind in set(encoders[0].arrays["kind"])]
    lowest = min(float(encoder.arrays["maps"].min()) for encoder in encoders)
    fig, axes = style.pictures(len(encoders), 2 * len(columns), right=0.6, top=0.2, bottom=0.12, caption=0.03)
    for encoder, row in zip(encoders, axes, strict=True):
        for column, kind in enumerate(columns):
            index = int(np.flatnonzero(encoder.arrays["kind"] == kind)[0])
            drawn = _pair(row[2 * column], row[2 * column + 1], encoder, index, lowest)
        row[0].set_ylabel(encoder.title, fontsize=6.5)
    for column, kind in enumerate(columns):
        axes[0][2 * column].set_title(f"{kind} patch", fontsize=6.5)
        axes[0][2 * column + 1].set_title("similarity", fontsize=6.5)
    place = axes[0][-1].get_position()
    width = fig.get_figwidth()
    bar = fig.colorbar(drawn, cax=fig.add_axes((place.x1 + 0.06 / width, place.y0, 0.08 / width, place.height)))
    bar.ax.tick_params(labelsize=6)
    bar.ax.grid(False)
    bar.set_label("cosine similarity", fontsize=6)
    return fig


def _pair(left: Axes, right: Axes, encoder: Examples, index: int, lowest: float) -> AxesImage:
    """One image and its map, the reference patch framed in both; one color scale for all."""
    image, grid = encoder.arrays["images"][index], encoder.arrays["maps"][index]
    patches = len(grid)
    y, x = divmod(int(encoder.arrays["reference"][index]), patches)
    style.picture(left, image)
    drawn = style.picture(right, grid, vmin=lowest, vmax=1, cmap="cividis")
    for ax, patch in ((left, len(image) / patches), (right, 1.0)):
        corner = (x * patch - 0.5, y * patch - 0.5)
        for width, color in ((2.0, "black"), (1.0, "white")):
            ax.add_patch(Rectangle(corner, patch, patch, fill=False, linewidth=width, edgecolor=color, gid="reference"))
    return drawn


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.figures_geometry",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--similarity", type=Path, required=True, help="similarity.csv of the study")
    parser.add_argument("--maps", type=Path, nargs="*", default=[], help="similarity.npz of the encoders to show")
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    similarity = read_frame(args.similarity, ["pretrain", "intermediate", "seed", "distance", "similarity"])
    style.save(similarity_by_distance(similarity), args.output / "similarity_by_distance", args.note)
    style.save(
        similarity_maps(one_seed([load(path) for path in args.maps])), args.output / "similarity_maps", args.note
    )
    console.say(f"2 figures of geometry in {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
