"""The files below a folder or in an archive, listed once, without decoding anything."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from viny.datasets.decode import BadImage
from viny.errors import VinyError

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
JUNK = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"})
MISSING = -1  # size of a file that is not there: listed somewhere, or a link to nothing
IRREGULAR = -2  # size of what is neither a file nor a folder: a pipe, a device
MAX_FILE_BYTES = 256 * 2**20


class File(NamedTuple):
    """Where the bytes of a file are."""

    path: str  # below the tree's folder; the member's name in an archive
    size: int  # in bytes; MISSING or IRREGULAR if there are none
    offset: int = 0  # of the first byte within an archive


class Reader(Protocol):
    """Reads files of a tree; can be pickled and sent to a worker process."""

    def read(self, file: File) -> bytes:
        """Content of a file; raises BadImage, or OSError if the disk fails."""

    def place(self, file: File) -> str:
        """Path to show in messages."""


@dataclass(frozen=True)
class FolderReader:
    """Reads files below a folder."""

    root: str

    def read(self, file: File) -> bytes:
        check_size(file)
        with open(self.place(file), "rb") as opened:  # noqa: PTH123  (a million times: Path is several times slower)
            return opened.read()

    def place(self, file: File) -> str:
        return os.path.join(self.root, file.path)  # noqa: PTH118

    def find(self, path: str) -> File:
        """The file at a path; of size MISSING if there is none."""
        try:
            return File(path, _size(os.stat(os.path.join(self.root, path))))  # noqa: PTH116, PTH118
        except OSError:
            return File(path, MISSING)


@dataclass
class Tree:
    """What lies below a folder or in an archive."""

    location: str  # the folder or archive
    reader: Reader
    images: dict[str, File] = field(default_factory=dict)  # files named as images, by path with forward slashes
    others: dict[str, File] = field(default_factory=dict)  # all other files
    folders: set[str] = field(default_factory=set)  # paths of all folders
    broken: list[str] = field(default_factory=list)  # links to nothing, each of which may have been a folder of images
    hidden: int = 0  # number of hidden files and by-products of operating systems

    def below(self, folder: str) -> "Tree":
        """The part below a folder, paths relative to it; the whole for an empty `folder`."""
        if not folder:
            return self
        top = f"{folder}/"

        def cut(paths: Iterable[str]) -> dict[str, str]:
            return {path.removeprefix(top): path for path in paths if path.startswith(top)}

        images = {name: self.images[path] for name, path in cut(self.images).items()}
        others = {name: self.others[path] for name, path in cut(self.others).items()}
        folders, broken = set(cut(self.folders)), list(cut(self.broken))
        return Tree(f"{self.location}/{folder}", self.reader, images, others, folders, broken, self.hidden)

    def read(self, path: str) -> bytes:
        """Content of one of `others`."""
        try:
            return self.reader.read(self.others[path])
        except (BadImage, OSError) as error:
            raise VinyError(
                f"{self.location}/{path} cannot be read ({error}); correct it or its permissions"
            ) from error

    @property
    def ignored(self) -> Counter[str]:
        """Number of files that are no images, by suffix."""
        counts = Counter(os.path.splitext(path)[1].lower() or "without suffix" for path in self.others)  # noqa: PTH122
        return counts + Counter({"hidden": self.hidden})


def open_tree(path: Path) -> Tree:
    """List a folder (links are followed), a tar or a zip.

    Raises:
        VinyError: nothing there, a folder that cannot be listed, an archive that cannot be read.
    """
    if path.is_dir():
        return scan(str(path))
    if path.is_file():
        from viny.datasets.archives import open_archive

        return open_archive(path)
    what = f"{path} is neither a file nor a folder" if path.exists() else f"there is no {path}"
    raise VinyError(f"{what}; put a folder, tar or zip of images there, or change the path in the study file")


def scan(root: str) -> Tree:
    """List a folder, a million files in seconds."""
    tree, top = Tree(root, FolderReader(root)), os.stat(root)  # noqa: PTH116
    waiting: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ((top.st_dev, top.st_ino),))]
    while waiting:
        prefix, above = waiting.pop()
        try:
            with os.scandir(os.path.join(root, prefix)) as found:  # noqa: PTH118
                items = list(found)
        except OSError as error:
            raise VinyError(f"{root}/{prefix} cannot be listed ({error.strerror})") from error
        for item in items:
            if is_junk(item.name):
                tree.hidden += 1
                continue
            path = prefix + item.name
            try:
                status = item.stat()
            except OSError:  # a link to nothing, or to itself
                status = None
            if status is not None and stat.S_ISDIR(status.st_mode):
                here = (status.st_dev, status.st_ino)
                if here in above:
                    tree.hidden += 1  # a link to a folder that it lies in: everything there is listed already
                else:
                    tree.folders.add(path)
                    waiting.append((path + "/", (*above, here)))
                continue
            size = MISSING if status is None else _size(status)
            if is_image(item.name):
                tree.images[path] = File(path, size)
            elif status is None:
                tree.broken.append(path)
            else:
                tree.others[path] = File(path, size)
    return tree


def _size(status: os.stat_result) -> int:
    return status.st_size if stat.S_ISREG(status.st_mode) else IRREGULAR


def bad_size(file: File) -> str:
    """Why a file cannot be read as an image: missing, not a file, or too large; empty if it can."""
    if file.size == MISSING:
        return "is not there, or a link to something that is not there"
    if file.size == IRREGULAR:
        return "is neither a file nor a folder"
    too_large = f"is {file.size / 2**20:,.0f} MiB large, more than the {MAX_FILE_BYTES >> 20} MiB allowed"
    return too_large if file.size > MAX_FILE_BYTES else ""


def check_size(file: File) -> None:
    """Raise BadImage if `bad_size` has a reason."""
    if reason := bad_size(file):
        raise BadImage(reason)


def is_image(name: str) -> bool:
    """Whether a file name is that of an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def is_junk(name: str) -> bool:
    """Whether a file or folder is hidden or a by-product of an operating system (`._x.jpg`, `__MACOSX`)."""
    return name.startswith(".") or name in JUNK


def some(names: Iterable[str], limit: int = 5) -> str:
    """`a, b, c, d, e and 4 more`."""
    every = list(names)
    return ", ".join(every[:limit]) + (f" and {len(every) - limit:,} more" if len(every) > limit else "")
