"""Every kind of bad image is named or left out; odd but usable ones are converted."""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from viny.data.decode import decode_image, decode_trimap
from viny.data.sources import BadImage
from viny.data.store import Store
from viny.errors import VinyError


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth RGB image, uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 8 % 256, y * 10 % 256, (x + y) * 4 % 256], axis=-1).astype(np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims to be of a size and holds nothing."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
PNG = encoded(Image.fromarray(gradient()))
BAD = {
    "empty": (b"", "is empty"),
    "text": (b"<html>404 Not Found</html>", "is not an image"),
    "truncated JPEG": (JPEG[: len(JPEG) // 2], r"is damaged \(image file is truncated"),
    "JPEG header only": (JPEG[:200], "is (damaged|not an image)"),
    "truncated PNG": (PNG[: len(PNG) // 2], "is damaged"),
    "flipped bits in a PNG": (PNG[:-40] + b"\xff" * 20 + PNG[-20:], "is damaged"),
    "bomb": (png_header(60_000, 60_000), "has more than the 100,000,000 pixels allowed"),
    "large bomb": (png_header(12_000, 12_000), "has 12000 x 12000 pixels, more than the 100,000,000 allowed"),
    "32 bits": (encoded(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"), "has 32 bits a channel"),
    "a program for a printer": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_stops_the_build_by_name_or_is_replaced_by_the_next(kind, copy, build, data, tmp_path):
    content, message = BAD[kind]
    source = copy("imagenet")
    order = build("imagenet", data / "imagenet", folder="good").names
    victim = order[3]
    (source / victim).write_bytes(content)
    with pytest.raises(VinyError, match=rf"{source}/{victim} ({message})[\s\S]*data.bad_images: skip"):
        build("imagenet", source, 10)
    assert not (tmp_path / "store" / "first=10.json").exists()
    store = build("imagenet", source, 10, skip_bad=True)
    assert store.names == [name for name in order if name != victim][:10]
    store.verify()
    (left_out,) = json.loads(store.manifest.read_bytes())["skipped"]
    assert left_out["name"] == victim
    assert str(tmp_path) not in left_out["reason"]


def test_several_bad_images_are_named_together_and_nesting_holds_without_them(copy, build, monkeypatch):
    from viny.data import parallel

    monkeypatch.setattr(parallel, "CHUNK", 8)
    source = copy("imagenet")
    order = build("imagenet", source, folder="good").names
    bad = [order[i] for i in (0, 5, 6, 20, 59)]
    for name in bad:
        (source / name).write_bytes(b"")
    with pytest.raises(VinyError, match="3 images cannot be used"):
        build("imagenet", source, 40)
    good = [name for name in order if name not in bad]
    short, long = build("imagenet", source, 7, skip_bad=True), build("imagenet", source, 30, skip_bad=True)
    whole = build("imagenet", source, skip_bad=True)
    assert short.names == good[:7]
    assert long.names == good[:30]
    assert whole.names == good
    assert (whole.images[:30] == long.images).all()
    whole.verify()
    skipped = [len(json.loads(store.manifest.read_bytes())["skipped"]) for store in (short, long, whole)]
    assert skipped == [3, 4, 5]
    with pytest.raises(VinyError, match=r"56 images of imagenet are needed, but .* of which 5 images cannot be used"):
        build("imagenet", source, 56, skip_bad=True)


def test_mending_or_removing_a_bad_image_lets_a_stopped_build_go_on(copy, build, data):
    source = copy("imagenet")
    whole = build("imagenet", data / "imagenet", folder="good")
    mended, removed = whole.names[4], whole.names[7]
    for name in (mended, removed):
        (source / name).write_bytes(b"")
    with pytest.raises(VinyError, match="2 images cannot be used"):
        build("imagenet", source)
    (source / mended).write_bytes((data / "imagenet" / "train" / mended).read_bytes())
    (source / removed).unlink()
    assert build("imagenet", source).names == [name for name in whole.names if name != removed]


def test_a_store_built_without_bad_images_does_not_serve_a_study_that_stops(copy, build, data):
    source = copy("imagenet")
    order = build("imagenet", data / "imagenet", folder="good").names
    (source / order[12]).write_bytes(b"")
    build("imagenet", source, 20, skip_bad=True)
    with pytest.raises(VinyError, match=rf"without 1 image[\s\S]*{order[12]} is empty[\s\S]*bad_images: skip"):
        build("imagenet", source, 15)
    assert build("imagenet", source, 10).count == 10
    (source / order[12]).write_bytes((data / "imagenet" / "train" / order[12]).read_bytes())
    with pytest.raises(VinyError, match="another source"):
        build("imagenet", source, 25, skip_bad=True)
    (source / order[12]).unlink()
    assert order[12] not in build("imagenet", source, 25, skip_bad=True).names


def trimap_of(pets: Path, name: str) -> Path:
    return pets / "annotations" / "trimaps" / f"{name}.png"


def break_values(pets: Path, name: str) -> None:
    path = trimap_of(pets, name)
    values = np.asarray(Image.open(path)).copy()
    values[:2] = [[0], [7]]
    Image.fromarray(values).save(path)


def break_size(pets: Path, name: str) -> None:
    Image.open(trimap_of(pets, name)).resize((9, 11), Image.Resampling.NEAREST).save(trimap_of(pets, name))


def break_channels(pets: Path, name: str) -> None:
    Image.open(trimap_of(pets, name)).convert("RGB").save(trimap_of(pets, name))


BROKEN_PETS = {
    "values": (break_values, r"has a trimap with the values 0, 7; allowed are 1 \(pet\)"),
    "size": (break_size, r"is \d+ x \d+, but its trimap 9 x 11"),
    "channels": (break_channels, "has a trimap with 3 channels"),
    "no trimap": (lambda pets, name: trimap_of(pets, name).unlink(), r"has no trimap \(annotations/trimaps/"),
    "empty trimap": (lambda pets, name: trimap_of(pets, name).write_bytes(b""), "has a trimap that is empty"),
    "no image": (
        lambda pets, name: (pets / "images" / f"{name}.jpg").unlink(),
        "is listed in the annotations, but not",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_PETS)
def test_a_pet_without_a_sound_trimap_is_bad(kind, copy, build):
    break_it, message = BROKEN_PETS[kind]
    pets = copy("pets")
    order = build("pets", pets, folder="good").names
    break_it(pets, order[2])
    with pytest.raises(VinyError, match=rf"{order[2]}\.jpg {message}"):
        build("pets", pets)
    store = build("pets", pets, skip_bad=True)
    assert store.names == order[:2] + order[3:]
    store.verify()
    assert Store.open(store.manifest).masks.shape[0] == 73


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

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (decode_image(png, 8).pixels == 0x80).all()


def test_a_large_jpeg_is_reduced_without_changing_what_it_shows():
    y, x = np.mgrid[0:750, 0:1000]
    smooth = np.stack([x / 4, y / 3, 255 - x / 4], axis=-1).clip(0, 255).astype(np.uint8)
    decoded = decode_image(encoded(Image.fromarray(smooth), "JPEG", quality=95), 64)
    expected = np.asarray(Image.fromarray(smooth).resize((64, 64), Image.Resampling.BICUBIC))
    assert (decoded.width, decoded.height) == (1000, 750)
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= 6


def test_trimaps_in_other_encodings_count_by_value():
    values = np.array([[1, 2], [3, 1]], np.uint8)
    palette = Image.fromarray(values)
    palette.putpalette(list(range(256)) * 3)
    for image in (Image.fromarray(values), palette, Image.fromarray(values.astype(np.uint16))):
        assert (decode_trimap(encoded(image), 2, (2, 2)) == values - 1).all()
    with pytest.raises(BadImage, match="values 4, 65535"):
        decode_trimap(encoded(Image.fromarray(np.array([[4, 65535]], np.uint16))), 2, (2, 1))


def test_an_enormous_file_is_refused_unread(tmp_path):
    from viny.data.sources.base import read_file

    with pytest.raises(BadImage, match="300 MiB large"):
        read_file(str(tmp_path / "never-opened"), 300 * 2**20)
