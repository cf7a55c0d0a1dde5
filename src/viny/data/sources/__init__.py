"""Data sets as their publishers lay them out on disk."""

from pathlib import Path

from viny.data.sources import imagenet, intel, pets
from viny.data.sources.base import BadImage, Entry, Source

__all__ = ["DATASETS", "BadImage", "Entry", "Source", "open_source"]

DATASETS = ("imagenet", "intel-train", "intel-test", "pets")


def open_source(dataset: str, path: Path, cache: Path | None = None) -> Source:
    """List a data set without decoding an image.

    Args:
        dataset: one of DATASETS.
        path: folder or archive.
        cache: folder where the listing of a large archive is kept for the next time.

    Raises:
        VinyError: nothing there, another layout, an unreadable archive, a class without images.
    """
    match dataset:
        case "imagenet":
            return imagenet.open_imagenet(path, cache)
        case "intel-train" | "intel-test":
            return intel.open_intel(path, dataset.removeprefix("intel-"))
        case "pets":
            return pets.open_pets(path)
    raise ValueError(f"unknown data set {dataset!r}, expected one of {DATASETS}")
