"""What all sources share: entries with a name, a label and a place, and a reader of their bytes."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from viny.errors import VinyError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
MISSING = -1  # size of a file that is listed but not there
MAX_FILE_BYTES = 256 * 2**20


class BadImage(Exception):
    """An image that cannot be used; the text says what is wrong with it, without naming a path."""


class Entry(NamedTuple):
    """One image of a source.

    Attributes:
        name: its identity wherever the data set lies and however it is packed: `CLASS/FILE`, or the image id (Pets).
        label: class index, 0-based.
        size: bytes of the image file; MISSING if it is listed but not there.
        offset: first byte within an archive; 0 for files of their own.
        mask_size: bytes of the trimap file; MISSING if it is not there, 0 for data sets without trimaps.
    """

    name: str
    label: int
    size: int
    offset: int = 0
    mask_size: int = 0


class Reader(Protocol):
    """Reads the bytes of an entry; can be pickled and sent to a worker process."""

    def image(self, entry: Entry) -> bytes:
        """Content of the image file; raises BadImage."""

    def mask(self, entry: Entry) -> bytes:
        """Content of the trimap file; raises BadImage."""

    def place(self, entry: Entry) -> str:
        """Where a person finds the image."""


@dataclass(frozen=True)
class Source:
    """A data set as it lies on disk.

    Attributes:
        dataset: `imagenet`, `intel-train`, `intel-test` or `pets`.
        location: the folder or archive, for messages.
        classes: names of the classes, at the index that labels use.
        entries: the images, sorted by name.
        reader: reads their bytes.
        masks: whether every image comes with a trimap.
    """

    dataset: str
    location: str
    classes: list[str]
    entries: list[Entry]
    reader: Reader
    masks: bool = False

    def __post_init__(self):
        self.entries.sort()
        for one, other in zip(self.entries, self.entries[1:], strict=False):
            if one.name == other.name:
                raise VinyError(f"{self.location} lists {one.name} twice; remove one of the two")

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over names, labels and sizes: the same wherever the data set lies and however it is packed."""
        digest = hashlib.sha256("\n".join([self.dataset, *self.classes, ""]).encode("utf-8", "surrogateescape"))
        for entry in self.entries:
            line = f"{entry.name} {entry.label} {entry.size} {entry.mask_size}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class FolderReader:
    """Reads `ROOT/CLASS/FILE`."""

    root: str

    def image(self, entry: Entry) -> bytes:
        return read_file(self.place(entry), entry.size)

    def mask(self, entry: Entry) -> bytes:
        raise BadImage("has no trimap")

    def place(self, entry: Entry) -> str:
        return os.path.join(self.root, entry.name)  # noqa: PTH118  (a million times: Path is several times slower)


def read_file(path: str, size: int) -> bytes:
    """Content of an image file that was listed with `size` bytes; raises BadImage if it is too large to be one."""
    check_size(size)
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


def check_size(size: int) -> None:
    """Raise BadImage for a file size that no photograph has."""
    if size > MAX_FILE_BYTES:
        raise BadImage(f"is {size / 2**20:,.0f} MiB large, more than the {MAX_FILE_BYTES >> 20} MiB allowed")


def is_image(name: str) -> bool:
    """Whether a file name is that of an image; `._x.jpg` and the like, which macOS leaves behind, are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def class_folders(root: Path) -> list[str]:
    """Names of the folders in `root` that can be classes, sorted."""
    with os.scandir(root) as found:
        return sorted(item.name for item in found if item.is_dir() and not is_junk(item.name))


def is_junk(name: str) -> bool:
    """Whether a file or folder is a by-product of an operating system."""
    return name.startswith(".") or name == "__MACOSX"


def list_class_folders(root: Path, classes: list[str]) -> list[Entry]:
    """All images in `root/CLASS/` for the given classes; labels are indices into `classes`."""
    entries = []
    for label, name in enumerate(classes):
        with os.scandir(root / name) as found:
            entries += [
                Entry(f"{name}/{item.name}", label, item.stat().st_size)
                for item in found
                if is_image(item.name) and item.is_file()
            ]
    return entries


def require_all_classes(classes: list[str], entries: Iterable[Entry], location: str) -> None:
    """Raise VinyError if a class has no image."""
    seen = {entry.label for entry in entries}
    empty = [name for label, name in enumerate(classes) if label not in seen]
    if empty:
        raise VinyError(
            f"{location}: no images in {listed(empty, 'class', 'classes')}; "
            "the extraction or download was probably cut short: repeat it, or remove the empty folders"
        )


def archive_parts(name: str, archive: str) -> tuple[str, ...]:
    """Path components of an archive member; raises VinyError for a name that points out of the archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise VinyError(f"{archive}: refused, because its member {name!r} points out of the archive; get it anew")
    return path.parts


def listed(names: list[str], one: str, many: str, limit: int = 5) -> str:
    """`class a`, or `classes a, b, c and 4 more`."""
    shown = ", ".join(names[:limit])
    if len(names) == 1:
        return f"{one} {shown}"
    return f"{many} {shown}" + (f" and {len(names) - limit} more" if len(names) > limit else "")
