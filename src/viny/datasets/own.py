"""Users' own data sets: any tree of images, class folders or a table of labels, masks in the usual layouts."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from viny.datasets import splits
from viny.datasets.listing import TEST, TRAIN, Entry, Listing, class_of, counted
from viny.datasets.splits import Part
from viny.datasets.tables import decode_text, read_text
from viny.datasets.trees import MISSING, File, FolderReader, Reader, Tree, open_tree, some
from viny.datasets.values import mask_values
from viny.errors import VinyError
from viny.grid import StoreSpec

VOC_LISTS = "ImageSets/Segmentation"


@dataclass
class Found:
    """Images and masks of a set before labels, split and groups."""

    images: dict[str, File]  # by name
    masks: dict[str, File] | None = None  # by the name of their image; None in a set without masks
    reader: Reader | None = None  # of the masks
    labelmap: str | None = None  # text of `labelmap.txt`
    voc: bool = False  # whether the classes are those of Pascal VOC without one
    lists: list[Part] = field(default_factory=list)  # published lists of the images


def list_own(spec: StoreSpec) -> Listing:
    """List a data set by what the study file says of it, and by its folders.

    Raises:
        VinyError: nothing there, or files, tables and settings contradict each other.
    """
    tree, dataset, setting = open_tree(spec.source), spec.spec, f"data.sets.{spec.name}"
    ignored = Counter(tree.ignored)
    found = find(spec, tree, ignored)
    lookup = splits.Lookup(found.images, tree.location)
    strict = dataset.labels == "folders" and not dataset.splits
    files, sides = found.images, splits.sides_of_folders(found.images, tree.location, strict)
    labels: dict[str, str] = {}
    folders: set[str] = set()  # of classes, so that one without images is named
    if dataset.labels == "folders":
        depth = 1 if sides else 0
        labels = {name: class_of(name, tree.location, depth) for name in files}
        folders = {path.rpartition("/")[2] for path in tree.folders if path.count("/") == depth}
    elif dataset.labels:
        table = splits.read_labels(spec.base / dataset.labels, f"{setting}.labels", lookup)
        ignored["images without a label"] += sum(name not in table for name in files)
        files = {name: files.get(name, File(name, MISSING)) for name in table}
        labels = {name: label for name, (label, _) in table.items()}
        sides = {name: side for name, (_, side) in table.items()}
        sides = sides if any(sides.values()) else splits.sides_of_folders(files, tree.location, strict=False)
    classes = _ordered({*labels.values(), *folders})
    number = {name: label for label, name in enumerate(classes)}
    entries = [Entry(name, file, number[labels[name]] if labels else -1) for name, file in files.items()]
    lists = found.lists
    if dataset.splits:
        paths = {side: spec.base / path for side, path in dataset.splits.items()}
        lists = [Part(side, str(path), read_text(path, f"{setting}.splits.{side}")) for side, path in paths.items()]
    if lists:
        sides = splits.sides_of_lists(lists, lookup)
        if dataset.splits and len(dataset.splits) == 1:  # the other side is all the rest
            sides = dict.fromkeys(found.images, TEST if TRAIN in dataset.splits else TRAIN) | sides
        elif not any(sides.values()):
            ignored["images in no list"] += sum(entry.name not in sides for entry in entries)
            entries = [entry for entry in entries if entry.name in sides]
    entries = splits.resolve(entries, sides, ignored, tree.location)
    if dataset.groups:
        entries = splits.read_groups(spec.base / dataset.groups, f"{setting}.groups", lookup, entries)
    mask_classes: list[str] = []
    values = None
    if found.masks is not None:
        mask_classes, values = mask_values(spec.name, dataset, found.labelmap, found.voc)
        missing = {entry.name: File(f"{splits.stem(entry.name)}.*", MISSING) for entry in entries}
        entries = [entry._replace(mask=found.masks.get(entry.name, missing[entry.name])) for entry in entries]
    elif dataset.classes or dataset.ignore:
        raise VinyError(
            f"{setting} sets `classes` or `ignore` of masks, but has no masks: neither `masks` is set, nor are there "
            f"folders images and masks, or JPEGImages and SegmentationClass, in {tree.location}"
        )
    return Listing(
        tree.location, entries, tree.reader, classes, found.reader, mask_classes, values, tree.broken, +ignored
    )


def find(spec: StoreSpec, tree: Tree, ignored: Counter[str]) -> Found:
    """Images and their masks, by the settings or by the folders that there are."""
    dataset = spec.spec
    if dataset.masks and "{" in dataset.masks:
        return _by_template(spec, tree)
    if dataset.masks:
        return _by_stem(spec, tree, ignored)
    if dataset.labels:
        return Found(tree.images)
    voc = sorted(
        path.removesuffix("JPEGImages").removesuffix("/")
        for path in tree.folders
        if path.rpartition("/")[2] == "JPEGImages"
        and f"{path.removesuffix('JPEGImages')}SegmentationClass" in tree.folders
    )
    if len(voc) > 1:
        raise VinyError(
            f"{tree.location} has several folders in the layout of Pascal VOC: {some(voc)}; set `images` to one"
        )
    return _voc(tree, voc[0], ignored) if voc else _by_folders(tree, ignored)


def _by_template(spec: StoreSpec, tree: Tree) -> Found:
    """Masks at `{parent}/{stem}_mask.png` or the like; a file that is the mask of another is no image."""
    template, setting = str(spec.spec.masks), f"data.sets.{spec.name}.masks"
    filled = template.replace("{parent}", "").replace("{stem}", "")
    if "{" in filled or "}" in filled or "{stem}" not in template:
        raise VinyError(f"{setting}: {template!r} must have {{stem}}, may have {{parent}}, and no other braces")
    if not isinstance(tree.reader, FolderReader):
        raise VinyError(f"{setting}: a template needs a folder of images, but {tree.location} is an archive; unpack it")
    reader, root = FolderReader(str(spec.base)), os.path.relpath(tree.location, spec.base)
    paths = {name: f"{root}/{name}" for name in tree.images}
    masks = {}
    for name, path in paths.items():
        folder, file = os.path.split(path)
        filled = template.replace("{parent}", folder).replace("{stem}", os.path.splitext(file)[0])  # noqa: PTH122
        masks[name] = os.path.normpath(filled)
    are_masks = {*masks.values()}
    images = {name: file for name, file in tree.images.items() if os.path.normpath(paths[name]) not in are_masks}
    return Found(images, {name: reader.find(masks[name]) for name in images}, reader)


def _by_stem(spec: StoreSpec, tree: Tree, ignored: Counter[str]) -> Found:
    """Masks in a folder or archive of their own, with the paths of their images apart from the suffix, or the stems."""
    path = Path(os.path.normpath(spec.base / str(spec.spec.masks)))
    masks = open_tree(path)
    if not masks.images:
        raise VinyError(f"{masks.location}: no masks found{counted(masks.ignored)}")
    images, inside = tree.images, os.path.relpath(path, spec.source)
    if inside != "." and not inside.startswith(".."):  # masks below the images are no images
        images = {name: file for name, file in images.items() if not name.startswith(f"{inside}/")}
    return Found(images, _paired(images, masks.images, masks.location, ignored), masks.reader)


def _by_folders(tree: Tree, ignored: Counter[str]) -> Found:
    """Folders `images` and `masks` beside each other, at any depth; else a tree of images without masks."""
    sides: dict[str, dict[str, File]] = {"images": {}, "masks": {}}
    for path, file in tree.images.items():
        parts = path.split("/")
        marks = [i for i, part in enumerate(parts[:-1]) if part in sides]
        if marks:
            rest = "/".join(parts[: marks[-1]] + parts[marks[-1] + 1 :])
            if rest in sides[parts[marks[-1]]]:
                raise VinyError(
                    f"{tree.location}: {path} and another file mean the same image {rest}; rename one of them"
                )
            sides[parts[marks[-1]]][rest] = file
    images, masks = sides.values()
    if not images or not masks:
        return Found(tree.images)
    ignored["images outside the folders images and masks"] += len(tree.images) - len(images) - len(masks)
    labelmap = _text(tree, "labelmap.txt")
    return Found(images, _paired(images, masks, tree.location, ignored), tree.reader, labelmap)


def _voc(tree: Tree, root: str, ignored: Counter[str]) -> Found:
    """Pascal VOC, as CVAT exports it, too."""
    top = tree.below(root)
    images, masks = (top.below(folder).images for folder in ("JPEGImages", "SegmentationClass"))
    ignored["images outside JPEGImages and SegmentationClass"] += len(tree.images) - len(images) - len(masks)
    lists = [path for path in sorted(top.others) if path.startswith(f"{VOC_LISTS}/") and path.endswith(".txt")]
    sides = {path: splits.SIDES.get(path.rpartition("/")[2].removesuffix(".txt").lower(), "") for path in lists}
    if TRAIN in sides.values() and len({*sides.values()} - {""}) > 1:
        sides = {path: side for path, side in sides.items() if side}  # not trainval.txt, which has both
    else:
        sides = dict.fromkeys(sides, "")  # such as default.txt: which images have masks, no split
    parts = [Part(side, f"{top.location}/{path}", _text(top, path) or "") for path, side in sides.items()]
    paired = _paired(images, masks, top.location, ignored)
    return Found(images, paired, tree.reader, _text(top, "labelmap.txt"), True, parts)


def _text(tree: Tree, path: str) -> str | None:
    return decode_text(tree.read(path), f"{tree.location}/{path}") if path in tree.others else None


def _paired(images: dict[str, File], masks: dict[str, File], location: str, ignored: Counter[str]) -> dict[str, File]:
    """Masks by the names of their images: equal paths without suffix, else equal stems."""
    for key in (splits.stem, lambda path: splits.stem(path).rpartition("/")[2]):
        by_image, by_mask = (_by_key(files, key, location) for files in (images, masks))
        pairs = {name: masks[by_mask[common]] for common, name in by_image.items() if common in by_mask}
        if pairs:
            ignored["masks without an image"] += len(masks) - len(pairs)
            return pairs
    example = f", for example {min(masks)} and {min(images)}" if images and masks else ""
    raise VinyError(
        f"{location}: none of the {len(masks):,} masks has the stem of one of the {len(images):,} images{example}; "
        "rename them, or give a template in `masks`"
    )


def _by_key(files: dict[str, File], key: Callable[[str], str], location: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in files:
        if found.setdefault(key(name), name) != name:
            raise VinyError(
                f"{location}: {found[key(name)]} and {name} have the same stem, so that masks and images cannot be "
                "paired; rename or remove one of them"
            )
    return found


def _ordered(classes: set[str]) -> list[str]:
    """Class names in order; numbers by their value."""
    return sorted(classes, key=lambda name: (int(name), name)) if all(map(str.isdecimal, classes)) else sorted(classes)
