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
    """Write the sheet as PNG; an image with a mask is shown twice, without and with it."""
    colors = palette(len(classes))
    masked = any(tile.mask is not None for tile in tiles)
    rows, wide = math.ceil(len(tiles) / COLUMNS), COLUMNS * (2 if masked else 1)
    figure = Figure(figsize=(1.5 * wide, 1.75 * rows + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=9)
    axes = figure.subplots(rows, wide, squeeze=False)
    for each in axes.flat:
        each.axis("off")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        places = axes[row, 2 * column : 2 * column + 2] if masked else axes[row, column : column + 1]
        extent = (0, tile.aspect, 0, 1)
        for place in places:
            place.imshow(tile.image, extent=extent)
        places[0].set_title(tile.title, fontsize=6, loc="left", parse_math=False)
        if tile.mask is not None:
            places[-1].imshow(colored(tile.mask, colors), extent=extent, interpolation="nearest")
    if masked:
        shown = [Patch(color=colors[label], label=name) for label, name in enumerate(classes[:LISTED])]
        if len(classes) > LISTED:
            shown.append(Patch(color="none", label=f"and {len(classes) - LISTED} more"))
        if any(tile.mask is not None and (tile.mask == IGNORE).any() for tile in tiles):
            shown.append(Patch(facecolor="white", edgecolor="black", hatch="////", label="ignored"))
        legend = figure.legend(handles=shown, loc="outside lower center", ncols=min(len(shown), 8), fontsize=7)
        for text in legend.get_texts():
            text.set_parse_math(False)
    with warnings.catch_warnings(), replacing(path) as temporary:
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(temporary, format="png", dpi=110)


def colored(mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A mask as a half transparent picture, float (S, S, 4); what is ignored is white with black stripes."""
    lookup = np.ones((256, 4))
    lookup[: len(colors), :3] = colors
    lookup[:, 3] = 0.6
    picture = lookup[mask]
    rows, columns = np.indices(mask.shape)
    stripes = (mask == IGNORE) & ((rows + columns) * 24 // mask.shape[0] % 2 == 0)
    picture[stripes] = (0, 0, 0, 0.6)
    return picture


def palette(count: int) -> np.ndarray:
    """Colors (count, 3) that differ as much as so many can."""
    if count <= 10:
        return np.array(mpl.colormaps["tab10"].colors[:count])  # type: ignore[attr-defined]
    return mpl.colormaps["gist_rainbow"](np.linspace(0, 1, count))[:, :3]
