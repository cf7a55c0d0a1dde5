"""Tars and zips as trees: members are read in place, nothing is extracted.

A tar of tars, as ImageNet is distributed, is read as if the inner ones were folders.
"""

import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from viny.datasets.decode import BadImage
from viny.datasets.trees import File, Reader, Tree, check_size, is_image, is_junk
from viny.errors import VinyError
from viny.logs import Progress

THREADS = 8  # inner tars that are listed at a time
MAX_HEADER_BYTES = 2**20  # of a tar's extended header, which holds a long name
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstandard"}
# What the libraries raise on damaged archives.
UNREADABLE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, OverflowError,
    IndexError, NotImplementedError,
)  # fmt: skip


def open_archive(path: Path) -> Tree:
    """List a tar or zip.

    Raises:
        VinyError: damaged, compressed as a whole, encrypted, a link, a name that is absolute or has
            `..`, two members of one name.
    """
    with path.open("rb") as file:
        start = file.read(8)
    kind = next((kind for magic, kind in COMPRESSED.items() if start.startswith(magic)), None)
    if kind:
        raise VinyError(
            f"{path} is compressed as a whole ({kind}), so single images cannot be read from it; unpack it to a folder "
            "or an uncompressed tar"
        )
    is_zip = start.startswith(b"PK") or zipfile.is_zipfile(path)
    try:
        members = _zip_members(path) if is_zip else _tar_members(path)
        return _tree(path, ZipReader(str(path)) if is_zip else TarReader(str(path)), members)
    except UNREADABLE as error:
        form = "a zip archive" if is_zip else "an uncompressed tar archive, nor as a zip archive"
        raise VinyError(
            f"{path} cannot be read as {form} ({error}); compare its size with that of the original, and copy or "
            "download it again"
        ) from error


@dataclass(frozen=True)
class TarReader:
    """Reads members of an uncompressed tar at known offsets."""

    path: str

    def read(self, file: File) -> bytes:
        check_size(file)
        with open(self.path, "rb", buffering=0) as opened:  # noqa: PTH123
            opened.seek(file.offset)
            data = opened.read(file.size)
        if len(data) < file.size:
            raise VinyError(f"{self.path} ends within {file.path}; copy or download the archive again")
        return data

    def place(self, file: File) -> str:
        return f"{self.path}: {file.path}"


@dataclass
class ZipReader:
    """Reads members of a zip; every process opens it once."""

    path: str
    _archive: zipfile.ZipFile | None = field(default=None, repr=False, compare=False)

    def read(self, file: File) -> bytes:
        check_size(file)
        if self._archive is None:
            self._archive = zipfile.ZipFile(self.path)
        try:
            return self._archive.read(file.path)
        except UNREADABLE as error:
            raise BadImage(f"cannot be unpacked from its archive ({error})") from error

    def place(self, file: File) -> str:
        return f"{self.path}: {file.path}"

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_archive": None}


def _tree(path: Path, reader: Reader, members: Iterator[tuple[str, File | None]]) -> Tree:
    """A tree of members (name, file; None for a folder)."""
    tree = Tree(str(path), reader)
    for name, file in members:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if any(is_junk(part) for part in parts):
            tree.hidden += file is not None
            continue
        tree.folders.update("/".join(parts[:depth]) for depth in range(1, len(parts) + (file is None)))
        if file is not None:
            clean = "/".join(parts)
            kind = tree.images if parts and is_image(parts[-1]) else tree.others
            if clean in kind:
                raise VinyError(f"{path} has two members named {clean}; make the archive again without one of them")
            kind[clean] = file
    return tree


def _checked(name: str, where: str) -> str:
    """A member's name with forward slashes (some programs for Windows write backslashes)."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:/", path) or ".." in path.split("/"):
        raise VinyError(
            f"{where} has a member {name!r}, whose name is absolute or has `..`; such archives are not read: "
            "make it again from within the folder of images"
        )
    return path


def _zip_members(path: Path) -> Iterator[tuple[str, File | None]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = _checked(member.filename, str(path))
            if stat.S_ISLNK(member.external_attr >> 16):
                raise VinyError(f"{path} has a member {member.filename!r} that is a link; pack the file itself instead")
            if member.flag_bits & 1:
                raise VinyError(f"{path} has a member {member.filename!r} that is encrypted; unpack it to a folder")
            folder = name.endswith("/")
            yield name, None if folder else File(member.filename, member.file_size, member.header_offset)


class _Member(tarfile.TarInfo):
    """A header that does not make tarfile read gigabytes for a name."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        names = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        if self.type in (*extended, *names) and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header claims {self.size:,} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _tar_members(path: Path) -> Iterator[tuple[str, File | None]]:
    progress = Progress(f"list {path.name}", path.stat().st_size // 10**6, "MB")
    inner: list[tuple[tarfile.TarInfo, str]] = []
    with tarfile.open(path, "r:", tarinfo=_Member) as outer:
        for member, name in _headers(outer, str(path)):
            if not member.isdir() and name.endswith(".tar"):
                inner.append((member, name))
            else:
                yield name, None if member.isdir() else File(name, member.size, member.offset_data)
    # Each header says where the next one is: listing one tar waits for the disk, several share the wait.
    with ThreadPoolExecutor(THREADS) as pool:
        for (tar, name), members in zip(inner, pool.map(partial(_inner_members, path), inner), strict=True):
            yield name.removesuffix(".tar"), None
            yield from members
            progress.advance((tar.offset_data + tar.size) // 10**6 - progress.done)


def _inner_members(path: Path, inner: tuple[tarfile.TarInfo, str]) -> list[tuple[str, File | None]]:
    """What `_tar_members` yields for the members of an inner tar, given by its header and name."""
    tar, name = inner
    members: list[tuple[str, File | None]] = []
    with (
        tarfile.open(path, "r:", tarinfo=_Member) as outer,
        tarfile.open(fileobj=outer.extractfile(tar), mode="r:", tarinfo=_Member) as archive,
    ):
        for member, inner_name in _headers(archive, f"{path}: {name}"):
            full, at = f"{name.removesuffix('.tar')}/{inner_name}", tar.offset_data + member.offset_data
            members.append((full, None if member.isdir() else File(full, member.size, at)))
    return members


def _headers(archive: tarfile.TarFile, where: str) -> Iterator[tuple[tarfile.TarInfo, str]]:
    """Files and folders of a tar with their names."""
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep all 1.28 million
        name = _checked(member.name, where)
        if not member.isdir() and (not member.isreg() or member.issparse()):
            raise VinyError(
                f"{where} has a member {member.name!r} that is a link, a device or a sparse file; pack the file itself "
                "instead (tar --dereference)"
            )
        yield member, name
    # tarfile takes a damaged or missing header for the end; the real end is a block of zeros.
    file: Any = archive.fileobj
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"damaged or cut off at byte {archive.offset:,} of {where}")
