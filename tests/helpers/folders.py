"""Folders of images as people have them."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(path: Path, seed: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
    """A random image, (width, height) in pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, values: Any = (0, 1, 2), size: tuple[int, int] = (12, 10)) -> Path:
    """A mask of vertical stripes of the values, which are numbers (grey) or RGB colors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.array(values)[np.arange(size[0]) * len(values) // size[0]]
    kind = np.uint8 if stripes.max() < 256 else np.uint16
    Image.fromarray(np.broadcast_to(stripes, (size[1], *stripes.shape)).astype(kind)).save(path)
    return path


def masked(
    folder: Path, count: int = 40, values: Any = (0, 1, 255), images: str = "images", masks: str = "masks"
) -> Path:
    """Images and masks in two folders."""
    for number in range(count):
        photo(folder / images / f"{number}.png", number)
        mask(folder / masks / f"{number}.png", values)
    return folder


def pool(folder: Path, count: int = 30, classes: tuple[str, ...] = ("",), first: int = 1000) -> Path:
    """Images alone, or in class folders."""
    for number in range(count):
        photo(folder / classes[number % len(classes)] / f"{number}.png", first + number)
    return folder
