"""Pictures of what the models do: example segmentations, failures and SimMIM reconstructions.

    python -m viny.analysis.figures_images --cells RESULTS/finetune/.../examples.npz ... \
        --encoders RESULTS/pretrain/.../examples.npz ... --output results/demo/figures

Writes (PNG and PDF): `examples` (the same test images through several cells), `failures` (best, median and worst image
of each), `reconstructions` (the same held-out images through encoders of each size) and, per encoder,
`reconstructions/pretrain=N_seed=S`. What a file belongs to is read from its path (`pretrain=45000/seed=1`).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from viny import console
from viny.analysis import names, style
from viny.errors import VinyError, command

CLASSES = ["foreground", "background", "border"]
MOST_EXAMPLES = 4
MOST_RECONSTRUCTIONS = 6


@dataclass
class Examples:
    """The arrays of one examples.npz and the coordinates of the job that wrote it."""

    place: dict[str, str]
    arrays: dict[str, np.ndarray]

    @property
    def pretrain(self) -> int:
        """Number of pre-training images."""
        return int(self.place["pretrain"])

    @property
    def title(self) -> str:
        """What tells a cell from the others in a figure, in two short lines."""
        start = f"{names.size(self.pretrain)} images" if self.pretrain else "random start"
        task = self.place.get("intermediate", "none")
        return start + (f"\n+ {names.task(task, short=True)}" if task != "none" else "")


def load(path: Path) -> Examples:
    """Read an examples.npz or similarity.npz; never unpickles.

    Raises:
        VinyError: not there, damaged, or not below a folder named like `pretrain=45000`.
    """
    place = dict(part.split("=", 1) for part in path.parts if "=" in part)
    if "pretrain" not in place:
        raise VinyError(f"{path} does not say what it belongs to; expected a path with a folder like pretrain=45000")
    try:
        with np.load(path, allow_pickle=False) as file:
            return Examples(place, {name: file[name] for name in file.files})
    except FileNotFoundError:
        raise VinyError(f"{path} does not exist; run snakemake to make it") from None
    except (ValueError, OSError) as error:
        raise VinyError(f"{path} is damaged ({error}); delete its folder and run snakemake again") from None


def segmentations(cells: list[Examples]) -> Figure:
    """The first test images in rows; input, truth and the prediction of each cell in columns."""
    cells = _comparable(cells)
    if not cells:
        return style.empty("No cell has left example segmentations.")
    chosen = np.flatnonzero(cells[0].arrays["kind"] == "first")[:MOST_EXAMPLES]
    crowded = len(cells) > 7  # their titles would run into each other
    fig, axes = style.pictures(len(chosen), 2 + len(cells), left=0.05, top=0.95 if crowded else 0.3, bottom=0.45)
    for row, index in zip(axes, chosen, strict=True):
        arrays = cells[0].arrays
        style.picture(row[0], arrays["images"][index])
        style.picture(row[1], class_picture(arrays["truth"][index]))
        for ax, cell in zip(row[2:], cells, strict=True):
            style.picture(ax, class_picture(cell.arrays["prediction"][index]))
            ax.set_xlabel(f"mIoU {100 * cell.arrays['iou'][index]:.0f} %", labelpad=2, fontsize=6)
    for ax, title in zip(axes[0], ["input", "truth", *(cell.title for cell in cells)], strict=True):
        ax.set_title(title, fontsize=6.5, rotation=90 * crowded)
    _class_legend(fig)
    return fig


def failures(cells: list[Examples]) -> Figure:
    """Each cell's best, median and worst test image (by the image's own mIoU): input, truth, prediction."""
    kinds = ["best", "median", "worst"]
    if not cells:
        return style.empty("No cell has left example segmentations.")
    fig, axes = style.pictures(len(cells), 3 * len(kinds), bottom=0.45)
    for row, cell in zip(axes, cells, strict=True):
        for column, kind in enumerate(kinds):
            trio = row[3 * column : 3 * column + 3]
            found = np.flatnonzero(cell.arrays["kind"] == kind)
            if not len(found):
                for ax in trio:
                    ax.set_axis_off()
                continue
            index = found[0]
            style.picture(trio[0], cell.arrays["images"][index])
            style.picture(trio[1], class_picture(cell.arrays["truth"][index]))
            style.picture(trio[2], class_picture(cell.arrays["prediction"][index]))
            trio[1].set_xlabel(f"mIoU {100 * cell.arrays['iou'][index]:.0f} %", labelpad=2, fontsize=6)
        row[0].set_ylabel(cell.title, fontsize=6.5)
    for column, kind in enumerate(kinds):
        for ax, title in zip(axes[0][3 * column :], ["input", f"{kind}\ntruth", "prediction"], strict=False):
            ax.set_title(title, fontsize=6.5)
    _class_legend(fig)
    return fig


def reconstructions(encoders: list[Examples]) -> Figure:
    """Held-out images in columns; input, masked input and the reconstruction of each encoder in rows."""
    encoders = _comparable(encoders)
    if not encoders:
        return style.empty("No encoder was pre-trained, so there is nothing to reconstruct.")
    first = encoders[0].arrays
    count = min(len(first["images"]), MOST_RECONSTRUCTIONS)
    labels = ["input", "masked", *(f"{names.size(encoder.pretrain)} images" for encoder in encoders)]
    fig, axes = style.pictures(len(labels), count, top=0.05, bottom=0.12, caption=0.03)
    for column in range(count):
        image, mask = first["images"][column], first["mask"][column]
        style.picture(axes[0][column], image)
        style.picture(axes[1][column], np.where(mask[..., None], np.uint8(160), image))
        for row, encoder in zip(axes[2:], encoders, strict=True):
            style.picture(row[column], encoder.arrays["reconstruction"][column])
    for row, label in zip(axes, labels, strict=True):
        row[0].set_ylabel(label, fontsize=6.5)
    return fig


def class_picture(classes: np.ndarray) -> np.ndarray:
    """Class indices (H, W) as a picture (H, W, 3) in the figure's class colors."""
    palette = np.array([to_rgb(style.CLASS_COLORS[name]) for name in CLASSES])
    return palette[classes]


def _comparable(found: list[Examples]) -> list[Examples]:
    """Those whose first images (and masks) are the very same as the first's; others cannot stand in the same row."""
    return [
        other
        for other in found
        if all(np.array_equal(*pair) for pair in zip(_given(other), _given(found[0]), strict=True))
    ]


def _given(example: Examples) -> list[np.ndarray]:
    """What a model was shown, apart from images chosen by its own score."""
    arrays = example.arrays
    first = arrays["kind"] == "first" if "kind" in arrays else slice(None)
    return [arrays[key][first] for key in ("images", "mask") if key in arrays]


def _class_legend(fig: Figure) -> None:
    handles = [Patch(facecolor=style.CLASS_COLORS[name], edgecolor=style.GREY, lw=0.4, label=name) for name in CLASSES]
    fig.legend(
        handles=handles,
        loc="lower center",
        borderaxespad=0,
        bbox_to_anchor=(0.5, 0.13 / fig.get_figheight()),
        ncols=3,
        handlelength=1,
    )


def one_seed(found: list[Examples]) -> list[Examples]:
    """Of each place in the grid the first seed alone, smallest pre-training first."""
    order = sorted(
        found, key=lambda e: (e.pretrain, e.place.get("intermediate", "") != "none", e.place.get("intermediate", ""))
    )
    kept: dict[tuple, Examples] = {}
    for example in order:
        kept.setdefault(tuple(item for item in example.place.items() if item[0] != "seed"), example)
    return list(kept.values())


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.figures_images",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, nargs="*", default=[], help="examples.npz of fine-tuning cells")
    parser.add_argument("--encoders", type=Path, nargs="*", default=[], help="examples.npz of pre-trained encoders")
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    cells = one_seed([load(path) for path in args.cells])
    encoders = [load(path) for path in args.encoders]
    style.save(segmentations(cells), args.output / "examples", args.note)
    style.save(failures(cells), args.output / "failures", args.note)
    style.save(reconstructions(one_seed(encoders)), args.output / "reconstructions", args.note)
    for encoder in encoders:
        stem = args.output / "reconstructions" / f"pretrain={encoder.pretrain}_seed={encoder.place['seed']}"
        style.save(reconstructions([encoder]), stem, args.note)
    console.say(f"{3 + len(encoders)} figures of examples in {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
