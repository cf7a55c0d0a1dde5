"""Packs data sets as their publishers do, and compares stores."""

import io
import tarfile
import zipfile
from pathlib import Path

from viny.data.store import Store


def same(one: Store, other: Store) -> bool:
    """Whether two stores hold the same rows, bit for bit."""
    masks = (one.masks is None and other.masks is None) or (one.masks == other.masks).all()
    arrays = (one.images == other.images).all() and (one.labels == other.labels).all() and masks
    return bool(arrays and one.names == other.names and one.checksum == other.checksum)


def tar_of_tars(train: Path, path: Path) -> Path:
    """`train/CLASS/FILE` packed as ILSVRC2012_img_train.tar is: a tar of one tar a class."""
    with tarfile.open(path, "w") as outer:
        for folder in sorted(train.iterdir(), reverse=True):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for file in sorted(folder.iterdir()):
                    inner.add(file, file.name)
            add_bytes(outer, f"{folder.name}.tar", buffer.getvalue())
    return path


def add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member with the given content to a tar."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def zip_folder(folder: Path, path: Path, prefix: str = "") -> Path:
    """All files below `folder` as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path
