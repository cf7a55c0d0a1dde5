"""Pictures for the procedural data sets: flat shapes with trimaps, and scenes of six kinds.

Flat and uncluttered on purpose: a small model sees nothing in noise within minutes.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

OVERSAMPLE = 3  # drawn this much larger, then reduced, for smooth edges
FOREGROUND, BACKGROUND, BORDER = 1, 2, 3  # values of a published trimap

Color = tuple[int, int, int]


def _regular(corners: int) -> np.ndarray:
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star(points: int, inner: float) -> np.ndarray:
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return _regular(2 * points) * radii[:, None]


def _crescent() -> np.ndarray:
    outer, inner = np.linspace(0.25, 1.75, 24) * np.pi, np.linspace(1.7, 0.3, 24) * np.pi
    return np.concatenate(
        [
            np.stack([np.cos(outer), np.sin(outer)], axis=1),
            np.stack([0.35 + 0.75 * np.cos(inner), 0.75 * np.sin(inner)], axis=1),
        ]
    )


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 16


# Outlines within the unit circle, x to the right and y downwards.
SHAPES: dict[str, np.ndarray] = {
    "circle": _regular(40),
    "square": _regular(4),
    "triangle": _regular(3),
    "star": _star(5, 0.45),
    "cross": np.array(
        [(-3, -9), (3, -9), (3, -3), (9, -3), (9, 3), (3, 3), (3, 9), (-3, 9), (-3, 3), (-9, 3), (-9, -3), (-3, -3)]
    )
    / 9.5,
    "heart": _heart(),
    "crescent": _crescent(),
    "arrow": np.array([(10, 0), (1, -8), (1, -3), (-9, -3), (-9, 3), (1, 3), (1, 8)]) / 10,
    "pentagon": _regular(5),
    "hexagon": _regular(6),
    "octagon": _regular(8),
    "ellipse": _regular(40) * (1, 0.55),
    "bar": np.array([(-9, -4), (9, -4), (9, 4), (-9, 4)]) / 10,
    "diamond": _regular(4) * (1, 0.6),
    "burst": _star(8, 0.6),
    "blade": _star(3, 0.35),
    "gem": _star(4, 0.5),
    "corner": np.array([(-8, -8), (-1, -8), (-1, 1), (8, 1), (8, 8), (-8, 8)]) / 10,
    "dome": np.stack([np.cos(np.linspace(0, np.pi, 24)), 0.5 - np.sin(np.linspace(0, np.pi, 24))], axis=1),
    "hourglass": np.array([(-8, -9), (8, -9), (2, 0), (8, 9), (-8, 9), (-2, 0)]) / 11,
}

# Hues of figures, in degrees; a ground may have any hue.
HUES = {"red": 0, "yellow": 55, "green": 120, "blue": 215, "violet": 290}


def draw_shape(
    rng: np.random.Generator, size: tuple[int, int], shape: str, hue: float | None = None
) -> tuple[Image.Image, Image.Image]:
    """One flat shape of random place, size, rotation and color on a flat ground.

    Figure and ground take their brightness from the same range and differ in one image, but not over all images:
    no threshold tells them apart.

    Args:
        size: width and height in pixels.
        shape: key of SHAPES.
        hue: of the figure, in degrees, kept to within 12; None for any.

    Returns:
        RGB image, and trimap with the published values 1 (figure), 2 (ground) and 3 (border between them).
    """
    width, height = size
    side = min(size)
    radius = side * rng.uniform(0.26, 0.4)
    center = np.array(size) * 0.5 + rng.uniform(-1, 1, 2) * (np.array(size) * 0.5 - radius) * 0.9
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    outline = SHAPES[shape] @ turn.T * radius + center
    canvas = Image.new("L", (width * OVERSAMPLE, height * OVERSAMPLE), 0)
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in outline * OVERSAMPLE], fill=255)
    coverage = canvas.resize(size, Image.Resampling.BOX)
    figure, ground = _figure_and_ground(rng, hue)
    image = Image.composite(Image.new("RGB", size, figure), Image.new("RGB", size, ground), coverage)
    return image, _trimap(coverage, ring=max(1, side // 40))


def _figure_and_ground(rng: np.random.Generator, hue: float | None) -> tuple[Color, Color]:
    figure = _color(rng, rng.uniform(0, 360) if hue is None else hue + rng.uniform(-12, 12))
    while True:
        ground = _color(rng, rng.uniform(0, 360))
        if np.abs(np.subtract(figure, ground)).sum() > 150:
            return figure, ground


def _trimap(coverage: Image.Image, ring: int) -> Image.Image:
    """Border: everything within `ring` pixels of the outline."""
    inside = coverage.point(lambda value: 255 if value >= 128 else 0)
    size = 2 * ring + 1
    core, reach = inside.filter(ImageFilter.MinFilter(size)), inside.filter(ImageFilter.MaxFilter(size))
    trimap = Image.new("L", coverage.size, BACKGROUND)
    trimap.paste(FOREGROUND, mask=core)
    trimap.paste(BORDER, mask=ImageChops.subtract(reach, core))
    return trimap


def _color(rng: np.random.Generator, hue: float) -> Color:
    return _hsv(hue, rng.uniform(0.45, 1.0), rng.uniform(0.35, 1.0))


def _hsv(hue: float, saturation: float, value: float) -> Color:
    """Color of a hue in degrees, saturation and value 0..1."""
    steps = (np.array([5, 3, 1]) + hue / 60) % 6
    rgb = value * (1 - saturation * np.clip(np.minimum(steps, 4 - steps), 0, 1))
    red, green, blue = (255 * rgb).round().astype(int).tolist()
    return red, green, blue


def draw_scene(rng: np.random.Generator, size: tuple[int, int], kind: str) -> Image.Image:
    """A scene of one of the kinds of SCENES in the light of some hour: RGB image of `size` (width, height)."""
    width, height = size[0] * OVERSAMPLE, size[1] * OVERSAMPLE
    sky = _hsv(rng.uniform(195, 225), rng.uniform(0.1, 0.45), rng.uniform(0.75, 1.0))
    canvas = Image.new("RGB", (width, height), sky)
    SCENES[kind](rng, Scene(canvas))
    light = rng.uniform(0.45, 1.0) * rng.uniform(0.75, 1.0, 3)
    pixels = np.asarray(canvas.resize(size, Image.Resampling.BOX)) * light
    return Image.fromarray(pixels.round().astype(np.uint8))


class Scene:
    """Draws in coordinates of 0..1, x to the right and y downwards."""

    def __init__(self, canvas: Image.Image):
        self._draw = ImageDraw.Draw(canvas)
        self._scale = np.array(canvas.size)

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        """Fill a polygon."""
        self._draw.polygon([tuple(point) for point in np.array(points) * self._scale], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)


def _buildings(rng: np.random.Generator, scene: Scene) -> None:
    for left in np.arange(-0.1, 1.0, 0.22):
        top, x = rng.uniform(0.1, 0.45), left + rng.uniform(0, 0.08)
        wall = _hsv(rng.uniform(10, 40), rng.uniform(0.05, 0.35), rng.uniform(0.4, 0.75))
        scene.box(x, top, x + 0.2, 1, wall)
        window = tuple(int(channel * 0.5) for channel in wall)
        for y in np.arange(top + 0.06, 0.95, 0.16):
            scene.box(x + 0.03, y, x + 0.08, y + 0.08, window)
            scene.box(x + 0.12, y, x + 0.17, y + 0.08, window)


def _forest(rng: np.random.Generator, scene: Scene) -> None:
    scene.box(0, 0.2, 1, 1, _hsv(rng.uniform(90, 130), 0.7, rng.uniform(0.3, 0.5)))
    for left in np.arange(-0.1, 1.0, 0.16):
        x, top = left + rng.uniform(0, 0.1), rng.uniform(0.0, 0.35)
        scene.box(x + 0.07, 0.7, x + 0.11, 1, _hsv(25, 0.6, 0.3))
        leaves = _hsv(rng.uniform(90, 140), rng.uniform(0.6, 0.9), rng.uniform(0.25, 0.6))
        scene.polygon([(x + 0.09, top), (x + 0.2, 0.8), (x - 0.02, 0.8)], leaves)


def _glacier(rng: np.random.Generator, scene: Scene) -> None:
    edge = [(x, rng.uniform(0.2, 0.5)) for x in np.linspace(0, 1, 6)]
    scene.polygon([*edge, (1, 1), (0, 1)], _hsv(rng.uniform(180, 210), rng.uniform(0.0, 0.12), rng.uniform(0.9, 1.0)))
    for _ in range(4):
        x, y = rng.uniform(0, 0.9), rng.uniform(0.5, 0.9)
        crack = _hsv(rng.uniform(185, 205), rng.uniform(0.3, 0.5), 0.9)
        scene.polygon([(x, y), (x + 0.3, y + 0.06), (x + 0.28, y + 0.12)], crack)


def _mountain(rng: np.random.Generator, scene: Scene) -> None:
    for x in rng.permutation([0.1, 0.5, 0.9]):
        x, top = x + rng.uniform(-0.12, 0.12), rng.uniform(0.12, 0.4)
        rock = _hsv(rng.uniform(15, 45), rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.55))
        scene.polygon([(x, top), (x + 0.55, 1), (x - 0.55, 1)], rock)
        scene.polygon([(x, top), (x + 0.11, top + 0.15), (x - 0.11, top + 0.15)], (245, 245, 250))


def _sea(rng: np.random.Generator, scene: Scene) -> None:
    horizon = rng.uniform(0.35, 0.6)
    hue, value = rng.uniform(190, 225), rng.uniform(0.4, 0.7)
    scene.box(0, horizon, 1, 1, _hsv(hue, 0.8, value))
    for y in np.arange(horizon + 0.08, 1, 0.14):
        x = rng.uniform(-0.1, 0.5)
        scene.box(x, y, x + rng.uniform(0.3, 0.7), y + 0.035, _hsv(hue, 0.5, min(1, value + 0.25)))


def _street(rng: np.random.Generator, scene: Scene) -> None:
    horizon, middle = rng.uniform(0.4, 0.55), rng.uniform(0.4, 0.6)
    for left, right in ((0, middle - 0.15), (middle + 0.15, 1)):
        front = _hsv(rng.uniform(0, 60), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.8))
        scene.box(left, rng.uniform(0.0, 0.2), right, 1, front)
    road = _hsv(0, 0, rng.uniform(0.2, 0.35))
    scene.polygon([(middle - 0.1, horizon), (middle + 0.1, horizon), (1.1, 1), (-0.1, 1)], road)
    for near, far in ((0.02, 0.2), (0.4, 0.6), (0.75, 1.0)):
        y0, y1 = horizon + (1 - horizon) * near, horizon + (1 - horizon) * far
        x0, x1 = (middle + (0.5 - middle) * part for part in (near, far))
        scene.polygon([(x0 - 0.01, y0), (x0 + 0.01, y0), (x1 + 0.03, y1), (x1 - 0.03, y1)], (240, 240, 230))


SCENES: dict[str, Callable[[np.random.Generator, Scene], None]] = {
    "buildings": _buildings,
    "forest": _forest,
    "glacier": _glacier,
    "mountain": _mountain,
    "sea": _sea,
    "street": _street,
}
