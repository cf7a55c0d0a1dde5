"""Intel Image Classification: the folder as the Kaggle archive unpacks, or the archive itself."""

import stat
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

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
    listed,
    require_all_classes,
)
from viny.errors import VinyError

CLASSES = ["buildings", "forest", "glacier", "mountain", "sea", "street"]


def open_intel(path: Path, split: str) -> Source:
    """List the images of one split, `train` or `test`, of a folder or zip.

    Both `seg_train/seg_train/CLASS/FILE`, as the archive has it, and `seg_train/CLASS/FILE` are read.
    """
    folder = f"seg_{split}"
    if path.is_file():
        classes, entries, reader = _list_zip(path, folder)
    elif path.is_dir():
        root = path / folder
        if (root / folder).is_dir():
            root = root / folder
        if not root.is_dir():
            zips = sorted(path.glob("*.zip"))
            hint = f"; to read the archive itself, set data.intel to {zips[0].name} in it" if zips else ""
            raise VinyError(
                f"no Intel images in {path}: there is no folder {folder} in it; expected {folder}/CLASS/FILE.jpg"
                f" or {folder}/{folder}/CLASS/FILE.jpg{hint}"
            )
        classes = class_folders(root)
        entries = list_class_folders(root, classes)
        reader = FolderReader(str(root))
    else:
        raise VinyError(
            f"no Intel Image Classification at {path}; expected the folder or zip that Kaggle hands out: "
            "put it there or change data.intel"
        )
    where = f"{path} ({folder})"
    missing = [name for name in CLASSES if name not in classes]
    if missing:
        raise VinyError(f"{where}: {listed(missing, 'class', 'classes')} missing; expected {', '.join(CLASSES)}")
    foreign = [name for name in classes if name not in CLASSES]
    if foreign:
        raise VinyError(
            f"{where}: unknown {listed(foreign, 'class', 'classes')}; expected only {', '.join(CLASSES)}: "
            "move other folders away"
        )
    require_all_classes(classes, entries, where)
    return Source(f"intel-{split}", where, classes, entries, reader)


@dataclass
class ZipReader:
    """Reads `PREFIX/CLASS/FILE` members of a zip; every process opens it once."""

    path: str
    prefix: str
    _archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)

    def image(self, entry: Entry) -> bytes:
        check_size(entry.size)
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        try:
            return self._archive.read(f"{self.prefix}{entry.name}")
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise BadImage("is damaged within the archive (its checksum does not fit)") from error
        except (NotImplementedError, RuntimeError) as error:  # unknown compression, encryption
            raise VinyError(
                f"{self.place(entry)} cannot be unpacked ({error}); extract the archive yourself"
            ) from error

    def mask(self, entry: Entry) -> bytes:
        raise BadImage("has no trimap")

    def place(self, entry: Entry) -> str:
        return f"{self.path}: {self.prefix}{entry.name}"

    def __getstate__(self) -> dict:
        return {"path": self.path, "prefix": self.prefix, "_archive": None}


def _list_zip(path: Path, folder: str) -> tuple[list[str], list[Entry], ZipReader]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise VinyError(f"{path} cannot be read as a zip archive ({error}); download it again") from error
    found: dict[str, list[tuple[str, str, zipfile.ZipInfo]]] = {}
    for member in members:
        parts = archive_parts(member.filename, str(path))
        if member.is_dir() or any(is_junk(part) for part in parts) or folder not in parts[:-1]:
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise VinyError(f"{path}: refused, because its member {member.filename!r} is a link; get it anew")
        start = len(parts) - parts[::-1].index(folder)  # after the inner of two folders of that name
        if len(parts) == start + 2 and is_image(parts[-1]):
            prefix = "".join(f"{part}/" for part in parts[:start])
            found.setdefault(prefix, []).append((parts[-2], parts[-1], member))
    if len(found) != 1:
        where = f"in several places ({', '.join(sorted(found))})" if found else "nowhere"
        raise VinyError(f"{path}: {folder}/CLASS/FILE.jpg found {where}, expected in one place")
    prefix, images = found.popitem()
    classes = sorted({name for name, _, _ in images})
    labels = {name: label for label, name in enumerate(classes)}
    entries = [
        Entry(f"{name}/{file}", labels[name], member.file_size, member.header_offset) for name, file, member in images
    ]
    return classes, entries, ZipReader(str(path), prefix)
