"""Growing a store: rows become valid chunk by chunk, and a manifest vouches for a prefix of them."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from viny.data.files import write_atomically
from viny.data.sources.base import Entry
from viny.data.store import FORMAT, IMAGES, INDEX, MASKS, checksum, read_index
from viny.errors import VinyError

STATE = "state.json"


class Kind(NamedTuple):
    """What all rows of a store have in common; a store of another kind is never added to."""

    dataset: str
    pixels: int
    order_seed: int
    masks: bool
    classes: list[str]


class Result(NamedTuple):
    """What became of one image: its original size and the CRC-32 of its row, or the reason why it is bad."""

    width: int = 0
    height: int = 0
    crc32: int = 0
    reason: str | None = None


class Builder:
    """Appends to a store; the caller holds the lock of its folder.

    Attributes:
        index: the valid lines of the index: rows, and images left out (`skipped`).
        rows: number of valid rows.
    """

    def __init__(self, folder: Path, kind: Kind):
        """Open the store in `folder`, or begin one; what an interrupted build left beyond its last chunk is cut off.

        Raises:
            VinyError: the folder holds a store of another kind, a damaged one, or something else.
        """
        self.folder, self.kind = folder, kind
        self.files = [(IMAGES, kind.pixels**2 * 3)] + [(MASKS, kind.pixels**2)] * kind.masks  # bytes a row
        self.rows = 0
        folder.mkdir(parents=True, exist_ok=True)
        valid = self._read_state()
        for name, size in [*((name, valid["rows"] * size) for name, size in self.files), (INDEX, valid["index_bytes"])]:
            _cut(folder / name, size)
        self.index = read_index(folder)
        self.rows = sum("skipped" not in line for line in self.index)
        if self.rows != valid["rows"]:
            raise VinyError(f"{folder / INDEX} is damaged; {self._rebuild}")

    def remaining(self, order: Sequence[Entry]) -> Sequence[Entry]:
        """The part of `order` (all images of the source) that this store has not seen yet.

        An image that was left out may have been removed from the source since.

        Raises:
            VinyError: the store was made from other images.
        """
        at = 0
        for line in self.index:
            entry = order[at] if at < len(order) else None
            if entry and all(line.get(key) == value for key, value in _line(entry).items()):
                at += 1
            elif "skipped" not in line or (entry and entry.name == line["name"]):
                raise VinyError(
                    f"the store {self.folder} was made from another source: it has {_describe(line)} where the source "
                    f"now has {_describe(_line(entry)) if entry else 'nothing'}; point to the former source, "
                    f"or {self._rebuild}"
                )
        return order[at:]

    def append(self, entries: Sequence[Entry], results: Sequence[Result], slots: Sequence[int]) -> None:
        """Make images valid whose pixels lie in the files already, at the rows `slots`, in ascending order.

        A bad image leaves a gap, which the rows after it close.
        """
        lines, row = [], self.rows
        for entry, result, slot in zip(entries, results, slots, strict=True):
            if result.reason:
                lines.append(_line(entry) | {"skipped": result.reason})
                continue
            if slot != row:
                self._move(slot, row)
            size = {"width": result.width, "height": result.height, "crc32": result.crc32}
            lines.append(_line(entry) | size)
            row += 1
        for name, _ in self.files:
            _sync(self.folder / name)
        with (self.folder / INDEX).open("ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
            index_bytes = file.tell()
        self.index += lines
        self.rows = row
        self._write_state(index_bytes)

    def manifest(self, count: int | None, source: dict[str, Any]) -> dict[str, Any]:
        """Manifest of the first `count` rows (None: of all), the same whenever it is made."""
        prefix = self.prefix(count)
        rows = [line for line in prefix if "skipped" not in line]
        return {
            "format": FORMAT,
            **self.kind._asdict(),
            "source": source,
            "count": len(rows),
            "lines": len(prefix),
            "checksum": checksum(rows),
            "skipped": [{"name": line["name"], "reason": line["skipped"]} for line in prefix if "skipped" in line],
        }

    def prefix(self, count: int | None) -> list[dict[str, Any]]:
        """The lines of the index up to and including the row that makes `count`; all if there are not as many."""
        if count is None:
            return self.index
        rows = 0
        for number, line in enumerate(self.index):
            if rows == count:
                return self.index[:number]
            rows += "skipped" not in line
        return self.index

    def require_space(self, rows: int) -> None:
        """Raise VinyError if `rows` more rows do not fit on the disk."""
        needed, free = rows * sum(size for _, size in self.files), shutil.disk_usage(self.folder).free
        if needed > free:
            raise VinyError(
                f"{rows:,} images of {self.kind.pixels} pixels need {needed / 1e9:.1f} GB in {self.folder}, but "
                f"{free / 1e9:.1f} GB are free; make room, or change `stores` or data.store_pixels"
            )

    def _read_state(self) -> dict[str, int]:
        path = self.folder / STATE
        try:
            state = json.loads(path.read_bytes())
            kind = {key: state[key] for key in Kind._fields}
            valid = {"rows": int(state["rows"]), "index_bytes": int(state["index_bytes"])}
        except FileNotFoundError:
            if (self.folder / IMAGES).exists() or (self.folder / INDEX).exists():
                raise VinyError(f"{path} is missing, so {self.folder} is not a whole store; {self._rebuild}") from None
            self._write_state(0)
            return {"rows": 0, "index_bytes": 0}
        except (ValueError, TypeError, KeyError) as error:
            raise VinyError(f"{path} is damaged ({error}); {self._rebuild}") from error
        if state.get("format") != FORMAT:
            raise VinyError(f"{self.folder} has store format {state.get('format')}, not {FORMAT}; {self._rebuild}")
        different = [key for key, value in self.kind._asdict().items() if kind[key] != value]
        if different:
            key = different[0]
            now, here = getattr(self.kind, key), kind[key]
            detail = f"{len(here)} others" if key == "classes" else f"{here}, not {now}"
            raise VinyError(
                f"{self.folder} already holds a store of another kind ({key}: {detail}); use another folder, "
                f"or {self._rebuild}"
            )
        return valid

    def _write_state(self, index_bytes: int) -> None:
        state = {"format": FORMAT, **self.kind._asdict(), "rows": self.rows, "index_bytes": index_bytes}
        write_atomically(self.folder / STATE, json.dumps(state) + "\n")

    def _move(self, slot: int, row: int) -> None:
        for name, size in self.files:
            with (self.folder / name).open("r+b") as file:
                file.seek(slot * size)
                data = file.read(size)
                file.seek(row * size)
                file.write(data)

    @property
    def _rebuild(self) -> str:
        return f"delete the folder {self.folder} and ingest again"


def _line(entry: Entry) -> dict[str, Any]:
    """What the index says of every image, good or bad."""
    line = {"name": entry.name, "label": entry.label, "bytes": entry.size}
    return line | {"mask_bytes": entry.mask_size} if entry.mask_size else line


def _describe(line: dict[str, Any]) -> str:
    return f"{line['name']} (label {line['label']}, {line['bytes']:,} bytes)"


def _cut(path: Path, size: int) -> None:
    """Cut a file to `size` bytes; raise VinyError if it is shorter."""
    path.touch()
    present = path.stat().st_size
    if present < size:
        raise VinyError(
            f"{path} has {present:,} bytes where {size:,} are expected; "
            f"delete the folder {path.parent} and ingest again"
        )
    if present > size:
        os.truncate(path, size)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
