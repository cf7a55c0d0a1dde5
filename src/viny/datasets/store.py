"""Decoded images as memory-mapped uint8 arrays.

A store is a folder that is put in place only when it is complete:

    images.u8      rows of S x S x 3 bytes, without a header
    masks.u8       rows of S x S bytes, class indices or IGNORE, for data sets with masks
    index.jsonl    one line per row: name, label, width, height, CRC-32
    digests.u64    per row the digest of all rows up to it, so that any prefix has a checksum
    signatures.u8  per row 776 bytes by which copies of an image are found
    manifest.json  what it holds, and where it comes from
"""

import hashlib
import json
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from viny.errors import VinyError

FORMAT = 3
IMAGES, MASKS, INDEX, DIGESTS, MANIFEST = "images.u8", "masks.u8", "index.jsonl", "digests.u64", "manifest.json"
SIGNATURES = "signatures.u8"
FILES = frozenset({IMAGES, MASKS, INDEX, DIGESTS, SIGNATURES, MANIFEST})
SIGNATURE = 776  # bytes of a signature, see `viny.datasets.leaks`
IGNORE = 255  # label of mask pixels that count neither in the loss nor in the metrics
# Fields of the manifest that a store cannot be read without.
FIELDS = {"name": str, "pixels": int, "count": int, "tests": int, "classes": list, "mask_classes": list}


class Line(NamedTuple):
    """A line of the index: a row's name, class index (-1 without classes), size of the original image, and checksum."""

    name: str
    label: int
    width: int
    height: int
    crc32: int


@dataclass(frozen=True)
class Store:
    """Decoded images; rows [0, tests) are test images, rows [tests, N) training images in seeded order."""

    folder: Path
    name: str  # of the data set in the study file
    count: int  # number of rows N
    tests: int
    pixels: int  # side S of the stored images
    images: np.ndarray  # uint8 (N, S, S, 3), RGB, the whole image squashed to a square; memory-mapped, read-only
    masks: np.ndarray | None  # uint8 (N, S, S), class indices or IGNORE; memory-mapped
    labels: np.ndarray | None  # int64 (N,), class indices
    aspect: np.ndarray  # float32 (N,), width / height of the original image
    names: list[str]
    classes: list[str]  # names of the classes of `labels`
    mask_classes: list[str]  # names of the classes of `masks`
    numbers: np.ndarray  # int64 (N, 4), the lines of the index without their names
    signatures: np.ndarray  # uint8 (N, 776), by which copies of an image are found; memory-mapped

    @classmethod
    def open(cls, folder: Path) -> "Store":
        """Open the store in `folder`; reads the index, not the pixels.

        Raises:
            VinyError: no store there, one of another format, or one whose files do not have the sizes they should.
        """
        manifest = read_manifest(folder)
        if manifest is None:
            raise VinyError(f"{folder} is not a whole store of this version; {_rebuild(folder)}")
        count, side = manifest["count"], manifest["pixels"]
        sizes = {IMAGES: count * side * side * 3, DIGESTS: count * 8, SIGNATURES: count * SIGNATURE}
        if manifest["mask_classes"]:
            sizes[MASKS] = count * side * side
        for name, expected in sizes.items():
            size = (folder / name).stat().st_size if (folder / name).is_file() else None
            if size != expected:
                found = "is missing" if size is None else f"has {size:,} bytes where {expected:,} are expected"
                raise VinyError(f"{folder / name} {found}; {_rebuild(folder)}")
        names, numbers = _read_index(folder, count)
        return cls(
            folder=folder,
            name=manifest["name"],
            count=count,
            tests=manifest["tests"],
            pixels=side,
            images=np.memmap(folder / IMAGES, np.uint8, "r", shape=(count, side, side, 3)),
            masks=np.memmap(folder / MASKS, np.uint8, "r", shape=(count, side, side)) if MASKS in sizes else None,
            labels=numbers[:, 0].copy() if manifest["classes"] else None,
            aspect=(numbers[:, 1] / numbers[:, 2]).astype(np.float32),
            names=names,
            classes=manifest["classes"],
            mask_classes=manifest["mask_classes"],
            numbers=numbers,
            signatures=np.memmap(folder / SIGNATURES, np.uint8, "r", shape=(count, SIGNATURE)),
        )

    def checksum(self, rows: int) -> str:
        """Checksum of the content of the first `rows` rows."""
        return _digest(self.folder, rows)

    def verify(self, rows: int | None = None) -> None:
        """Read the first `rows` rows (all by default) and compare them with the checksums taken when they were decoded.

        Raises:
            VinyError: naming the rows that differ.
        """
        rows = self.count if rows is None else min(rows, self.count)
        expected = np.fromfile(self.folder / DIGESTS, "<u8", rows)
        counts = len(self.classes), len(self.mask_classes)
        lines = (Line(name, *row.tolist()) for name, row in zip(self.names[:rows], self.numbers, strict=False))
        if not np.array_equal(digests(lines, self.tests, *counts), expected):
            raise VinyError(
                f"{self.folder}: {INDEX}, {MANIFEST} and {DIGESTS} do not fit together; {_rebuild(self.folder)}"
            )
        masks = [None] * rows if self.masks is None else self.masks
        found = (row_crc32(*pair) for pair in zip(self.images[:rows], masks, strict=False))
        damaged = [row for row, crc32 in enumerate(found) if crc32 != self.numbers[row, 3]]
        if damaged:
            shown = ", ".join(f"{row} ({self.names[row]})" for row in damaged[:5])
            more = f" and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
            raise VinyError(f"the store {self.folder} is damaged in the rows {shown}{more}; {_rebuild(self.folder)}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the store in `folder`; None if there is no whole store of this format."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    if any(type(manifest.get(name)) is not kind for name, kind in FIELDS.items()):
        return None
    whole = manifest["count"] >= 1 and 0 <= manifest["tests"] <= manifest["count"] and 1 <= manifest["pixels"] <= 2**16
    return manifest if whole else None


def prefix_checksum(folder: Path, rows: int) -> str | None:
    """Checksum of the first `rows` rows of the store in `folder`; None if there is no whole store with so many rows."""
    manifest = read_manifest(folder)
    if manifest is None or not 1 <= rows <= manifest["count"]:
        return None
    try:
        return _digest(folder, rows) or None
    except OSError:
        return None


def row_crc32(image: np.ndarray, mask: np.ndarray | None) -> int:
    """CRC-32 of the bytes of an image followed by those of its mask, both contiguous."""
    value = zlib.crc32(image.data)
    return value if mask is None else zlib.crc32(mask.data, value)


def digests(lines: Iterable[Line], tests: int, classes: int, mask_classes: int) -> np.ndarray:
    """Per row the digest of all rows up to it: content, label, original size and name; uint64."""
    state = hashlib.sha256(f"{tests} {classes} {mask_classes}\n".encode())
    found = []
    for name, label, width, height, crc32 in lines:
        state.update(f"{crc32:08x} {label} {width}x{height} {name}\n".encode("utf-8", "surrogateescape"))
        found.append(state.digest()[:8])
    return np.frombuffer(b"".join(found), dtype="<u8")


def _digest(folder: Path, rows: int) -> str:
    return np.fromfile(folder / DIGESTS, "<u8", 1, offset=8 * (rows - 1)).tobytes().hex()


def _read_index(folder: Path, count: int) -> tuple[list[str], np.ndarray]:
    """The names of all rows, and int64 (N, 4) the other fields of their lines."""
    path, names, numbers = folder / INDEX, [], array("q")
    try:
        with path.open(encoding="utf-8") as file:
            for text in file:
                line = Line(**json.loads(text))
                whole = all(type(number) is int and -1 <= number < 2**32 for number in line[1:]) and line.height > 0
                if not whole or type(line.name) is not str:
                    raise ValueError(f"a line says {line._asdict()}")
                names.append(line.name)
                numbers.extend(line[1:])
        if len(names) != count:
            raise ValueError(f"{len(names):,} lines where {count:,} are expected")
        return names, np.frombuffer(numbers, np.int64).reshape(count, 4)
    except FileNotFoundError:
        raise VinyError(f"{path} is missing; {_rebuild(folder)}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise VinyError(f"{path} is damaged ({type(error).__name__}: {error}); {_rebuild(folder)}") from error


def _rebuild(folder: Path) -> str:
    return f"delete the folder {folder} and run the study again, which decodes the images again"
