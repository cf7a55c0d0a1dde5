"""Decoding many images over processes, with results in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from viny.datasets.decode import BadImage, MaskValues, decode_image, decode_mask
from viny.datasets.leaks import signature
from viny.datasets.listing import Entry
from viny.datasets.store import row_crc32
from viny.datasets.trees import Reader
from viny.errors import VinyError

BATCH = 32  # images a process decodes at a time
PER_WORKER = 256  # fewer images than this are not worth another process

Decoding = Callable[[Sequence[Entry]], Iterator[tuple[Entry, "Row"]]]


class Row(NamedTuple):
    """A decoded image: pixels uint8 (S, S, 3), mask uint8 (S, S), signature, original size, CRC-32; or why not."""

    image: np.ndarray | None = None
    mask: np.ndarray | None = None
    signature: np.ndarray | None = None
    width: int = 0
    height: int = 0
    crc32: int = 0
    bad: str = ""


@dataclass(frozen=True)
class Decoder:
    """Reads and decodes images; can be sent to another process."""

    images: Reader
    masks: Reader | None
    values: MaskValues | None
    pixels: int
    resize: str = "bicubic"

    def __call__(self, entries: Sequence[Entry]) -> list[Row]:
        """Decode images in order."""
        return [self.row(entry) for entry in entries]

    def row(self, entry: Entry) -> Row:
        """Decode an image."""
        mask, place = None, self.images.place(entry.image)
        try:
            data = self.images.read(entry.image)
            image = decode_image(data, self.pixels, self.resize)
            if self.masks and self.values and entry.mask:
                try:
                    content = self.masks.read(entry.mask)
                except BadImage as error:
                    raise BadImage(f"has a mask ({entry.mask.path}) that {error}") from error
                mask = decode_mask(content, self.pixels, (image.width, image.height), self.values)
        except BadImage as error:
            return Row(bad=str(error))
        except OSError as error:
            raise VinyError(f"{place} or its mask cannot be read ({error.strerror or error})") from error
        crc32 = row_crc32(image.pixels, mask)
        return Row(image.pixels, mask, signature(image.pixels, data), image.width, image.height, crc32)


@contextmanager
def decoding(decoder: Decoder, images: int, workers: int | None) -> "Iterator[Decoding]":
    """A function that decodes images in order, in `workers` processes (None: one per core), fewer for few `images`.

    Raises:
        VinyError: a process was killed.
    """
    workers = min(cores() if workers is None else workers, images // PER_WORKER)
    if workers < 2:
        yield lambda entries: ((entry, decoder.row(entry)) for entry in entries)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, context, _start_worker, (decoder,))
    try:
        yield lambda entries: _in_order(executor, entries, 4 * workers)
    except BrokenProcessPool as error:
        raise VinyError(
            "a process that decodes images ended unexpectedly, mostly because memory ran out; repeat with fewer cores "
            "or more memory"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _in_order(executor: Executor, entries: Sequence[Entry], ahead: int) -> Iterator[tuple[Entry, Row]]:
    """Images and their rows, while at most `ahead` batches are at work."""
    batches = [entries[first : first + BATCH] for first in range(0, len(entries), BATCH)]
    waiting = deque(executor.submit(_run, batch) for batch in batches[:ahead])
    for number, batch in enumerate(batches):
        rows = waiting.popleft().result()
        waiting.extend(executor.submit(_run, later) for later in batches[number + ahead : number + ahead + 1])
        yield from zip(batch, rows, strict=True)


def cores() -> int:
    """Cores this process may use, which under a scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_decoder: Decoder  # of a worker process


def _start_worker(decoder: Decoder) -> None:
    global _decoder
    _decoder = decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is killed; else it would wait forever."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def _run(entries: Sequence[Entry]) -> list[Row]:
    return _decoder(entries)
