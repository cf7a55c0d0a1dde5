"""Pictures of what the models do: example segmentations, failures, SimMIM reconstructions, maps of similarity."""

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from viny.analysis import names, style
from viny.errors import VinyError
from viny.grid import Job

# The paper's classes, which older files do not name, and their colors.
CLASSES = {"foreground": "#E69F00", "background": "#3b4a6b", "border": "#f2f2f2"}
IGNORE = 255  # in a mask: counts neither in the loss nor in the metrics
MOST_EXAMPLES, MOST_RECONSTRUCTIONS, MOST_CLASSES, MOST_MAPS = 4, 6, 24, 4
CLASS_COLUMNS = 5  # of a legend


@dataclass(frozen=True)
class Pictures:
    """The arrays that a job left behind for people to look at, and the job's coordinates."""

    place: Mapping[str, int | str]
    arrays: Mapping[str, np.ndarray]

    @property
    def title(self) -> str:
        """What tells an encoder from the others in a figure, in two short lines."""
        pretrain, task = self.place["pretrain"], str(self.place.get("intermediate", "none"))
        start = names.start(0, pretrain) if isinstance(pretrain, str) else names.start(pretrain)
        return start + (f"\n+ {names.task(task)}" if task != "none" else "")

    @property
    def classes(self) -> list[str]:
        """Names of the classes of the masks, in the order of their indices."""
        return [str(name) for name in self.arrays.get("classes", CLASSES)]


def figures(jobs: Collection[Job]) -> dict[str, Callable[[], Figure]]:
    """The figures that the finished jobs of a study have pictures for, by name: functions that draw them.

    Of several seeds, the first is shown, and of several numbers of labels the smallest. A job without its file of
    pictures is left out.
    """
    pretrained, cells, measured = (_with_pictures(jobs, stage) for stage in ("pretrain", "finetune", "geometry"))
    drawn: dict[str, Callable[[], Figure]] = {}
    if cells:
        shown = _one_each(cells)
        drawn |= {"examples": partial(segmentations, shown), "failures": partial(failures, shown)}
    if pretrained:
        drawn["reconstructions"] = partial(reconstructions, _one_each(pretrained))
    if measured:
        drawn["similarity_maps"] = partial(similarity_maps, _one_each(measured))
    return drawn


def load(path: Path, place: Mapping[str, int | str]) -> Pictures:
    """Read an examples.npz or similarity.npz; never unpickles.

    Raises:
        VinyError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return Pictures(place, {name: file[name] for name in file.files})
    except (ValueError, OSError, KeyError) as error:
        raise VinyError(f"{path} is damaged ({error}); delete its folder and run snakemake again") from None


def segmentations(cells: list[Pictures]) -> Figure:
    """The first test images in rows; input, truth and the prediction of each cell in columns."""
    cells = _comparable(cells)
    arrays, classes = cells[0].arrays, cells[0].classes
    chosen = np.flatnonzero(arrays["kind"] == "first")[:MOST_EXAMPLES]
    masks = [arrays["truth"][chosen], *(cell.arrays["prediction"][chosen] for cell in cells)]
    rows = [
        [arrays["images"][index], *(class_picture(mask[row], classes) for mask in masks)]
        for row, index in enumerate(chosen)
    ]
    fig, axes = _sheet(rows, titles=["input", "truth", *(cell.title for cell in cells)], legend=_legend(classes, masks))
    for row, index in zip(axes, chosen, strict=True):
        for ax, cell in zip(row[2:], cells, strict=True):
            _caption(ax, cell, index, "mIoU " * (len(cells) <= 7))
    return fig


def failures(cells: list[Pictures]) -> Figure:
    """Each cell's best, median and worst test image (by the image's own mIoU): input, truth, prediction."""
    kinds = ["best", "median", "worst"]
    titles = [title for kind in kinds for title in ("input", f"{kind}\ntruth", "prediction")]
    shown = [[int(np.flatnonzero(cell.arrays["kind"] == kind)[0]) for kind in kinds] for cell in cells]
    masks = [cell.arrays[name] for cell in cells for name in ("truth", "prediction")]
    rows: list[list[np.ndarray]] = []
    for cell, chosen in zip(cells, shown, strict=True):
        rows.append([])
        for index in chosen:
            drawn = [class_picture(cell.arrays[name][index], cell.classes) for name in ("truth", "prediction")]
            rows[-1] += [cell.arrays["images"][index], *drawn]
    fig, axes = _sheet(rows, titles, [cell.title for cell in cells], _legend(cells[0].classes, masks))
    for row, cell, chosen in zip(axes, cells, shown, strict=True):
        for ax, index in zip(row[1::3], chosen, strict=True):
            _caption(ax, cell, index)
    return fig


def reconstructions(encoders: list[Pictures]) -> Figure:
    """Held-out images in columns; input, masked input and the reconstruction of each encoder in rows."""
    encoders = _comparable(encoders)
    images, mask = encoders[0].arrays["images"], encoders[0].arrays["mask"]
    masked = np.where(mask[..., None], np.uint8(160), images)
    rows = [images, masked, *(encoder.arrays["reconstruction"] for encoder in encoders)]
    labels = ["input", "masked", *(encoder.title for encoder in encoders)]
    return _sheet([list(row[:MOST_RECONSTRUCTIONS]) for row in rows], labels=labels)[0]


def similarity_maps(encoders: list[Pictures]) -> Figure:
    """Cosine similarity of one reference patch (square) with all others; a row per encoder, few reference patches."""
    kinds = list(dict.fromkeys(encoders[0].arrays["kind"].tolist()))[:MOST_MAPS]
    encoders = [encoder for encoder in encoders if set(kinds) <= set(encoder.arrays["kind"].tolist())]
    lowest = min(float(encoder.arrays["maps"].min()) for encoder in encoders)
    color = ScalarMappable(Normalize(lowest, 1), "cividis")
    rows, frames = [], []
    for encoder in encoders:
        images, maps = encoder.arrays["images"], encoder.arrays["maps"]
        chosen = [int(np.flatnonzero(encoder.arrays["kind"] == kind)[0]) for kind in kinds]
        rows.append([picture for i in chosen for picture in (images[i], color.to_rgba(maps[i]))])
        for i in chosen:  # the reference patch: row and column, pixels a side in the image and in the map
            place, patches = int(encoder.arrays["reference"][i]), len(maps[i])
            frames += [(divmod(place, patches), side) for side in (len(images[i]) / patches, 1.0)]
    titles = [title for kind in kinds for title in (f"{kind} patch", "similarity")]
    fig, axes = _sheet(rows, titles, [encoder.title for encoder in encoders])
    for ax, ((y, x), side) in zip(axes.flat, frames, strict=True):
        for width, edge in ((2.0, "black"), (1.0, "white")):
            corner = (x * side - 0.5, y * side - 0.5)
            ax.add_patch(Rectangle(corner, side, side, fill=False, linewidth=width, edgecolor=edge, gid="reference"))
    bar = fig.colorbar(color, cax=axes[0, -1].inset_axes((1.08, 0, 0.1, 1)))
    bar.ax.tick_params(labelsize=6)
    bar.set_label("cosine similarity", fontsize=6)
    return fig


def class_picture(mask: np.ndarray, classes: list[str]) -> np.ndarray:
    """Class indices (H, W) as a picture (H, W, 3) in the colors of the classes; ignored pixels are white."""
    palette = np.vstack([_colors(classes), np.ones(3)])
    return palette[np.minimum(mask, len(classes))]


def _colors(classes: list[str]) -> np.ndarray:
    """(K, 3) colors, 0..1, of any number of classes."""
    if set(classes) <= CLASSES.keys():
        colors: Any = [CLASSES[name] for name in classes]
    elif len(classes) <= len(style.OKABE_ITO):
        colors = style.OKABE_ITO[: len(classes)]
    else:
        colors = sns.husl_palette(len(classes), s=0.75)
    return np.array([to_rgb(color) for color in colors])


def _legend(classes: list[str], masks: list[np.ndarray]) -> list[Patch]:
    """Entries for the classes that occur in the masks."""
    met = {int(value) for mask in masks for value in np.unique(mask)}
    named = [(name, color) for i, (name, color) in enumerate(zip(classes, _colors(classes), strict=True)) if i in met]
    named = named[:MOST_CLASSES] + ([("ignored", np.ones(3))] if IGNORE in met else [])
    return [Patch(facecolor=color, label=name, edgecolor=style.GREY, lw=0.4) for name, color in named]


def _sheet(
    rows: list[list[np.ndarray]], titles: Sequence[str] = (), labels: Sequence[str] = (), legend: Sequence[Patch] = ()
) -> tuple[Figure, np.ndarray]:
    """Small square pictures with titles above the columns and labels beside the rows, at most as wide as the page."""
    count, columns = len(rows), len(rows[0])
    crowded = columns > 9 and not labels  # titles would run into each other
    side = min(0.88, (style.DOUBLE - 0.3) / columns)  # inches
    height = count * (side + 0.12 * bool(titles)) + 0.3 * bool(titles) + 0.75 * crowded
    height += 0.15 * math.ceil(len(legend) / CLASS_COLUMNS)
    size = (columns * side + 0.3, height)
    layout = ConstrainedLayoutEngine(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    fig, axes = plt.subplots(count, columns, figsize=size, squeeze=False, layout=layout)
    for ax, pixels in zip(axes.flat, itertools.chain(*rows), strict=True):
        ax.imshow(pixels)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, linewidth=0.3, color=style.GREY)
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=6.5, rotation=90 * crowded)
    for ax, label in zip(axes[:, 0], labels, strict=False):
        ax.set_ylabel(label, fontsize=6.5)
    if legend:
        fig.legend(handles=legend, loc="outside lower center", ncols=CLASS_COLUMNS, handlelength=1)
    return fig, axes


def _caption(ax: Axes, cell: Pictures, index: int, words: str = "mIoU ") -> None:
    """The image's own mIoU below it."""
    ax.set_xlabel(f"{words}{100 * cell.arrays['iou'][index]:.0f} %", labelpad=2, fontsize=6)


def _with_pictures(jobs: Collection[Job], stage: str) -> list[Job]:
    """Jobs of a stage that left pictures, least pre-training first, encoders that were not trained here last."""

    def order(job: Job) -> tuple[Any, ...]:
        at = job.coordinates
        pretrain, task = at["pretrain"], at.get("intermediate", "none")
        return isinstance(pretrain, str), pretrain, task != "none", task, at.get("downstream", 0)

    return sorted((job for job in jobs if job.stage == stage and _file(job).is_file()), key=order)


def _one_each(jobs: list[Job]) -> list[Pictures]:
    """The pictures of the first job alone of each encoder."""
    kept: dict[tuple, Job] = {}
    for job in jobs:
        kept.setdefault((job.coordinates["pretrain"], job.coordinates.get("intermediate")), job)
    return [load(_file(job), job.coordinates) for job in kept.values()]


def _file(job: Job) -> Path:
    return job.checkpoint if job.stage == "geometry" else job.folder / "examples.npz"


def _comparable(found: list[Pictures]) -> list[Pictures]:
    """Those whose first images (and masks) are the very same as the first's; others cannot stand in the same row."""

    def given(pictures: Pictures) -> list[np.ndarray]:
        arrays = pictures.arrays
        first = arrays["kind"] == "first" if "kind" in arrays else slice(None)
        return [arrays[key][first] for key in ("images", "mask") if key in arrays]

    first = given(found[0])
    return [other for other in found if all(map(np.array_equal, given(other), first))]
