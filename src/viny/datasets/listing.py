"""A data set as it lies on disk: what a store is made from."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from viny.datasets.decode import MaskValues
from viny.datasets.trees import File, Reader, some
from viny.errors import VinyError

TRAIN, TEST = "train", "test"


class Entry(NamedTuple):
    """One image."""

    name: str  # its identity wherever the data set lies and however it is packed; decides its place in the order
    image: File
    label: int = -1  # class index; -1 in a set without class labels
    mask: File | None = None  # None in a set without masks
    split: str = ""  # `train` or `test` where the split is published
    group: str = ""  # images of one group are never on both sides of a split


@dataclass(frozen=True)
class Listing:
    """The images of a data set, not decoded.

    Raises:
        VinyError: no images, two of one name, or a class without images.
    """

    location: str  # folder or archive, for messages
    entries: list[Entry]  # sorted by name
    images: Reader  # of the images' bytes
    classes: list[str] = field(default_factory=list)  # names of the classes that labels index
    masks: Reader | None = None  # None in a set without masks
    mask_classes: list[str] = field(default_factory=list)
    values: MaskValues | None = None  # what the pixels of the masks mean
    broken: list[str] = field(default_factory=list)  # links to nothing, which may have been folders of images
    ignored: Counter[str] = field(default_factory=Counter)  # number of files that are no part of the set, by kind

    def __post_init__(self) -> None:
        if not self.entries:
            raise VinyError(f"{self.location}: no images found{counted(self.ignored)}")
        self.entries.sort()
        for one, other in zip(self.entries, self.entries[1:], strict=False):
            if (one.name, one.split) == (other.name, other.split):
                raise VinyError(f"{self.location}: there are two images named {one.name}; remove or rename one of them")
        used = {entry.label for entry in self.entries}
        empty = [name for label, name in enumerate(self.classes) if label not in used]
        if empty:
            raise VinyError(
                f"{self.location}: no images of {len(empty):,} of {len(self.classes):,} classes: {some(empty)}; add "
                "images, or remove what names these classes"
            )

    @cached_property
    def published(self) -> bool:
        """Whether the split into training and test images is fixed by the data set."""
        return any(entry.split for entry in self.entries)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels, splits, groups and sizes; independent of where and how the set is packed."""
        digest = hashlib.sha256(repr([self.classes, self.mask_classes, self.values]).encode())
        for entry in self.entries:
            sizes = (entry.image.size, entry.mask.size if entry.mask else None)
            digest.update(repr((entry.name, entry.label, entry.split, entry.group, sizes)).encode())
        return digest.hexdigest()


def counted(ignored: Counter[str]) -> str:
    """`; ignored: 3 .txt, 1 hidden`, nothing if there is nothing."""
    return "; ignored: " + ", ".join(f"{n:,} {kind}" for kind, n in ignored.most_common()) if ignored else ""


def class_of(path: str, location: str, depth: int = 0) -> str:
    """The class folder in the path of an image, the component number `depth`."""
    parts = path.split("/")
    if len(parts) < depth + 2:
        raise VinyError(f"{location}: the image {path} lies in no class folder; move it to one, or away")
    return parts[depth]
