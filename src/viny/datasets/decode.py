"""From the bytes of image and mask files to the pixels of a store's row."""

import warnings
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from viny.datasets.store import IGNORE

# Formats that hold photographs; Pillow's others, some of which start programs, are never tried.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
MAX_PIXELS = 100_000_000  # the largest photograph of ImageNet has 61 million
GREY = 0x010101  # a gray color is its value times this


class BadImage(Exception):
    """An image that cannot be used; the text says why, without naming a path."""


class Decoded(NamedTuple):
    """Pixels of one image, uint8 (S, S, 3), and width and height of the original in pixels."""

    pixels: np.ndarray
    width: int
    height: int


class MaskValues(NamedTuple):
    """What the pixels of a mask mean: class index, or IGNORE."""

    numbers: dict[int, int]  # by the value of a pixel of a gray or palette image
    colors: dict[int, int]  # by its color, 0xRRGGBB


def decode_image(data: bytes, side: int, resize: str = "bicubic") -> Decoded:
    """Decode an image and squash it to `side` x `side` RGB, antialiased or, with `resize` `nearest`, not.

    Gray, CMYK, palette and transparent images are converted as torchvision's readers do (transparency is dropped),
    16-bit gray is scaled to 8 bits, the first frame of an animation is taken, and EXIF rotation is not applied.

    Raises:
        BadImage: empty, of no known format, cut off, damaged, not convertible, or larger than MAX_PIXELS.
    """
    nearest = resize == "nearest"
    image = _load(data, None if nearest else side)
    width, height = image.info["original_size"]
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "I":
        raise BadImage("has 32-bit or signed pixels, where 8 or 16 unsigned bits a channel are expected")
    elif image.mode == "F":
        raise BadImage("has floating-point pixels, where 8 or 16 unsigned bits a channel are expected")
    if image.mode != "RGB":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of transparency, which is dropped
                image = image.convert("RGB")
        except ValueError as error:
            raise BadImage(f"cannot be converted to RGB ({error})") from error
    if nearest:
        squashed = image.resize((side, side), Image.Resampling.NEAREST)
    else:
        squashed = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return Decoded(np.asarray(squashed), width, height)


def decode_mask(data: bytes, side: int, size: tuple[int, int], values: MaskValues) -> np.ndarray:
    """Decode a mask and squash it to `side` x `side` by nearest neighbor.

    Gray masks of any bit depth count by value, color masks by color, palette masks by index where `values` knows the
    index, else by color. A gray pixel of a color mask counts as its value, too. Transparency is dropped.

    Returns:
        uint8 (side, side): class indices, IGNORE for pixels to be ignored.

    Raises:
        BadImage: unreadable, of another size than its image (`size`, width and height), or with unknown values.
    """
    found = mask_codes(data)
    codes = found.values
    if codes.shape[::-1] != size:
        raise BadImage(f"is {size[0]} x {size[1]}, but its mask {codes.shape[1]} x {codes.shape[0]}")
    if found.kind == "color":
        known = {number * GREY: label for number, label in values.numbers.items() if number < 256} | values.colors
    elif found.kind == "palette":
        known = {i: values.colors[color] for i, color in enumerate(found.palette) if color in values.colors}
        known |= values.numbers
    else:
        known = {color & 255: label for color, label in values.colors.items() if color == (color & 255) * GREY}
        known |= values.numbers
    known = known or {-1: IGNORE}
    keys = np.array(sorted(known), dtype=np.int64)
    place = np.searchsorted(keys, codes).clip(max=len(keys) - 1)
    unknown = codes[keys[place] != codes]
    if unknown.size:
        others, counts = np.unique(unknown, return_counts=True)
        most = np.argsort(-counts, kind="stable")
        names = [f"#{value:06x}" if found.kind == "color" else str(value) for value in others]
        raise BadImage(
            "has a mask with values that are neither classes nor ignored: "
            + ", ".join(f"{names[i]} ({counts[i]:,} of {codes.size:,} pixels)" for i in most[:5])
            + (f" and {len(most) - 5:,} more" if len(most) > 5 else "")
            + (" (a JPEG, which does not keep values exactly)" if found.format == "JPEG" else "")
        )
    labels = Image.fromarray(np.array([known[key] for key in keys.tolist()], dtype=np.uint8)[place])
    return np.asarray(labels.resize((side, side), Image.Resampling.NEAREST))


class Codes(NamedTuple):
    """The pixels of a mask as they are in its file."""

    values: np.ndarray  # int64 (H, W), gray values, indices of a palette, or colors 0xRRGGBB
    kind: str  # which of these, `gray`, `palette` or `color`
    palette: list[int]  # colors of the indices
    format: str | None  # of the file


def mask_codes(data: bytes) -> Codes:
    """Decode a mask; transparency is dropped.

    Raises:
        BadImage: unreadable, or of a form that cannot hold classes.
    """
    try:
        mask = _load(data)
    except BadImage as error:
        raise BadImage(f"has a mask that {error}") from error
    if mask.mode in ("RGB", "RGBA", "LA"):
        red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int64), -1, 0)
        return Codes(red << 16 | green << 8 | blue, "color", [], mask.format)
    if mask.mode == "P":
        palette = np.array(mask.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3) @ (1 << 16, 1 << 8, 1)
        return Codes(np.asarray(mask).astype(np.int64), "palette", palette.tolist(), mask.format)
    if mask.mode not in ("1", "L", "I") and not mask.mode.startswith("I;16"):
        raise BadImage(f"has a mask of the form {mask.mode!r}, where gray, palette or RGB is expected")
    codes = np.asarray(mask).astype(np.int64)
    if mask.format == "PNG" and mask.mode == "L":
        codes //= 255 // (2 ** data[24] - 1)  # Pillow stretches 2 and 4 bits to 0..255; the header has the depth
    return Codes(codes, "gray", [], mask.format)


def _load(data: bytes, side: int | None = None) -> Image.Image:
    """Open and decode; a JPEG much larger than `side` is decoded at a half, quarter or eighth of its size."""
    if not data:
        raise BadImage("is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are refused here
            image = Image.open(BytesIO(data), formats=FORMATS)
            original = image.size
            if original[0] * original[1] > MAX_PIXELS:
                raise BadImage(f"has {original[0]} x {original[1]} pixels, more than the {MAX_PIXELS:,} allowed")
            if side:
                image.draft(None, (side, side))
            image.load()
    except UnidentifiedImageError:
        raise BadImage(f"is no image that Pillow can read as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than the {MAX_PIXELS:,} pixels allowed") from None
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise anything
        raise BadImage(f"cannot be decoded ({error or type(error).__name__})") from error
    image.info["original_size"] = original
    return image
