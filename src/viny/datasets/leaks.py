"""Test images that are also trained on: the same file, or the same picture encoded or scaled again.

Images are compared by signatures: a checksum of the file, and 16 x 16 pixels of the stored image. Two are twins if the
checksums are equal, or if the distance of the pixels is at most 19% of the contrast of the image with more of it.
Measured on 14,549 photographs of Oxford-IIIT Pet and Intel: one saved again as JPEG of quality 30, or at half size
and quality 75, differs by 4% in the median and at most 18%; shots of one scene in a row differ by 15% and more, and
photographs of different scenes by more than 20%.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from viny.datasets.store import SIGNATURE, Store, read_manifest
from viny.datasets.trees import some
from viny.errors import FinalError
from viny.grid import StoreSpec, Study

SIDE = 16
RELATIVE = 0.19  # largest distance of twins, relative to the contrast
LEAST = 0.5  # and where there is no contrast, in levels of 255
CHECKSUM = SIGNATURE - 3 * SIDE**2  # bytes of it
BLOCK = 256  # signatures compared at a time


class Leak(NamedTuple):
    """A training image that is a twin of a test image: data set and name of both."""

    training_set: str
    training_image: str
    test_set: str
    test_image: str


def signature(image: np.ndarray, content: bytes) -> np.ndarray:
    """The signature of an image uint8 (S, S, 3) from a file of some content: uint8 (776,)."""
    small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    checksum = hashlib.sha256(content).digest()[:CHECKSUM]
    return np.concatenate([np.asarray(small).ravel(), np.frombuffer(checksum, np.uint8)])


class Matcher:
    """Compares signatures with some given ones, uint8 (N, 776)."""

    def __init__(self, signatures: np.ndarray):
        self._values, self._squares, self._contrasts, self._checksums = _prepared(signatures)

    def gaps(self, signatures: np.ndarray) -> np.ndarray:
        """Distances (M, N) of signatures (M, 776) to the given ones, as shares of the largest distance of twins."""
        values, squares, contrasts, checksums = _prepared(signatures)
        distances = squares[:, None] + self._squares - 2 * values @ self._values.T
        largest = np.maximum(RELATIVE * np.maximum(contrasts[:, None], self._contrasts), LEAST * values.shape[1] ** 0.5)
        gaps = np.sqrt(np.maximum(distances, 0)) / largest
        return np.where(checksums[:, None] == self._checksums, 0, gaps)


def twins(ones: np.ndarray, others: np.ndarray | None = None) -> list[tuple[int, int]]:
    """Pairs of rows that are twins: each row of `ones` that has twins, and the nearest of them.

    Args:
        ones: signatures (M, 776). others: signatures (N, 776); None for pairs among `ones`, the lower row first.
    """
    matcher, pairs = Matcher(ones if others is None else others), set()
    for start in range(0, len(ones), BLOCK):
        gaps = matcher.gaps(ones[start : start + BLOCK])
        if others is None:
            np.fill_diagonal(gaps[:, start:], np.inf)
        nearest = gaps.argmin(axis=1)
        rows = np.flatnonzero(gaps.min(axis=1) <= 1)
        pairs |= {(start + row, column) for row, column in zip(rows.tolist(), nearest[rows].tolist(), strict=True)}
    return sorted({(min(pair), max(pair)) for pair in pairs} if others is None else pairs)


def leaks(study: Study) -> list[Leak]:
    """All leaks of a study: of its data sets that are decoded, whatever `data.leaks` says."""
    return list(dict.fromkeys(leak for spec in study.stores for leak in leaks_of(spec)))


def leaks_of(spec: StoreSpec) -> Iterator[Leak]:
    """Training images of a store that are twins of images on which segmentation is tested, if both are decoded."""
    for tested in spec.tested or (spec,):
        if read_manifest(spec.folder) and read_manifest(tested.folder):
            training, test = Store.open(spec.folder), Store.open(tested.folder)
            for row, other in twins(training.signatures[training.tests :], test.signatures[: test.tests]):
                yield Leak(training.name, training.names[training.tests + row], test.name, test.names[other])


def refuse(spec: StoreSpec) -> None:
    """Stop before a job trains on test images, unless `data.leaks` allows it.

    Raises:
        FinalError: naming some of the images.
    """
    found = list(leaks_of(spec)) if spec.leaks == "stop" else []
    if found:
        raise FinalError(
            f"{described(found)}; remove them, or set data.leaks: drop to train without them, or allow to keep them"
        )


def described(found: Iterable[Leak]) -> str:
    """Which training images look like which test images, the first by name; empty for none."""
    sets: dict[tuple[str, str], list[str]] = {}
    for leak in found:
        pair = f"{leak.training_image} like {leak.test_image}"
        sets.setdefault((leak.training_set, leak.test_set), []).append(pair)
    return "; ".join(
        f"training images of {training} look like test images of {test}: {some(pairs, 3)}"
        for (training, test), pairs in sets.items()
    )


def _prepared(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels around 0 (N, 768), their sums of squares, contrasts (norms around the means) and checksums (N,)."""
    values = signatures[:, :-CHECKSUM].astype(np.float32) - 128
    checksums = np.ascontiguousarray(signatures[:, -CHECKSUM:]).view(np.uint64)[:, 0]
    squares = np.einsum("nd,nd->n", values, values)
    means = values.reshape(-1, SIDE * SIDE, 3).mean(axis=1)
    contrasts = np.sqrt(np.maximum(squares - SIDE * SIDE * np.einsum("nc,nc->n", means, means), 0))
    return values, squares, contrasts, checksums
