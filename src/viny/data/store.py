"""Decoded images as uint8 arrays on disk, opened in no time.

A store is a folder that only grows:

    images.u8      rows of S x S x 3 bytes, one after the other, without a header
    masks.u8       rows of S x S bytes (0 foreground, 1 background, 2 border), for data sets with trimaps
    index.jsonl    one line per image in the order of the store: a row, or an image left out with the reason
    state.json     how much of the three is valid (the builder's)
    first=N.json   manifest: vouches for the first N rows; all.json for all of them
"""

import hashlib
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from viny.errors import VinyError

FORMAT = 1
IMAGES, MASKS, INDEX = "images.u8", "masks.u8", "index.jsonl"
REQUIRED = ("format", "dataset", "count", "lines", "pixels", "masks", "classes", "checksum")


@dataclass(frozen=True)
class Store:
    """The first `count` rows of a store; see `Store.open`.

    Attributes:
        manifest: path of the manifest.
        dataset: `imagenet`, `intel-train`, `intel-test` or `pets`.
        count: number of rows N.
        pixels: side S of the stored images.
        images: uint8 (N, S, S, 3), RGB, the whole image squashed to a square; memory-mapped, read-only.
        masks: uint8 (N, S, S), 0 foreground, 1 background, 2 border; memory-mapped; None without trimaps.
        labels: int64 (N,), class indices.
        aspect: float32 (N,), width / height of the original image.
        names: N names, unique.
        classes: names of the classes.
        checksum: identifies the content of all rows.
    """

    manifest: Path
    dataset: str
    count: int
    pixels: int
    images: np.ndarray
    masks: np.ndarray | None
    labels: np.ndarray
    aspect: np.ndarray
    names: list[str]
    classes: list[str]
    checksum: str
    crc32: np.ndarray

    @classmethod
    def open(cls, manifest: str | Path) -> "Store":
        """Open what `manifest` vouches for; reads the index, not the pixels.

        Raises:
            VinyError: no manifest, no store beside it, a store of another kind, cut short or changed since.
        """
        path = Path(manifest)
        described = _read_manifest(path)
        count, side = described["count"], described["pixels"]
        rows = [row for row in read_index(path.parent, described["lines"]) if "skipped" not in row]
        if len(rows) != count or _checksum_of(rows, path.parent) != described["checksum"]:
            raise VinyError(f"{path} and {INDEX} beside it do not fit: one of them is damaged; {_rebuild(path.parent)}")
        return cls(
            manifest=path,
            dataset=described["dataset"],
            count=count,
            pixels=side,
            images=_map(path.parent / IMAGES, (count, side, side, 3)),
            masks=_map(path.parent / MASKS, (count, side, side)) if described["masks"] else None,
            labels=np.array([row["label"] for row in rows], dtype=np.int64),
            aspect=np.array([row["width"] / row["height"] for row in rows], dtype=np.float32),
            names=[row["name"] for row in rows],
            classes=described["classes"],
            checksum=described["checksum"],
            crc32=np.array([row["crc32"] for row in rows], dtype=np.uint32),
        )

    def verify(self, rows: int | None = None) -> None:
        """Read the pixels of the first `rows` rows (all by default) and compare them with the checksums taken
        when they were decoded.

        Raises:
            VinyError: naming the rows that differ.
        """
        rows = self.count if rows is None else min(rows, self.count)
        damaged = [i for i in range(rows) if self._row_crc32(i) != self.crc32[i]]
        if damaged:
            shown = ", ".join(f"{i} ({self.names[i]})" for i in damaged[:5])
            more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
            folder = self.manifest.parent
            raise VinyError(f"the store {folder} is damaged in the rows {shown}{more}; {_rebuild(folder)}")

    def _row_crc32(self, row: int) -> int:
        return row_crc32(self.images[row], None if self.masks is None else self.masks[row])


def row_crc32(image: np.ndarray, mask: np.ndarray | None) -> int:
    """CRC-32 of the bytes of an image followed by those of its mask."""
    value = zlib.crc32(np.ascontiguousarray(image))
    return value if mask is None else zlib.crc32(np.ascontiguousarray(mask), value)


def checksum(rows: Iterable[dict[str, Any]]) -> str:
    """SHA-256 over content checksum, label, original size and name of each row, in hexadecimal."""
    lines = (f"{r['crc32']:08x} {r['label']} {r['width']}x{r['height']} {r['name']}\n" for r in rows)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def read_index(folder: Path, lines: int | None = None) -> list[dict[str, Any]]:
    """The first `lines` lines of the index of a store (all by default).

    Raises:
        VinyError: the index is missing or damaged.
    """
    path = folder / INDEX
    try:
        with path.open("rb") as file:
            text = b",".join(islice(file, lines))
        read = json.loads(b"[" + text + b"]")
        if not all(isinstance(line, dict) for line in read):
            raise ValueError("a line is no JSON object")
        return read
    except FileNotFoundError:
        raise VinyError(f"{path} is missing, so {folder} is not a whole store; {_rebuild(folder)}") from None
    except ValueError as error:
        raise VinyError(f"{path} is damaged ({error}); {_rebuild(folder)}") from error


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise VinyError(
            f"there is no store manifest {path}; make it with `python -m viny.data.ingest --manifest {path} ...`"
        ) from None
    except ValueError as error:
        raise VinyError(f"{path} is damaged ({error}); delete it and ingest again") from error
    if not isinstance(described, dict) or any(key not in described for key in REQUIRED):
        raise VinyError(
            f"{path} is not the manifest of a store; expected a file such as first=1000.json beside {IMAGES}"
        )
    if described["format"] != FORMAT:
        raise VinyError(
            f"{path} has store format {described['format']}, this version reads {FORMAT}; {_rebuild(path.parent)}"
        )
    wrong = [key for key in ("count", "lines", "pixels") if type(described[key]) is not int or described[key] < 1]
    if wrong:
        raise VinyError(f"{path} is damaged ({wrong[0]} is {described[wrong[0]]!r}); delete it and ingest again")
    return described


def _checksum_of(rows: list[dict[str, Any]], folder: Path) -> str:
    try:
        return checksum(rows)
    except (KeyError, TypeError, ValueError) as error:
        raise VinyError(f"{folder / INDEX} is damaged ({type(error).__name__}: {error}); {_rebuild(folder)}") from error


def _map(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    expected = int(np.prod(shape, dtype=np.int64))
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise VinyError(f"{path} is missing; {_rebuild(path.parent)}") from None
    if size < expected:
        raise VinyError(f"{path} has {size:,} bytes where {expected:,} are expected; {_rebuild(path.parent)}")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _rebuild(folder: Path) -> str:
    return f"delete the folder {folder} and ingest again"
