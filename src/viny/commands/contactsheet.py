"""A contact sheet of a data set: images with their masks over them and a legend, or with their classes."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from viny.datasets.store import IGNORE
from viny.files import replacing

COLUMNS = 4
PIXELS = 256  # of the decoded images
LISTED = 24  # classes in the legend


class Tile(NamedTuple):
    """An image uint8 (S, S, 3), its mask uint8 (S, S) or None, width / height as it is shown, and its title."""

    image: np.ndarray
    mask: np.ndarray | None
    aspect: float
    title: str


def draw(tiles: Sequence[Tile], classes: Sequence[str], title: str, path: Path) -> None:
    """Write the sheet as PNG; an image with a mask is shown twice, without and with it.

    Args:
        classes: of the masks; empty without masks.
    """
    colors = np.ones((256, 4))  # of what is ignored: white
    colors[: len(classes)] = mpl.colormaps["tab10" if len(classes) <= 10 else "gist_rainbow"](
        np.arange(len(classes)) if len(classes) <= 10 else np.linspace(0, 1, len(classes))
    )
    rows, wide = math.ceil(len(tiles) / COLUMNS), 2 if classes else 1
    figure = Figure(figsize=(1.5 * wide * COLUMNS, 1.75 * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, wide * COLUMNS, squeeze=False)
    for each in axes.flat:
        each.axis("off")
    for tile, places in zip(tiles, axes.reshape(-1, wide), strict=False):
        for place in places:
            place.imshow(tile.image, extent=(0, tile.aspect, 0, 1))
        places[0].set_title(tile.title, fontsize=6, loc="left", parse_math=False)
        if tile.mask is not None:
            places[-1].imshow(colors[tile.mask], extent=(0, tile.aspect, 0, 1), interpolation="nearest", alpha=0.6)
    if classes:
        shown = [Patch(color=colors[label], label=name) for label, name in enumerate(classes[:LISTED])]
        if len(classes) > LISTED:
            shown.append(Patch(color="none", label=f"and {len(classes) - LISTED} more"))
        if any(tile.mask is not None and (tile.mask == IGNORE).any() for tile in tiles):
            shown.append(Patch(facecolor="white", edgecolor="black", label="ignored"))
        legend = figure.legend(handles=shown, loc="outside lower center", ncols=min(len(shown), 8), fontsize=7)
        for text in legend.get_texts():
            text.set_parse_math(False)
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(temporary, format="png", dpi=110)
