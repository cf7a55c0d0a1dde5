"""The files below a folder or in an archive, listed once, without decoding anything."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
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
    """Where the bytes of a file are.

    Attributes:
        path: below the tree's folder; the member's name in an archive.
        size: bytes; MISSING or IRREGULAR if there are none.
        offset: first byte within an archive.
    """

    path: str
    size: int
    offset: int = 0


class Reader(Protocol):
    """Reads files of a tree; can be pickled and sent to a worker process."""

    def read(self, file: File) -> bytes:
        """Content of a file; raises BadImage, or OSError if the disk fails."""

    def place(self, file: File) -> str:
        """Where a person finds it."""


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


@dataclass(frozen=True)
class Tree:
    """What lies below a folder or in an archive.

    Attributes:
        location: the folder or archive.
        images: files whose name is that of an image, by path with forward slashes.
        others: all other files.
        folders: paths of all folders.
        broken: links that lead to nothing and do not have the name of an image; each may have been a folder of images.
        hidden: number of hidden files and by-products of operating systems.
    """

    location: str
    reader: Reader
    images: dict[str, File]
    others: dict[str, File]
    folders: set[str]
    broken: list[str]
    hidden: int = 0

    def below(self, folder: str) -> "Tree":
        """The part below a folder, paths relative to it; the whole for an empty `folder`."""
        if not folder:
            return self
        top = f"{folder}/"

        def cut(files: dict[str, File]) -> dict[str, File]:
            return {path.removeprefix(top): file for path, file in files.items() if path.startswith(top)}

        return replace(
            self,
            location=f"{self.location}/{folder}",
            images=cut(self.images),
            others=cut(self.others),
            folders={path.removeprefix(top) for path in self.folders if path.startswith(top)},
            broken=[path.removeprefix(top) for path in self.broken if path.startswith(top)],
        )

    def read(self, path: str) -> bytes:
        """Content of one of `others`."""
        where = f"{self.location}/{path}"
        try:
            return self.reader.read(self.others[path])
        except KeyError:
            raise VinyError(f"there is no {where}") from None
        except (BadImage, OSError) as error:
            raise VinyError(f"{where} cannot be read ({error}); correct it or its permissions") from error

    @cached_property
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
    """List a folder; a million files take seconds."""
    tree = Tree(root, FolderReader(root), {}, {}, set(), [])
    hidden = 0
    top = os.stat(root)  # noqa: PTH116
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
                hidden += 1
                continue
            path = prefix + item.name
            try:
                status = item.stat()
            except OSError:  # a link to nothing, or to itself
                status = None
            if status is not None and stat.S_ISDIR(status.st_mode):
                here = (status.st_dev, status.st_ino)
                if here in above:
                    hidden += 1  # a link to a folder that it lies in: everything there is listed already
                else:
                    tree.folders.add(path)
                    waiting.append((path + "/", (*above, here)))
                continue
            if is_image(item.name):
                tree.images[path] = File(path, size_of(status))
            elif status is None:
                tree.broken.append(path)
            else:
                tree.others[path] = File(path, size_of(status))
    return replace(tree, hidden=hidden)


def size_of(status: os.stat_result | None) -> int:
    """Bytes of a file, MISSING or IRREGULAR; of nothing by None."""
    return MISSING if status is None else status.st_size if stat.S_ISREG(status.st_mode) else IRREGULAR


def bad_size(file: File) -> str:
    """What is wrong with what is no file, or larger than any photograph; empty for all others."""
    if file.size == MISSING:
        return "is not there, or a link to something that is not there"
    if file.size == IRREGULAR:
        return "is neither a file nor a folder"
    too_large = f"is {file.size / 2**20:,.0f} MiB large, more than the {MAX_FILE_BYTES >> 20} MiB allowed"
    return too_large if file.size > MAX_FILE_BYTES else ""


def check_size(file: File) -> None:
    """Raise BadImage for what is no file, or larger than any photograph."""
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
