"""From the bytes of an image file to the pixels of a store's row."""

import warnings
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from viny.data.sources.base import BadImage

# Formats that hold photographs; Pillow's others, some of which start programs, are never tried.
FORMATS = (
    JpegImagePlugin.JpegImageFile.format,
    PngImagePlugin.PngImageFile.format,
    GifImagePlugin.GifImageFile.format,
    BmpImagePlugin.BmpImageFile.format,
    PpmImagePlugin.PpmImageFile.format,
    WebPImagePlugin.WebPImageFile.format,
    TiffImagePlugin.TiffImageFile.format,
)
MAX_PIXELS = 100_000_000  # the largest photograph of ImageNet has 61 million
TRIMAP_VALUES = (1, 2, 3)  # pet, background, border; stored as 0, 1, 2


class Decoded(NamedTuple):
    """Pixels of one image, uint8 (S, S, 3), and width and height of the original in pixels."""

    pixels: np.ndarray
    width: int
    height: int


def decode_image(data: bytes, side: int) -> Decoded:
    """Decode an image and squash it to `side` x `side` RGB, antialiased.

    Grey, CMYK, palette and transparent images are converted as torchvision's readers do (transparency is dropped),
    16-bit grey is scaled to 8 bits, of an animation the first frame is taken, and EXIF rotation is not applied.

    Raises:
        BadImage: empty, of no known format, cut off, damaged, or larger than MAX_PIXELS.
    """
    image = _load(data, side)
    width, height = image.info["original_size"]
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise BadImage("has 32 bits a channel, where 8 or 16 are expected")
    if image.mode != "RGB":
        image = image.convert("RGB")
    squashed = image.resize((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return Decoded(np.asarray(squashed), width, height)


def decode_trimap(data: bytes, side: int, size: tuple[int, int]) -> np.ndarray:
    """Decode a trimap and squash it to `side` x `side` by nearest neighbor.

    Returns:
        uint8 (side, side): 0 foreground, 1 background, 2 border.

    Raises:
        BadImage: unreadable, of another size than its image (`size`, width and height), or with other values than 1-3.
    """
    try:
        trimap = _load(data)
    except BadImage as error:
        raise BadImage(f"has a trimap that {error}") from error
    if trimap.size != size:
        raise BadImage(f"is {size[0]} x {size[1]}, but its trimap {trimap.width} x {trimap.height}")
    if len(trimap.getbands()) > 1:
        raise BadImage(f"has a trimap with {len(trimap.getbands())} channels, where 1 is expected")
    values = np.asarray(trimap)
    if values.min() < TRIMAP_VALUES[0] or values.max() > TRIMAP_VALUES[-1]:
        foreign = [str(value) for value in np.unique(values).tolist() if value not in TRIMAP_VALUES]
        shown = ", ".join(foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        raise BadImage(f"has a trimap with the values {shown}; allowed are 1 (pet), 2 (background), 3 (border)")
    labels = Image.fromarray((values - 1).astype(np.uint8))
    return np.asarray(labels.resize((side, side), Image.Resampling.NEAREST))


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
        raise BadImage("is not an image, or of an unknown format") from None
    except Image.DecompressionBombError:
        raise BadImage(f"has more than the {MAX_PIXELS:,} pixels allowed") from None
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise anything on damaged data
        detail = str(error) if isinstance(error, OSError | SyntaxError) else type(error).__name__
        raise BadImage(f"is damaged ({detail})") from error
    image.info["original_size"] = original
    return image
