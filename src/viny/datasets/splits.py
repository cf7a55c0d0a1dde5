"""Published splits, labels and groups of own data sets: folders, lists and tables."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from viny.datasets.listing import TEST, TRAIN, Entry
from viny.datasets.tables import Line, read_lines, read_table, read_text
from viny.datasets.trees import MISSING, File, some
from viny.errors import VinyError

VALIDATION = "validation"
SIDES = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("val", "valid", "validation"), VALIDATION),
}

_ROUNDABOUT = re.compile(r"^/|//|(^|/)\.\.?/")  # such as /data/images/x.jpg, ./x.jpg and ../images/x.jpg


def stem(path: str) -> str:
    """A path without its suffix, in the one spelling of composed characters."""
    return unicodedata.normalize("NFC", os.path.splitext(path)[0])  # noqa: PTH122


class Lookup:
    """Finds images by their names or paths below the set's `images`, the folder `location`; a suffix may be missing."""

    def __init__(self, names: Mapping[str, File], location: str):
        self.names, self._location = names, os.path.abspath(location)  # noqa: PTH100

    @cached_property
    def _full(self) -> dict[str, str]:
        paths = ((path, name) for name, file in self.names.items() for path in (file.path, name))
        return {unicodedata.normalize("NFC", path): name for path, name in paths}

    @cached_property
    def _stems(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path, name in self._full.items():
            found.setdefault(stem(path), set()).add(name)
        return found

    def find(self, lines: Iterable[Line], where: str) -> dict[str, Line]:
        """Lines by the image that each names in its first field, or by that field if there is no such image."""
        found: dict[str, Line] = {}
        for line in lines:
            text = line.fields[0]
            path = unicodedata.normalize("NFC", text.replace("\\", "/"))
            if _ROUNDABOUT.search(path):
                path = os.path.relpath(os.path.join(self._location, path), self._location)  # noqa: PTH118
            if path.startswith("../"):
                raise VinyError(
                    f"{where}, line {line.number}: {text} is not in {self._location}; paths are relative to that"
                )
            meant = {self._full[path]} if path in self._full else self._stems.get(path, {text})
            if len(meant) > 1:
                each = some(sorted(meant))
                raise VinyError(f"{where}, line {line.number}: {text} may be each of {each}; write the suffix")
            (name,) = meant
            if name in found:
                raise VinyError(
                    f"{where}: {name} is there twice, in the lines {found[name].number} and {line.number}; remove one"
                )
            found[name] = line
        return found


def sides_of_folders(names: Iterable[str], location: str, strict: bool) -> dict[str, str] | None:
    """Split by folders at the top (`train`, `val`, `test`), an empty one for each image if there is only one folder.

    None if the folders at the top are others.

    Raises:
        VinyError: `strict`, and beside folders of a split there are others.
    """
    tops = {name: name.partition("/")[0].lower() if "/" in name else "" for name in names}
    sides = {SIDES.get(top) for top in set(tops.values())}
    if None in sides:
        if strict and TRAIN in sides and len(sides) > 2:
            outside = sorted(name for name, top in tops.items() if top not in SIDES)
            raise VinyError(
                f"{location} has folders of a published split (train, val or test) and {len(outside):,} images "
                f"elsewhere: {some(outside)}; move these, or name the images of each side in `splits`"
            )
        return None
    published = TRAIN in sides and len(sides) > 1
    return {name: SIDES[top] if published else "" for name, top in tops.items()}


class Part(NamedTuple):
    """A list of the images on one side of a split: the side (empty for none), the file, its text."""

    side: str
    where: str
    text: str


def sides_of_lists(parts: Iterable[Part], lookup: Lookup) -> dict[str, str]:
    """The sides of the images that lists name."""
    sides: dict[str, str] = {}
    places: dict[str, str] = {}
    for side, where, text in parts:
        found = lookup.find(read_lines(text), where)
        if unknown := [line for name, line in found.items() if name not in lookup.names]:
            shown = some(f"{line.fields[0][:80]!r} (line {line.number})" for line in unknown)
            raise VinyError(f"{where}: {len(unknown):,} lines name no image of the data set: {shown}; correct the list")
        both = sorted(name for name in found if sides.get(name, side) != side)
        if both:
            raise VinyError(
                f"{len(both):,} images are both in {places[both[0]]} and in {where}: {some(both)}; choose one"
            )
        sides |= dict.fromkeys(found, side)
        places |= dict.fromkeys(found, where)
    return sides


def resolve(entries: list[Entry], sides: Mapping[str, str] | None, ignored: Counter[str], location: str) -> list[Entry]:
    """Entries with their split. Images on no side are left out and counted. Without a test side, validation is it."""
    if sides is None or not any(sides.values()):
        return entries
    test = TEST if TEST in sides.values() else VALIDATION
    kept = []
    for entry in entries:
        side = sides.get(entry.name, "")
        if side in (TRAIN, test):
            kept.append(entry._replace(split=TRAIN if side == TRAIN else TEST))
        else:
            ignored["validation images beside a test split" if side else "images on no side of the split"] += 1
    for split in (TRAIN, TEST):
        if not any(entry.split == split for entry in kept):
            raise VinyError(f"{location}: the published split has no {split} images; add some, or leave the split out")
    return kept


def read_labels(path: Path, setting: str, lookup: Lookup) -> dict[str, tuple[str, str]]:
    """Label and side of each image of a CSV `file,label[,split]`, by name, of missing images by what is written."""
    lines = read_table(read_text(path, setting), str(path), ("file", "label"), ("split",))
    labels = {}
    for name, (number, (_, label, side)) in lookup.find(lines, str(path)).items():
        if side and side.lower() not in SIDES:
            raise VinyError(f"{path}, line {number}: the split {side!r} is none of train, val, test; correct it")
        labels[name] = (label, SIDES[side.lower()] if side else "")
    return labels


def read_groups(path: Path, setting: str, lookup: Lookup, entries: list[Entry]) -> list[Entry]:
    """Entries with their groups from a CSV `file,group`."""
    found = lookup.find(read_table(read_text(path, setting), str(path), ("file", "group")), str(path))
    without = sorted(e.name for e in entries if e.name not in found and e.image.size != MISSING)
    if without:
        raise VinyError(f"{path}: {len(without):,} of {len(entries):,} images have no group: {some(without)}; add them")
    grouped = [e._replace(group=found[e.name].fields[1]) if e.name in found else e for e in entries]
    train, test = ({entry.group for entry in grouped if entry.split == side} for side in (TRAIN, TEST))
    both = sorted((train & test) - {""})
    if both:
        raise VinyError(
            f"{path}: {len(both):,} groups have training and test images: {some(both)}; correct the split, or "
            "leave it out"
        )
    return grouped
