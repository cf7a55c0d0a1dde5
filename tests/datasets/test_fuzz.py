"""Mutated images and archives: taken, or refused with a reason; never anything else."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from packing import make_spec, tar_of_tars, zip_folder
from PIL import Image

from viny.datasets.archives import open_archive
from viny.datasets.build import build
from viny.datasets.decode import BadImage, MaskValues, decode_image, decode_mask
from viny.datasets.store import Store
from viny.errors import VinyError

REASONS = ("is ", "has ", "cannot be ")
ANY = MaskValues({value: value % 3 for value in range(256)}, {0xFF8800: 1})
RELAXED = list(HealthCheck)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
FORMATS = {
    "jpeg": ("JPEG", "RGB", {}),
    "progressive jpeg": ("JPEG", "RGB", {"progressive": True}),
    "cmyk jpeg": ("JPEG", "CMYK", {}),
    "png": ("PNG", "RGB", {}),
    "palette png": ("PNG", "P", {}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "tiff": ("TIFF", "RGB", {}),
    "packed tiff": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", "RGB", {}),
    "ppm": ("PPM", "RGB", {}),
}


def encoded(kind: str) -> bytes:
    format, mode, options = FORMATS[kind]
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, format, **options)
    return buffer.getvalue()


WHOLE = {kind: encoded(kind) for kind in FORMATS}


@st.composite
def mutations(draw) -> list[tuple]:
    """What to do to a file: change bytes (early ones rather), cut, repeat or insert parts."""
    place = st.integers(0, 60) | st.integers(0, 10**6)
    change = st.tuples(st.just("set"), place, st.integers(0, 255) | st.sampled_from([0, 1, 127, 128, 255]))
    cut = st.tuples(st.just("cut"), place, st.integers(1, 50))
    repeat = st.tuples(st.just("repeat"), place, st.integers(1, 50))
    insert = st.tuples(st.just("insert"), place, st.binary(max_size=12))
    return draw(st.lists(change | cut | repeat | insert, min_size=1, max_size=5))


def mutate(data: bytes, steps: list[tuple]) -> bytes:
    made = bytearray(data)
    for kind, place, value in steps:
        at = place % max(len(made), 1)
        if kind == "set" and made:
            made[at] = value
        elif kind == "cut":
            del made[at : at + value]
        elif kind == "repeat":
            made[at:at] = made[at : at + value]
        elif kind == "insert":
            made[at:at] = value
    return bytes(made)


@given(st.sampled_from(sorted(FORMATS)), mutations())
@profile(max_examples=500, deadline=None, derandomize=True, suppress_health_check=RELAXED)
def test_a_mutated_image_is_decoded_or_refused_with_a_reason(kind, steps):
    data = mutate(WHOLE[kind], steps)
    try:
        decoded = decode_image(data, 8)
        assert decoded.pixels.shape == (8, 8, 3)
        assert decoded.pixels.dtype == np.uint8
        assert decoded.width > 0
        assert decoded.height > 0
    except BadImage as error:
        assert str(error).startswith(REASONS)
    try:
        mask = decode_mask(data, 8, (24, 20), ANY)
        assert mask.shape == (8, 8)
        assert mask.max() <= 2
    except BadImage as error:
        assert str(error).startswith(REASONS)


@given(st.binary(max_size=200))
@profile(max_examples=100, deadline=None, derandomize=True, suppress_health_check=RELAXED)
def test_bytes_are_no_image(data):
    with pytest.raises(BadImage):
        decode_image(data, 8)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Small archives in the published layouts: content by form."""
    folder = tmp_path_factory.mktemp("archives")
    for name, files in {"train": ("n1/a.JPEG", "n1/b.JPEG", "n2/c.JPEG")}.items():
        for file in files:
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(WHOLE["jpeg"][:300])
    classes = ("buildings", "forest", "glacier", "mountain", "sea", "street")
    for split in ("seg_train", "seg_test"):
        for name in classes:
            (folder / "intel" / split / name).mkdir(parents=True)
            (folder / "intel" / split / name / "1.jpg").write_bytes(WHOLE["jpeg"][:200])
    tar = tar_of_tars(folder / "train", folder / "train.tar")
    return {
        "tar": tar.read_bytes(),
        "zip": zip_folder(folder / "intel", folder / "intel.zip").read_bytes(),
    }


def read_all(path) -> None:
    """List an archive and read its images, as far as it can be."""
    try:
        tree = open_archive(path)
        for file in [*tree.images.values(), *tree.others.values()]:
            try:
                tree.reader.read(file)
            except BadImage as error:
                assert str(error).startswith(REASONS)
    except (VinyError, OSError) as error:  # an offset beyond the end is an error of reading
        assert path.name in str(error) or isinstance(error, OSError)


@given(st.data())
@profile(max_examples=300, deadline=None, derandomize=True, suppress_health_check=RELAXED)
def test_a_mutated_archive_is_read_or_refused_by_name(archives, tmp_path_factory, data):
    kind = data.draw(st.sampled_from(sorted(archives)))
    content = archives[kind]
    steps = data.draw(mutations())
    if data.draw(st.booleans()):  # headers are few and far between: aim at them
        signatures = (b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04") if kind == "zip" else (b"ustar",)
        spots = [at for mark in signatures for at in find(content, mark)]
        spot = data.draw(st.sampled_from(spots)) - (257 if kind == "tar" else 0)
        steps = [(step, max(spot, 0) + place % 512, value) for step, place, value in steps]
    path = tmp_path_factory.getbasetemp() / ("any.tar" if kind == "tar" else "any.zip")
    path.write_bytes(mutate(content, steps))
    read_all(path)


def find(content: bytes, mark: bytes) -> list[int]:
    found, at = [], content.find(mark)
    while at >= 0:
        found.append(at)
        at = content.find(mark, at + 1)
    return found


@given(
    name=st.text(max_size=30)
    | st.sampled_from(["..", "/etc/passwd", "a/../../b", "C:\\x", "\0", "a" * 300, "x.tar/.."])
)
@profile(max_examples=150, deadline=None, derandomize=True, suppress_health_check=RELAXED)
def test_any_name_in_an_archive_stays_within_it(tmp_path_factory, name):
    folder = tmp_path_factory.getbasetemp()
    try:
        with zipfile.ZipFile(folder / "name.zip", "w") as archive:
            archive.writestr(f"seg_train/sea/{name}", b"x")
        with tarfile.open(folder / "name.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo(name))
    except (ValueError, UnicodeEncodeError, zipfile.BadZipFile, OSError):
        return  # no archive can hold this name
    for file in ("name.zip", "name.tar"):
        try:
            tree = open_archive(folder / file)
        except VinyError as error:
            assert file in str(error)
        else:
            assert not any(part == ".." for path in [*tree.images, *tree.others] for part in path.split("/"))
            assert not any(path.startswith("/") for path in [*tree.images, *tree.others])


@given(steps=mutations(), file=st.sampled_from(["index.jsonl", "manifest.json", "digests.u64", "images.u8"]))
@profile(max_examples=150, deadline=None, derandomize=True, suppress_health_check=RELAXED)
def test_a_mutated_store_is_opened_or_refused(tmp_path_factory, whole_store, steps, file):
    folder = tmp_path_factory.getbasetemp() / "mutated-store"
    folder.mkdir(exist_ok=True)
    for name, content in whole_store.items():
        (folder / name).write_bytes(mutate(content, steps) if name == file else content)
    try:
        Store.open(folder).verify()
    except VinyError as error:
        assert str(folder) in str(error)


@pytest.fixture(scope="module")
def whole_store(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole-store")
    spec = make_spec(folder, data / "imagenet", data, "imagenet", images=3, tests=2, pixels=8)
    build(spec, workers=1)
    return {path.name: path.read_bytes() for path in spec.folder.iterdir()}
