"""Generated images in the layouts of the paper's data sets, to run a whole study without any data.

Flat shapes, because a small model learns nothing from noise within minutes. Figure and ground take their brightness
from the same range, so no threshold tells them apart. Image number i depends on the data set, the seed and i alone.
"""

import colorsys
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from viny.config.sections import Procedural
from viny.files import replacing
from viny.grid import PROCEDURAL_LAYOUT
from viny.logs import Progress

SCALE = 3  # drawn this much larger, then reduced, for smooth edges
BREEDS, CATS = 37, 12  # breeds, and how many of them are cats, whose names begin with a capital letter


def _round(corners: int, inner: float = 1.0) -> np.ndarray:
    """A regular polygon within the unit circle; every second corner at the radius `inner`."""
    angles, radii = 2 * np.pi * np.arange(corners) / corners, np.where(np.arange(corners) % 2, inner, 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


BAR = np.array([(-9, -3), (9, -3), (9, 3), (-9, 3)]) / 10
# Outlines within the unit circle, x to the right and y downwards.
SHAPES: dict[str, np.ndarray] = {
    **{"circle": _round(40), "square": _round(4), "triangle": _round(3), "star": _round(10, 0.45), "bar": BAR},
    "arrow": np.array([(10, 0), (1, -8), (1, -3), (-9, -3), (-9, 3), (1, 3), (1, 8)]) / 10,
    "corner": np.array([(-8, -8), (-1, -8), (-1, 1), (8, 1), (8, 8), (-8, 8)]) / 10,
    "gem": _round(8, 0.4),
    "hourglass": np.array([(-8, -9), (8, -9), (2, 0), (8, 9), (-8, 9), (-2, 0)]) / 11,
    "ellipse": _round(40) * (1, 0.5),
}
HUES = {"red": 0, "yellow": 55, "green": 120, "blue": 215, "violet": 290}  # of figures, in degrees
# Scenes: hue, saturation and brightness of the ground and of its figures; the outline of these; how many there are.
SCENES = {
    "buildings": ((30, 0.2, 0.4), (25, 0.35, 0.7), np.array([(-0.6, -1.6), (0.6, -1.6), (0.6, 1), (-0.6, 1)]), 4),
    "forest": ((100, 0.6, 0.3), (115, 0.8, 0.5), np.array([(0, -1.2), (0.5, 1), (-0.5, 1)]), 6),
    "glacier": ((195, 0.15, 0.95), (200, 0.45, 0.85), BAR * (1, 0.4), 5),
    "mountain": ((30, 0.4, 0.5), (25, 0.35, 0.35), np.array([(0, -1.3), (1.3, 1), (-1.3, 1)]), 3),
    "sea": ((210, 0.8, 0.5), (205, 0.5, 0.8), BAR * (1.2, 0.3), 4),
    "street": ((0, 0.0, 0.3), (50, 0.1, 0.9), np.array([(-0.1, -0.7), (0.1, -0.7), (0.3, 1), (-0.3, 1)]), 3),
}


def generate(name: str, procedural: Procedural, output: Path) -> Path:
    """Generate `imagenet`, `intel` or `pets` in its folder below `output`, and return that; nothing is overwritten."""
    target = output / Path(PROCEDURAL_LAYOUT[name]).parts[0]
    count, stream = getattr(procedural, name), {"imagenet": 1, "intel": 2, "pets": 3}[name]
    progress = Progress(f"generate {name}", count)
    with replacing(target) as draft:
        for number in range(count):
            rng = np.random.default_rng([procedural.seed, stream, number])
            for path, image in _images(name, number, rng, procedural.pixels).items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                image.save(draft / path, quality=92, subsampling=0)
            if name == "pets":
                pet, breed, split = _pet(number)
                with (draft / "annotations" / f"{split}.txt").open("a") as lines:
                    lines.write(f"{pet} {breed + 1} {1 + (breed >= CATS)} {breed + 1 - CATS * (breed >= CATS)}\n")
            progress.advance(1)
    progress.finish()
    return target


def _images(name: str, number: int, rng: Generator, pixels: int) -> dict[str, Image.Image]:
    """An image of a data set, of `pets` its trimap as well, by path."""
    if name == "imagenet":  # a class is a shape, in any color
        folder, shape = f"n{90000001 + number % len(SHAPES)}", [*SHAPES.values()][number % len(SHAPES)]
        return {f"train/{folder}/{folder}_{number}.JPEG": _figure(rng, pixels, shape)[0]}
    if name == "intel":  # six kinds of scenes; a sixth are test images
        scene = [*SCENES][number % len(SCENES)]
        split = "seg_test" if number // len(SCENES) % 6 == 1 else "seg_train"
        return {f"{split}/{split}/{scene}/{number}.jpg": _scene(rng, pixels, *SCENES[scene])}
    pet, breed, _ = _pet(number)
    figure, trimap = _figure(rng, pixels, [*SHAPES.values()][breed // len(HUES)], [*HUES.values()][breed % len(HUES)])
    return {f"annotations/trimaps/{pet}.png": trimap, f"images/{pet}.jpg": figure}


def _pet(number: int) -> tuple[str, int, str]:
    """Name, breed (a shape in a hue) and split of a pet."""
    breed, copy = number % BREEDS, number // BREEDS
    name = f"{[*HUES][breed % len(HUES)]}_{[*SHAPES][breed // len(HUES)]}_{copy + 1}"
    return name.capitalize() if breed < CATS else name, breed, "test" if copy % 2 else "trainval"


def _figure(rng: Generator, pixels: int, shape: np.ndarray, hue: float | None = None) -> list[Image.Image]:
    """A flat shape of random place, size, rotation and color on a flat ground, and its trimap."""
    long = round(pixels * rng.uniform(1, 1.33))
    size = (long, pixels) if rng.random() < 0.5 else (pixels, long)
    radius, angle = pixels * rng.uniform(0.26, 0.4), rng.uniform(0, 2 * np.pi)
    center = np.array(size) / 2 + rng.uniform(-0.9, 0.9, 2) * (np.array(size) / 2 - radius)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    canvas = Image.new("L", (size[0] * SCALE, size[1] * SCALE))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in (shape @ turn * radius + center) * SCALE], fill=255)
    coverage = canvas.resize(size, Image.Resampling.BOX)
    hue = rng.uniform(0, 360) if hue is None else hue + rng.uniform(-12, 12)
    figure = ground = _rgb(hue, *rng.uniform((0.45, 0.35), 1))
    while np.abs(np.subtract(figure, ground)).sum() <= 150:
        ground = _rgb(rng.uniform(0, 360), *rng.uniform((0.45, 0.35), 1))
    image = Image.composite(Image.new("RGB", size, figure), Image.new("RGB", size, ground), coverage)
    inside, ring = coverage.point(lambda value: 255 * (value >= 128)), 2 * max(1, pixels // 40) + 1
    trimap = Image.new("L", size, 2)  # as published: 1 is the pet, 2 the ground, 3 the border
    trimap.paste(3, mask=inside.filter(ImageFilter.MaxFilter(ring)))
    trimap.paste(1, mask=inside.filter(ImageFilter.MinFilter(ring)))
    return [image, trimap]


def _scene(rng: Generator, pixels: int, ground: tuple, color: tuple, outline: np.ndarray, count: int) -> Image.Image:
    """Sky over a ground with some figures, in the light of some hour."""
    side, horizon = pixels * SCALE, rng.uniform(0.25, 0.5)
    canvas = Image.new("RGB", (side, side), _rgb(rng.uniform(195, 225), rng.uniform(0.1, 0.45), rng.uniform(0.75, 1)))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, int(horizon * side), side, side), fill=_rgb(*ground))
    for _ in range(count):
        center = rng.uniform((0.05, horizon + 0.05), (0.95, 0.85))
        points = (outline * rng.uniform(0.12, 0.24) + center) * side
        draw.polygon([tuple(point) for point in points], fill=_rgb(color[0] + rng.uniform(-10, 10), *color[1:]))
    light = rng.uniform(0.5, 1) * rng.uniform(0.8, 1, 3)
    reduced = np.asarray(canvas.resize((pixels, pixels), Image.Resampling.BOX))
    return Image.fromarray((reduced * light).round().astype(np.uint8))


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, ...]:
    return tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value))
