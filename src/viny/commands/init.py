"""`viny init`: a study file for your own folders, with a grid that fits the images there and a small machine."""

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from viny.commands import terminal
from viny.commands.parser import Parser
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
# Most images of the first grid, which is to take minutes.
POOL, TRAINING, TESTS, HELDOUT = 2000, 1000, 500, 200


@dataclass
class Set:
    """A folder as it was recognized.

    Attributes:
        words: what it is. settings: its section in the study file. listing: its images. missing: those without a mask.
    """

    name: str
    words: str
    settings: dict[str, Any]
    listing: Listing = field(repr=False)
    missing: int = 0

    @property
    def masked(self) -> bool:
        return self.listing.masks is not None

    @property
    def labeled(self) -> bool:
        return bool(self.listing.classes) and not self.masked

    def parts(self, tests: int) -> tuple[int, int]:
        """Number of test images, at most `tests` or those of a published split, and of training images."""
        there = [entry for entry in self.listing.entries if entry.mask is None or entry.mask.size != MISSING]
        listing = replace(self.listing, entries=there)
        candidates, count = order_for_testing(listing, min(tests, max(1, len(there) // 5)), 0)
        return count, len(order_for_training(listing, candidates[:count], 0))


def parser() -> Parser:
    """The command line."""
    text = "Write a study file for folders or archives of images: with masks, with classes, or images alone."
    made = Parser("init", text, "kelp", "kelp drone --output kelp.yaml")
    made.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="one of them must have masks")
    made.add_argument("--output", type=Path, metavar="FILE", help="the study file (default: FOLDER.yaml, here)")
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Write a study file and say what to do next."""
    args = parser().parse_args(argv)
    setup()
    say = partial(terminal.console().print, soft_wrap=True)
    paths = [Path(os.path.normpath(folder.expanduser().absolute())) for folder in args.folders]
    root = Path(os.path.commonpath([path.parent for path in paths]))
    found: list[Set] = []
    for path in paths:
        found.append(recognize(path, root, {each.name for each in found}))
        say(f"{path}: {found[-1].words}")
    final = next((each for each in found if each.masked), None)
    if final is None:
        raise VinyError(
            "none of these has masks, and segmentation needs images with masks: two folders `images` and `masks` with "
            "equal file names apart from the suffix, masks beside the images (1.jpg and 1_mask.png), or Pascal VOC "
            "(JPEGImages, SegmentationClass) as CVAT exports it"
        )
    output = args.output or Path(f"{final.name}.yaml")
    if output.exists():
        raise VinyError(f"{output} is there already; remove it, or choose another file with --output")
    write_text(output, study_text(found, final, root))
    load(output)
    snakefile, file = SOURCE.parents[1] / "Snakefile", shlex.quote(str(output))
    elsewhere = snakefile.is_file() and snakefile.parent != Path.cwd()
    say(f"\nWrote {output}. Look at the images and masks, then run the study:")
    say(f"  viny inspect --configfile {file}")
    say(f"  snakemake {f'--snakefile {shlex.quote(str(snakefile))} ' * elsewhere}--cores 2 --configfile {file}")
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
    settings: dict[str, Any] = {"images": _below(path, root)}
    words = "images without masks or classes"
    masked, masks = _with_masks(tree, _spec(name, path, root, settings))
    if masked:
        words, settings = masked, settings | masks
    elif table := _table(tree, path, ("file", "label")):
        words, settings["labels"] = f"images and the table of labels {table.name}", _below(table, root)
    elif _has_class_folders(tree):
        words, settings["labels"] = "class folders", "folders"
    if table := _table(tree, path, ("file", "group")):
        words, settings["groups"] = f"{words}, groups in {table.name}", _below(table, root)
    listing = list_images(_spec(name, path, root, settings))
    classes = listing.mask_classes or listing.classes
    missing = sum(entry.mask is not None and entry.mask.size == MISSING for entry in listing.entries)
    words += ", with a published split" if listing.published else ""
    words += f"; {plural(len(listing.entries), 'image')}"
    words += f", {len(classes):,} classes: {some(classes, 10)}" if classes else ""
    words += f"; {plural(missing, 'image')} without a mask are left out" if missing else ""
    return Set(name, " ".join(words.split()), settings, listing, missing)


def _with_masks(tree: Tree, spec: StoreSpec) -> tuple[str, dict[str, Any]]:
    """What a tree with masks is in words, and its settings beside `images`; nothing if it has none."""
    for words, at, settings in [("", spec.source, {}), *_beside(tree, spec.source), *_folder_pairs(tree, spec)]:
        settings = {"images": _below(at, spec.base), **settings}
        found = own.find(_spec(spec.name, at, spec.base, settings), open_tree(at), Counter())
        if found.masks and found.reader:
            words = words or ("Pascal VOC" if found.voc else "folders images and masks")
            if found.labelmap is not None:
                return f"{words} with labelmap.txt", settings
            return words, settings | _classes(list(found.masks.values()), found.reader, found.voc)
    return "", {}


def _beside(tree: Tree, source: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Masks beside their images, such as 1.jpg and 1_mask.png."""
    stems = {splits.stem(path) for path in tree.images}
    for ending in MASK_ENDINGS:
        masks = [path for path in tree.images if splits.stem(path).endswith(ending)]
        paired = Counter(Path(path).suffix for path in masks if splits.stem(path).removesuffix(ending) in stems)
        for suffix, _ in paired.most_common(1):
            masks_at = {"masks": f"{{parent}}/{{stem}}{ending}{suffix}"}
            yield f"images and masks named ...{ending}{suffix}", source, masks_at


def _folder_pairs(tree: Tree, spec: StoreSpec) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Two folders with equal stems, one of which is named as if it held masks."""
    stems: dict[str, set[str]] = {}
    for path in tree.images if spec.source.is_dir() else ():
        folder, _, rest = path.partition("/")
        if rest:
            stems.setdefault(folder, set()).add(splits.stem(rest).rpartition("/")[2])
    for masks in filter(MASK_FOLDER.search, sorted(stems)):
        for images in sorted(stems):
            if images != masks and len(stems[images] & stems[masks]) > len(stems[masks]) / 2:
                masks_at = {"masks": _below(spec.source / masks, spec.base)}
                yield f"folders {images} and {masks}", spec.source / images, masks_at


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
        numbers, colors = numbers | {color // GREY for color in colors}, set()
    if voc and not colors and numbers <= {*range(21), 255}:
        return {}
    ignore: list[Any] = [255] if 255 in numbers and len(numbers) > 2 else []
    ignore += [f"#{VOID:06x}"] if VOID in colors and len(colors) > 2 else []
    values: list[Any] = [*sorted(numbers), *(f"#{color:06x}" for color in sorted(colors))]
    values = [value for value in values if value not in ignore]
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


def _below(path: Path, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def sizes(largest: int, least: int) -> list[int]:
    """Up to three sizes, each a quarter of the next, the largest a little below `largest` and in round numbers."""
    top = _round(largest * 9 // 10)
    return sorted({size for size in (_round(top // 16), _round(top // 4), top) if size >= least} | {max(top, 1)})


def _round(number: int) -> int:
    """Two digits, and zeros."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return number // unit * unit


def study_text(found: Sequence[Set], final: Set, root: Path) -> str:
    """The study file: segmentation on `final`, classification where there are classes, pre-training on images alone."""
    plain = [each for each in found if not each.masked and not each.labeled]
    pool = max(plain or found, key=lambda each: len(each.listing.entries))
    tests, training = final.parts(TESTS)
    heldout, unlabeled = pool.parts(tests if pool is final else HELDOUT)
    tasks = {}
    for each in found:
        if each.labeled:
            task = {"task": "classification", "images": each.name, "epochs": 10, "batch_size": 16}
            many = each.parts(TESTS)[1] > POOL
            tasks[f"cls_{re.sub('[^a-z0-9_]', '_', each.name.lower())}"] = task | ({"count": POOL} if many else {})
    environment = jinja2.Environment(loader=jinja2.PackageLoader("viny", "commands"), trim_blocks=True)
    environment.filters["yaml"] = partial(json.dumps, ensure_ascii=False)
    return environment.get_template("study.yaml.j2").render(
        sets=found,
        final=final,
        pool=pool,
        tasks=tasks,
        root=_below(root, Path.cwd()) if root.is_relative_to(Path.cwd()) else str(root),
        missing=any(each.missing for each in found),
        heldout=max(heldout, 1),
        tests=tests,
        pretrain=[0, *sizes(min(unlabeled, POOL), 64)[-2:]],
        downstream=sizes(min(training, TRAINING), 8),
        unlabeled=unlabeled,
        training=training,
    )
