"""Helpers of these tests: specifications, data sets packed as publishers do, small images, stores compared."""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from viny.config.sections import SETS, DataSet
from viny.datasets.store import Store
from viny.grid import StoreSpec

SOURCES = {"imagenet": "imagenet/train", "intel": "intel", "pets": "oxford-iiit-pet"}


def make_spec(root: Path, source: Path, base: Path, name: str = "own", **fields: Any) -> StoreSpec:
    """A specification with defaults; fields of the data set beside those of the store."""
    own = {key: fields.pop(key) for key in tuple(fields) if key in DataSet.model_fields and key != "images"}
    dataset = DataSet(**(SETS.get(name, {"images": "images"}) | own))
    defaults = {"procedural": None, "pixels": 16, "split_seed": 0, "tests": 5, "images": None, "bad_images": "stop"}
    return StoreSpec(name=name, source=source, spec=dataset, root=root, base=base, **(defaults | fields))


def same(one: Store, other: Store) -> bool:
    """Whether two stores hold the same rows, bit for bit."""
    masks = (one.masks is None and other.masks is None) or (one.masks == other.masks).all()
    labels = (one.labels is None and other.labels is None) or (one.labels == other.labels).all()
    names = one.names == other.names and one.checksum(one.count) == other.checksum(other.count)
    return bool((one.images == other.images).all() and masks and labels and names)


def tar_of_tars(train: Path, path: Path) -> Path:
    """`train/CLASS/FILE` packed as ILSVRC2012_img_train.tar is: a tar of one tar a class."""
    with tarfile.open(path, "w") as outer:
        for folder in sorted((folder for folder in train.iterdir() if folder.is_dir()), reverse=True):
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
