"""`viny init`: a study file for folders of one's own, with a grid that fits the images there and a small machine."""

import argparse
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from viny.commands import terminal
from viny.commands.terminal import plural
from viny.config import load
from viny.config.problems import PUBLISHED
from viny.config.sections import SETS, DataSet
from viny.datasets import own, splits
from viny.datasets.build import order_for_testing, order_for_training
from viny.datasets.decode import GREY, BadImage, mask_codes
from viny.datasets.layouts import list_images
from viny.datasets.listing import Listing
from viny.datasets.tables import decode_text, read_table
from viny.datasets.trees import MISSING, File, Reader, Tree, open_tree, some
from viny.errors import VinyError, command
from viny.files import write_text
from viny.fingerprint import SOURCE
from viny.grid import StoreSpec
from viny.logs import setup

MASKS_READ = 1000  # to learn which values they have
MOST_VALUES = 64  # more of them are no classes, but shades
VOID = 0xE0E0C0  # the color around objects in Pascal VOC
MASK_FOLDER = re.compile(r"mask|label|annot|seg|truth|^gt", re.IGNORECASE)
MASK_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "-mask")
LABELED, GROUPED = ("file", "label"), ("file", "group")
# Most images of the first grid, which is to take minutes.
POOL, TRAINING, TESTS, HELDOUT = 2000, 1000, 500, 200
SEGMENTATION = (
    "segmentation needs images with masks: two folders `images` and `masks` with equal file names apart from the "
    "suffix, masks beside the images (1.jpg and 1_mask.png), or Pascal VOC (JPEGImages, SegmentationClass) as CVAT "
    "exports it"
)


@dataclass
class Set:
    """A folder as it was recognized.

    Attributes:
        words: what it is. settings: its section in the study file. listing: its images.
    """

    name: str
    words: str
    settings: dict[str, Any]
    listing: Listing = field(repr=False)

    @property
    def masked(self) -> bool:
        return self.listing.masks is not None

    @property
    def labeled(self) -> bool:
        return bool(self.listing.classes) and not self.masked

    @property
    def count(self) -> int:
        return len(self.listing.entries)

    @cached_property
    def missing(self) -> int:
        """Number of images whose mask is not there."""
        return sum(entry.mask is not None and entry.mask.size == MISSING for entry in self.listing.entries)

    def parts(self, tests: int) -> tuple[int, int]:
        """Number of test images, at most `tests` or those of a published split, and of training images."""
        there = [entry for entry in self.listing.entries if entry.mask is None or entry.mask.size != MISSING]
        listing = replace(self.listing, entries=there)
        candidates, count = order_for_testing(listing, min(tests, max(1, len(there) // 5)), 0)
        return count, len(order_for_training(listing, candidates[:count], 0))


@command
def main(argv: Sequence[str]) -> int:
    """Write a study file and say what to do next."""
    text = "Write a study file for folders (or archives) of images: with masks, with classes, or images alone."
    parser = argparse.ArgumentParser(prog="viny init", description=text)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="one of them must have masks")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the study file (default: FOLDER.yaml, here)")
    args = parser.parse_args(argv)
    setup()
    console = terminal.console()
    paths = [Path(os.path.normpath(folder.expanduser().absolute())) for folder in args.folders]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    found: list[Set] = []
    for path in paths:
        found.append(recognize(path, root, {each.name for each in found}))
        console.print(f"{path}: {found[-1].words}", soft_wrap=True)
    final = next((each for each in found if each.masked), None)
    if final is None:
        raise VinyError(f"none of these has masks, and {SEGMENTATION}")
    output = args.output or Path(f"{final.name}.yaml")
    if output.exists():
        raise VinyError(f"{output} is there already; remove it, or choose another file with --output")
    text = study_text(found, final, _shown(root))
    write_text(output, text)
    load(output)
    snakefile = SOURCE.parents[1] / "Snakefile"
    here = (
        ""
        if snakefile.parent == Path.cwd() or not snakefile.is_file()
        else f"--snakefile {shlex.quote(str(snakefile))} "
    )
    file = shlex.quote(str(output))
    console.print(f"\nWrote {output}. Look at the images and masks, then run the study:", soft_wrap=True)
    console.print(f"  viny inspect --configfile {file}", soft_wrap=True)
    console.print(f"  snakemake {here}--cores 2 --configfile {file}", soft_wrap=True)
    return 0


def recognize(path: Path, root: Path, taken: set[str]) -> Set:
    """What a folder or archive of images is.

    Raises:
        VinyError: it has no images, contradicts itself, or the values of its masks cannot be classes.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.name.removesuffix(path.suffix) if path.is_file() else path.name)
    name = name.strip("-._") or "images"
    name = f"{name[:50]}-own" if name in SETS or name in taken or name == PUBLISHED else name[:60]
    tree = open_tree(path)
    settings: dict[str, Any] = {"images": str(path.relative_to(root))}
    words = "images without masks or classes"
    if any(folder.endswith("annotations/trimaps") for folder in tree.folders):
        words, settings = "Oxford-IIIT Pet as published", settings | {"layout": "pets"}
    elif {"seg_train", "seg_test"} <= {folder.rpartition("/")[2] for folder in tree.folders}:
        words, settings = "Intel Image Classification as published", settings | {"layout": "intel"}
    else:
        masked, masks = _with_masks(tree, _spec(name, path, root, settings))
        if masked:
            words, settings = masked, settings | masks
        elif table := _table(tree, path, LABELED):
            words, settings["labels"] = f"images and the table of labels {table.name}", _below(table, root)
        elif _has_class_folders(tree):
            words, settings["labels"] = "class folders", "folders"
        if table := _table(tree, path, GROUPED):
            words, settings["groups"] = f"{words}, groups in {table.name}", _below(table, root)
    listing = list_images(_spec(name, path, root, settings))
    if listing.published:
        words += ", with a published split"
    classes = listing.mask_classes or listing.classes
    words += f"; {plural(len(listing.entries), 'image')}"
    words += f", {len(classes):,} classes: {some(classes, 10)}" if classes else ""
    found = Set(name, words, settings, listing)
    if found.missing:
        found.words += f"; {plural(found.missing, 'image')} without a mask are left out"
    return found


def _with_masks(tree: Tree, spec: StoreSpec) -> tuple[str, dict[str, Any]]:
    """What a tree with masks is in words, and its settings beside `images`; nothing if it has none."""
    places = [("", {}), *_beside(tree), *_folder_pairs(tree, spec)]
    for words, settings in places:
        at = spec.source / settings.pop("below", "")
        asked = replace(spec, source=at, spec=_data_set(spec, at, settings))
        found = own.find(asked, open_tree(at), Counter())
        if found.masks and found.reader:
            voc = found.voc
            words = words or ("Pascal VOC" if voc else "folders images and masks")
            if at != spec.source:
                settings["images"] = _below(at, spec.base)
            if found.labelmap is not None:
                return f"{words} with labelmap.txt", settings
            return words, settings | _classes(list(found.masks.values()), found.reader, voc)
    return "", {}


def _beside(tree: Tree) -> Iterator[tuple[str, dict[str, Any]]]:
    """Masks beside their images, such as 1.jpg and 1_mask.png."""
    stems = {splits.stem(path) for path in tree.images}
    for ending in MASK_ENDINGS:
        masks = [path for path in tree.images if splits.stem(path).endswith(ending)]
        paired = [path for path in masks if splits.stem(path).removesuffix(ending) in stems]
        if paired:
            suffix = Counter(Path(path).suffix for path in paired).most_common(1)[0][0]
            yield f"images and masks named ...{ending}{suffix}", {"masks": f"{{parent}}/{{stem}}{ending}{suffix}"}


def _folder_pairs(tree: Tree, spec: StoreSpec) -> Iterator[tuple[str, dict[str, Any]]]:
    """Two folders with equal stems, one of which is named as if it held masks."""
    if not spec.source.is_dir():
        return
    stems: dict[str, set[str]] = {}
    for path in tree.images:
        folder, _, rest = path.partition("/")
        if rest:
            stems.setdefault(folder, set()).add(splits.stem(rest).rpartition("/")[2])
    for masks in filter(MASK_FOLDER.search, sorted(stems)):
        for images in sorted(stems):
            if images != masks and len(stems[images] & stems[masks]) > len(stems[masks]) / 2:
                below = _below(spec.source / masks, spec.base)
                yield f"folders {images} and {masks}", {"below": images, "masks": below}


def _classes(masks: list[File], reader: Reader, voc: bool) -> dict[str, Any]:
    """`classes` and `ignore` by the values that masks have."""
    numbers: set[int] = set()
    colors: set[int] = set()
    for file in masks[:: -(-len(masks) // MASKS_READ)]:
        try:
            found = mask_codes(reader.read(file))
        except BadImage:
            continue  # which `viny inspect` names
        (colors if found.kind == "color" else numbers).update(np.unique(found.values).tolist())
        if len(numbers | colors) > MOST_VALUES:
            raise VinyError(
                f"{reader.place(file)} and other masks have more than {MOST_VALUES} different values, so these are no "
                "classes but shades, as in photographs, drawings with smooth edges or JPEGs; masks must keep values "
                "exactly, as PNG does"
            )
    if colors and all(color % GREY == 0 for color in colors):  # grey in three channels
        numbers |= {color // GREY for color in colors}
        colors = set()
    if voc and not colors and numbers <= {*range(21), 255}:
        return {}
    ignore: list[Any] = [255] if 255 in numbers and len(numbers) > 2 else []
    ignore += [f"#{VOID:06x}"] if VOID in colors and len(colors) > 2 else []
    values: list[Any] = [value for value in sorted(numbers) if value not in ignore]
    values += [text for text in (f"#{color:06x}" for color in sorted(colors)) if text not in ignore]
    if len(values) < 2:
        raise VinyError(f"the masks have one value, {values[0] if values else '?'}; segmentation needs two classes")
    names = [f"class_{value}" if isinstance(value, int) else f"color_{value[1:]}" for value in values]
    if len(values) == 2 and values[0] in (0, "#000000"):
        names = ["background", "foreground"]
    return {"classes": dict(zip(names, values, strict=True))} | ({"ignore": ignore} if ignore else {})


def _table(tree: Tree, path: Path, columns: tuple[str, ...]) -> Path | None:
    """A CSV with some columns in a folder, or beside it under its name."""
    inside = [path / name for name in sorted(tree.others) if "/" not in name and name.lower().endswith(".csv")]
    for file in [*inside, *sorted(path.parent.glob(f"{path.stem}*.csv"))] if path.is_dir() else []:
        try:
            read_table(decode_text(file.read_bytes(), str(file)), str(file), columns)
        except (VinyError, OSError):
            continue
        return file
    return None


def _has_class_folders(tree: Tree) -> bool:
    """Whether all images lie in two or more folders (below train and test, if there are these), named by words."""
    paths = [path.split("/")[:-1] for path in tree.images]
    if paths and all(parts and parts[0].lower() in splits.SIDES for parts in paths):
        paths = [parts[1:] for parts in paths]
    tops = Counter(parts[0] if parts else "" for parts in paths)
    words = all(top and not re.fullmatch(r"[\d_.-]+", top) for top in tops)
    return words and len(tops) > 1 and min(tops.values()) > 1


def _spec(name: str, path: Path, root: Path, settings: dict[str, Any]) -> StoreSpec:
    """A store, for listing its images."""
    return StoreSpec(
        name=name,
        source=path,
        spec=DataSet.model_validate(settings),
        procedural=None,
        pixels=64,
        split_seed=0,
        tests=None,
        images=None,
        bad_images="stop",
        root=Path("stores"),
        base=root,
    )


def _data_set(spec: StoreSpec, at: Path, settings: dict[str, Any]) -> DataSet:
    return DataSet.model_validate({"images": _below(at, spec.base), **settings})


def _below(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _shown(root: Path) -> str:
    """A folder as the study file names it: relative to here if it is below."""
    here = Path.cwd()
    return _below(root, here) if root.is_relative_to(here) else str(root)


def sizes(largest: int, least: int) -> list[int]:
    """Up to three sizes, each a quarter of the next, the largest a little below `largest` and in round numbers."""
    top = _round(largest * 9 // 10)
    return sorted({size for size in (_round(top // 16), _round(top // 4), top) if size >= least} | {max(top, 1)})


def _round(number: int) -> int:
    """Two digits, and zeros."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return number // unit * unit


def study_text(found: Sequence[Set], final: Set, root: str) -> str:
    """The study file: segmentation on `final`, classification where there are classes, pre-training on images alone."""
    pool = max([each for each in found if not each.masked and not each.labeled] or found, key=lambda each: each.count)
    tests, training = final.parts(TESTS)
    heldout, unlabeled = pool.parts(tests if pool is final else HELDOUT)
    tasks = {f"cls_{re.sub('[^a-z0-9_]', '_', each.name.lower())}": each for each in found if each.labeled}
    pretrain = [0, *sizes(min(unlabeled, POOL), 64)[-2:]]
    downstream = sizes(min(training, TRAINING), 8)
    lines = [
        "# Made by `viny init`: a first study in minutes on two CPU cores. Every setting is explained in",
        "# docs/settings.md; what is left out here is as in the paper.",
        f"study: {_yaml(final.name)}",
        "data:",
        f"  root: {_yaml(root)}",
        "  leaks: drop  # training images that look like test images are left out; stop refuses them, allow keeps them",
    ]
    if any(each.missing for each in found):
        lines.append("  bad_images: skip  # images without a mask are left out; stop names them instead")
    lines += ["  store_pixels: 80  # raise with model.image_size, to about 1.25 times as much", "  sets:"]
    for each in found:
        lines.append(f"    {_yaml(each.name)}:  # {' '.join(each.words.split())}")
        lines += [f"      {key}: {_yaml(value)}" for key, value in each.settings.items()]
        if "classes" in each.settings:
            lines.append("      # Rename the classes, join values ([1, 2]); values in `ignore` do not count.")
    lines += [
        "model:  # small; without this section it is 128 pixels, patches of 16 and 4.8 million weights",
        "  {image_size: 64, patch_size: 8, width: 64, depth: 4, heads: 4, head_width: 16, mlp_width: 256}",
        f"pretrain:  # without labels, on {pool.name}; for results that count: 100 epochs or more",
        f"  {{images: {_yaml(pool.name)}, epochs: 20, batch_size: 16, learning_rate: 1.0e-3, milestones: [14, 18],",
        f"   heldout_images: {max(heldout, 1)}}}",
    ]
    if tasks:
        lines.append("intermediate:  # classification before segmentation; remove it if the folders are no classes")
        for name, each in tasks.items():
            count = f", count: {POOL}" if each.parts(TESTS)[1] > POOL else ""
            lines.append(
                f"  {name}: {{task: classification, images: {_yaml(each.name)}, epochs: 10, batch_size: 16{count}}}"
            )
    lines += [
        "finetune:  # segmentation; for results that count: 100 epochs",
        f"  {{images: {_yaml(final.name)}, epochs: 30, batch_size: 16, milestones: [21, 27], test_images: {tests}}}",
        "grid:  # all combinations are run; raise the sizes, add seeds for narrower intervals",
        f"  pretrain: {pretrain}  # images without labels, of about {unlabeled:,}",
        f"  intermediate: [{', '.join(['none', *tasks])}]",
        f"  downstream: {downstream}  # labeled images, of about {training:,}",
        "  seeds: [1, 2]",
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
