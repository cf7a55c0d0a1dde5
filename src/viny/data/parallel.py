"""Decoding many images over processes straight into the files of a store."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from viny.data.build import Result
from viny.data.decode import decode_image, decode_trimap
from viny.data.sources.base import BadImage, Entry, Reader
from viny.data.store import IMAGES, MASKS, row_crc32
from viny.errors import VinyError

CHUNK = 4096  # images that become valid together
BATCH = 32  # images a process decodes at a time
PER_WORKER = 256  # fewer images than this are not worth another process

Job = tuple[int, Entry]  # row, image


@dataclass(frozen=True)
class Decoder:
    """Decodes images and writes their pixels to rows of the store in `folder`; can be sent to another process."""

    reader: Reader
    folder: Path
    pixels: int
    masks: bool

    def __call__(self, jobs: Sequence[Job]) -> list[Result]:
        """Decode images to their rows, which nobody else may be writing; only pixels of good images are written.

        Raises:
            VinyError: an image cannot be read although it was there a moment ago.
        """
        with (self.folder / IMAGES).open("r+b", buffering=0) as images:
            if not self.masks:
                return [self._decode(row, entry, images.fileno()) for row, entry in jobs]
            with (self.folder / MASKS).open("r+b", buffering=0) as masks:
                return [self._decode(row, entry, images.fileno(), masks.fileno()) for row, entry in jobs]

    def _decode(self, row: int, entry: Entry, images: int, masks: int | None = None) -> Result:
        mask = None
        try:
            image = decode_image(self.reader.image(entry), self.pixels)
            if masks is not None:
                mask = decode_trimap(self.reader.mask(entry), self.pixels, (image.width, image.height))
        except BadImage as error:
            return Result(reason=str(error))
        except OSError as error:
            raise VinyError(
                f"{self.reader.place(entry)} cannot be read ({error.strerror}); see to the disk and repeat: "
                "what has been decoded is kept"
            ) from error
        _write(images, image.pixels, row)
        if masks is not None:
            _write(masks, mask, row)
        return Result(image.width, image.height, row_crc32(image.pixels, mask))


def decode_chunks(
    decoder: Decoder, entries: Sequence[Entry], first_row: int, workers: int, advance: Callable[[int], None]
) -> Iterator[tuple[Sequence[Entry], list[Result], range]]:
    """Decode `entries` to consecutive rows from `first_row` on.

    Within a chunk, images are read in the order in which they lie in an archive. No pixels pass between processes.

    Args:
        workers: processes at most; one means this one.
        advance: called with the number of images decoded since it was called last.

    Yields:
        entries, results and rows of one chunk, in the order of `entries`.
    """
    workers = min(workers, len(entries) // PER_WORKER)
    pool = _pool(decoder, workers) if workers > 1 else None
    try:
        decoded = (
            _bounded_map(pool, list(_batches(entries, first_row)), 4 * workers)
            if pool
            else ((jobs, decoder(jobs)) for jobs in _batches(entries, first_row))
        )
        done: dict[int, Result] = {}
        start = 0
        for jobs, results in decoded:
            done |= {row: result for (row, _), result in zip(jobs, results, strict=True)}
            advance(len(jobs))
            chunk = entries[start : start + CHUNK]
            if len(done) == len(chunk):
                rows = range(first_row + start, first_row + start + len(chunk))
                yield chunk, [done[row] for row in rows], rows
                done = {}
                start += CHUNK
    except BrokenProcessPool as error:
        raise VinyError(
            "a process that decodes images was ended from outside, probably for want of memory; "
            "repeat with fewer --workers: what has been decoded is kept"
        ) from error
    finally:
        if pool:
            pool.shutdown(wait=True, cancel_futures=True)


def _batches(entries: Sequence[Entry], first_row: int) -> Iterator[list[Job]]:
    """Jobs in batches that do not reach over chunks."""
    for start in range(0, len(entries), CHUNK):
        jobs = [(first_row + start + i, entry) for i, entry in enumerate(entries[start : start + CHUNK])]
        jobs.sort(key=lambda job: (job[1].offset, job[1].name))
        for at in range(0, len(jobs), BATCH):
            yield jobs[at : at + BATCH]


def _bounded_map(
    pool: ProcessPoolExecutor, batches: Sequence[list[Job]], ahead: int
) -> Iterator[tuple[list[Job], list[Result]]]:
    """Results of batches in their order, with at most `ahead` batches under way."""
    waiting: deque = deque()
    for jobs in batches:
        waiting.append((jobs, pool.submit(_run, jobs)))
        if len(waiting) >= ahead:
            jobs, future = waiting.popleft()
            yield jobs, future.result()
    for jobs, future in waiting:
        yield jobs, future.result()


def _pool(decoder: Decoder, workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(decoder,))


def _start_worker(decoder: Decoder) -> None:
    global _decoder
    _decoder = decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run(jobs: list[Job]) -> list[Result]:
    return _decoder(jobs)


def _write(descriptor: int, pixels: np.ndarray, row: int) -> None:
    data = memoryview(pixels.tobytes())
    at = row * len(data)
    while data:
        written = os.pwrite(descriptor, data, at)
        data, at = data[written:], at + written
