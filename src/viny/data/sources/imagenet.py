"""ImageNet-1K train: the extracted folder, or `ILSVRC2012_img_train.tar` as it is downloaded."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viny import console
from viny.data.sources.base import (
    BadImage,
    Entry,
    FolderReader,
    Source,
    archive_parts,
    check_size,
    class_folders,
    is_image,
    is_junk,
    list_class_folders,
    require_all_classes,
)
from viny.errors import VinyError

LAYOUT = "a folder of class folders (train/n01440764/n01440764_18.JPEG) or ILSVRC2012_img_train.tar"
INDEX = "tar-index.npz"


def open_imagenet(path: Path, cache: Path | None = None) -> Source:
    """List the images of `path`, a `train/` folder or the tar of class tars; nothing is extracted.

    Going through the headers of the 138 GB archive takes minutes; `cache` is the folder that keeps the result.
    """
    if path.is_file():
        classes, entries = _cached_index(path, cache)
        reader = TarReader(str(path))
    elif path.is_dir():
        root = path / "train" if (path / "train").is_dir() else path
        classes = class_folders(root)
        entries = list_class_folders(root, classes)
        reader = FolderReader(str(root))
    else:
        raise VinyError(f"no ImageNet at {path}; expected {LAYOUT}: put it there or change data.imagenet")
    if not entries:
        tars = sorted(path.glob("*.tar")) if path.is_dir() else []
        hint = f" (there is {tars[0].name}: only the tar that holds all class tars is read as it is)" if tars else ""
        raise VinyError(f"no images found in {path}; expected {LAYOUT}{hint}")
    require_all_classes(classes, entries, str(path))
    return Source("imagenet", str(path), classes, entries, reader)


@dataclass(frozen=True)
class TarReader:
    """Reads members of an uncompressed tar at known offsets."""

    path: str

    def image(self, entry: Entry) -> bytes:
        check_size(entry.size)
        with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) < entry.size:
            raise VinyError(f"{self.path} ends within {entry.name}; the archive is incomplete: download it again")
        return data

    def mask(self, entry: Entry) -> bytes:
        raise BadImage("has no trimap")

    def place(self, entry: Entry) -> str:
        return f"{self.path}: {entry.name}"


def index_tar(path: Path) -> tuple[list[str], list[Entry]]:
    """Classes and images of a tar of class tars, found by hopping from header to header.

    Raises:
        VinyError: not such an archive, compressed, cut short, damaged, or a member that is a link or points outside.
    """
    found: dict[str, list[tuple[str, int, int]]] = {}
    bar = console.Progress(f"listing {path.name}", path.stat().st_size // 10**6, "MB")
    try:
        with tarfile.open(path, "r:") as outer:
            for member, name in _files(outer, str(path)):
                if not name.endswith(".tar"):
                    continue
                images = found.setdefault(name.removesuffix(".tar"), [])
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for image, image_name in _files(inner, f"{path}: {name}"):
                        if is_image(image_name):
                            images.append((image_name, image.size, member.offset_data + image.offset_data))
                bar.advance((member.offset_data + member.size) // 10**6 - bar.done)
    except tarfile.TarError as error:
        raise VinyError(
            f"{path} cannot be read as an uncompressed tar archive of class archives ({error}); "
            "it is probably incomplete: compare its size with the publisher's and download it again"
        ) from error
    classes = sorted(found)
    entries = [
        Entry(f"{name}/{file}", label, size, offset)
        for label, name in enumerate(classes)
        for file, size, offset in found[name]
    ]
    return classes, entries


def _files(archive: tarfile.TarFile, where: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """The regular files of an archive with the last component of their names."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # tarfile would keep all 1.28 million
        parts = archive_parts(member.name, where)
        if member.isdir() or not parts or is_junk(parts[-1]):
            continue
        if not member.isreg() or member.issparse():
            raise VinyError(f"{where}: refused, because its member {member.name!r} is a link or device; get it anew")
        yield member, parts[-1]
    # tarfile takes a damaged or missing header for the end; the real end is a block of zeros.
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset:,} of {where}")


def _cached_index(path: Path, cache: Path | None) -> tuple[list[str], list[Entry]]:
    """`index_tar`, remembered in `cache` for as long as the archive keeps its size and modification time."""
    status = path.stat()
    key = [status.st_size, status.st_mtime_ns]
    file = cache / INDEX if cache else None
    if file and file.exists():
        try:
            with np.load(file, allow_pickle=False) as saved:
                if saved["key"].tolist() == key:
                    return _unpack(saved["classes"], saved["names"], saved["numbers"])
        except (OSError, ValueError, KeyError, EOFError):
            console.say(f"{file} is damaged; listing {path} afresh")
    classes, entries = index_tar(path)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as out:
            np.savez(out, key=np.array(key), **_pack(classes, entries))
        temporary.replace(file)
    return classes, entries


def _pack(classes: list[str], entries: list[Entry]) -> dict[str, np.ndarray]:
    names = [entry.name.encode("utf-8", "surrogateescape") for entry in entries]
    numbers = [(entry.label, entry.size, entry.offset) for entry in entries]
    return {
        "classes": np.array([name.encode("utf-8", "surrogateescape") for name in classes], dtype=np.bytes_),
        "names": np.array(names, dtype=np.bytes_),
        "numbers": np.array(numbers, dtype=np.int64).reshape(-1, 3),
    }


def _unpack(classes: np.ndarray, names: np.ndarray, numbers: np.ndarray) -> tuple[list[str], list[Entry]]:
    texts = (name.decode("utf-8", "surrogateescape") for name in names.tolist())
    entries = [Entry(name, *row) for name, row in zip(texts, numbers.tolist(), strict=True)]
    return [name.decode("utf-8", "surrogateescape") for name in classes.tolist()], entries
