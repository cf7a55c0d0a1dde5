"""Every kind of bad image is named or left out; odd but usable ones are converted."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from viny.datasets.decode import BadImage, MaskValues, decode_image, decode_mask
from viny.datasets.trees import File, check_size
from viny.errors import VinyError


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth RGB image, uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 8 % 256, y * 10 % 256, (x + y) * 4 % 256], axis=-1).astype(np.uint8)


def raw_png(header: bytes, rows: bytes = b"") -> bytes:
    """A PNG of a header and uncompressed rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of a size and holds nothing."""
    return raw_png(struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(gradient()))
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"<html>404 Not Found</html>", "is no image that Pillow can read"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], r"cannot be decoded \(image file is truncated"),
    "JPEG header only": (JPEG[:200], "(cannot be decoded|is no image)"),
    "truncated PNG": (PNG[: len(PNG) // 2], r"cannot be decoded \("),
    "flipped bits in a PNG": (PNG[:-40] + b"\xff" * 20 + PNG[-20:], r"cannot be decoded \("),
    "bomb": (png_header(60_000, 60_000), "has more than the 100,000,000 pixels allowed"),
    "large bomb": (png_header(12_000, 12_000), "has 12000 x 12000 pixels, more than the 100,000,000 allowed"),
    "32 bits": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "has floating-point pixels"),
    "a program for a printer": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "is no image that Pillow can read",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_stops_the_build_by_name_or_is_replaced_by_the_next(kind, copy, build, data, spec):
    content, message = BAD[kind]
    source = copy("imagenet")
    order = build("imagenet", data / "imagenet" / "train").names
    (source / order[3]).write_bytes(content)
    with pytest.raises(VinyError, match=rf"{source}/{order[3]} ({message})[\s\S]*data.bad_images: skip"):
        build("imagenet", source, images=10)
    assert not spec("imagenet", source, images=10).folder.exists()
    store = build("imagenet", source, images=10, bad_images="skip")
    assert store.names == [name for name in order if name != order[3]][:15]
    store.verify()
    (left_out,) = json.loads((store.folder / "manifest.json").read_bytes())["skipped"]
    assert left_out["name"] == order[3]
    assert str(source) not in left_out["reason"]


def test_several_bad_images_are_named_together_and_nesting_holds_without_them(copy, build, data):
    source = copy("imagenet")
    order = build("imagenet", data / "imagenet" / "train").names
    bad = [order[i] for i in (0, 5, 6, 20, 59)]
    for name in bad:
        (source / name).write_bytes(b"")
    with pytest.raises(VinyError, match="4 images cannot be used"):
        build("imagenet", source, images=40)
    good = [name for name in order if name not in bad]
    stores = [build("imagenet", source, images=n, bad_images="skip") for n in (2, 25, None)]
    assert [store.names for store in stores] == [good[:7], good[:30], good]
    assert (stores[2].images[:30] == stores[1].images).all()
    skipped = [len(json.loads((s.folder / "manifest.json").read_bytes())["skipped"]) for s in stores]
    assert skipped == [3, 4, 5]
    with pytest.raises(VinyError, match=r"51 training images are needed; .* has 60 images, 5 of which cannot be used"):
        build("imagenet", source, images=51, bad_images="skip")


def trimap_of(pets: Path, name: str) -> Path:
    return pets / "annotations" / "trimaps" / f"{name}.png"


def break_values(pets: Path, name: str) -> None:
    path = trimap_of(pets, name)
    values = np.asarray(Image.open(path)).copy()
    values[:2] = [[0], [7]]
    Image.fromarray(values).save(path)


BROKEN_PETS = {
    "values": (break_values, r"has a mask with values that are neither classes nor ignored: 0 \(\d+ of .*, 7 \("),
    "no trimap": (
        lambda pets, name: trimap_of(pets, name).unlink(),
        r"has a mask \(annotations/trimaps/.*is not there",
    ),
    "empty trimap": (lambda pets, name: trimap_of(pets, name).write_bytes(b""), "has a mask that is empty"),
    "no image": (lambda pets, name: (pets / "images" / f"{name}.jpg").unlink(), "is not there"),
}


@pytest.mark.parametrize("kind", BROKEN_PETS)
def test_a_pet_without_a_sound_trimap_is_bad(kind, copy, build, data):
    break_it, message = BROKEN_PETS[kind]
    pets = copy("pets")
    order = build("pets", data / "oxford-iiit-pet").names
    break_it(pets, order[2])
    with pytest.raises(VinyError, match=rf"{order[2]}\.jpg {message}"):
        build("pets", pets)
    store = build("pets", pets, bad_images="skip")
    assert store.names == order[:2] + order[3:]
    store.verify()
    assert store.masks.shape[0] == 73


def test_usable_images_of_odd_kinds_are_converted():
    pixels = gradient()
    image = Image.fromarray(pixels)
    grey = image.convert("L")
    as_rgb = np.asarray(grey.convert("RGB"))
    cases = {
        "grey": (encoded(grey), as_rgb),
        "grey JPEG": (encoded(Image.new("L", (32, 24), 90), "JPEG"), np.full((24, 32, 3), 90)),
        "16 bits": (encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)), as_rgb),
        "black and white": (encoded(grey.point(lambda v: 255 * (v > 99), "1")), (as_rgb > 99) * 255),
        "palette": (encoded(image.quantize(64)), np.asarray(image.quantize(64).convert("RGB"))),
        "transparent": (encoded(Image.fromarray(np.dstack([pixels, pixels[..., :1]]))), pixels),
        "grey and transparent": (encoded(Image.merge("LA", [grey, grey])), as_rgb),
        "animated": (encoded(image, "PNG", save_all=True, append_images=[image.rotate(180)]), pixels),
        "CMYK": (encoded(image.convert("CMYK"), "TIFF"), pixels),
    }
    for kind, (content, expected) in cases.items():
        decoded = decode_image(content, 24)
        assert (decoded.width, decoded.height) == (32, 24), kind
        squashed = Image.fromarray(np.asarray(expected, np.uint8)).resize((24, 24), Image.Resampling.BICUBIC)
        assert np.abs(decoded.pixels.astype(int) - np.asarray(squashed)).max() <= 1, kind


def test_cmyk_jpeg_is_converted_and_a_16_bit_rgb_png_scaled():
    cmyk = decode_image(encoded(Image.new("CMYK", (32, 24), (0, 255, 255, 0)), "JPEG"), 8).pixels
    assert np.abs(cmyk.astype(int) - (255, 0, 0)).max() < 5
    raw = np.full((8, 8 * 3), 0x80C0, dtype=">u2").tobytes()
    rows = b"".join(b"\0" + raw[i : i + 48] for i in range(0, len(raw), 48))

    png = raw_png(struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0), rows)
    assert (decode_image(png, 8).pixels == 0x80).all()


def test_a_large_jpeg_is_reduced_without_changing_what_it_shows():
    y, x = np.mgrid[0:750, 0:1000]
    smooth = np.stack([x / 4, y / 3, 255 - x / 4], axis=-1).clip(0, 255).astype(np.uint8)
    decoded = decode_image(encoded(Image.fromarray(smooth), "JPEG", quality=95), 64)
    expected = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BICUBIC))
    assert (decoded.width, decoded.height) == (1000, 750)
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 6


TRIMAP = MaskValues({1: 0, 2: 1, 3: 2}, {})
VALUES = np.array([[1, 2], [3, 1]], np.uint8)


def test_masks_in_other_encodings_count_by_value():
    palette = Image.fromarray(VALUES)
    palette.putpalette(list(range(256)) * 3)
    rgb = Image.fromarray(VALUES).convert("RGB")
    kinds = [Image.fromarray(VALUES), palette, Image.fromarray(VALUES.astype(np.uint16)), rgb, rgb.convert("RGBA")]
    for image in kinds:
        assert (decode_mask(encoded(image), 2, (2, 2), TRIMAP) == VALUES - 1).all()
    with pytest.raises(BadImage, match=r"ignored: 4 \(1 of 2 pixels\), 65535 \(1 of 2"):
        decode_mask(encoded(Image.fromarray(np.array([[4, 65535]], np.uint16))), 2, (2, 1), TRIMAP)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_count_by_value(bits):
    """Pillow stretches grey PNGs of 2 and 4 bits to 0..255."""
    rows = b"\0" + bytes([0b01000000 if bits == 1 else 0b01000000 | 0b00010000 if bits == 2 else 0x01])
    png = raw_png(struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0), rows)
    mask = decode_mask(png, 2, (2, 1), MaskValues({0: 7, 1: 8}, {}))
    assert mask[0].tolist() == ([7, 8] if bits != 2 else [8, 8])


def test_palette_masks_count_by_index_or_color():
    image = Image.fromarray(VALUES)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    by_color = MaskValues({}, {0xFF0000: 0, 0x00FF00: 1, 0x0000FF: 255})
    assert decode_mask(encoded(image), 2, (2, 2), by_color).tolist() == [[0, 1], [255, 0]]
    mixed = MaskValues({1: 5}, by_color.colors)
    assert decode_mask(encoded(image), 2, (2, 2), mixed).tolist() == [[5, 1], [255, 5]]
    assert decode_mask(encoded(image.convert("RGB")), 2, (2, 2), by_color).tolist() == [[0, 1], [255, 0]]


def test_what_is_sound_but_unsupported_is_not_called_damaged():
    info = PngImagePlugin.PngInfo()
    info.add_text("x", "y" * 2_000_000, zip=True)
    for content in (
        encoded(Image.fromarray(gradient()), pnginfo=info),
        raw_png(struct.pack(">IIBBBBB", 8, 8, 3, 2, 0, 0, 0)),
    ):
        with pytest.raises(BadImage) as refused:
            decode_image(content, 8)
        assert "damaged" not in str(refused.value)


def test_bit_depths_are_stated_rightly():
    with pytest.raises(BadImage, match="has 32-bit or signed pixels"):
        decode_image(encoded(Image.fromarray(np.ones((9, 9), np.int32)), "TIFF"), 8)
    grey = encoded(Image.fromarray(np.full((9, 9), 0x80C0, np.uint16)), "PPM")
    assert (decode_image(grey, 8).pixels == 0x80).all()


def test_an_enormous_file_is_refused_unread():
    with pytest.raises(BadImage, match="300 MiB large"):
        check_size(File("never-opened", 300 * 2**20))


def test_nearest_neighbor_is_that_of_pillow_on_the_full_image():
    """As torchvision resizes a picture with InterpolationMode.NEAREST: no reduced decoding, no antialiasing."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=95)
    full = Image.open(buffer).convert("RGB")
    expected = np.asarray(full.resize((16, 16), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), 16, "nearest").pixels, expected)
    assert (decode_image(buffer.getvalue(), 16).pixels != expected).any()
