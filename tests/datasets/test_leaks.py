"""Test images among training images: found whatever was done to the file, told apart from mere likeness."""

import io

import numpy as np
import pytest
from folders import mask
from PIL import Image, ImageFilter

from viny.config import load
from viny.datasets.build import build
from viny.datasets.decode import decode_image
from viny.datasets.leaks import leaks, refuse, signature, twins
from viny.datasets.store import Store
from viny.errors import FinalError, VinyError
from viny.grid import Study


def scene(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Soft colored noise, as photographs are at the scale of a few pixels."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    fine = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return Image.blend(small.resize(size, Image.Resampling.BICUBIC), fine.filter(ImageFilter.GaussianBlur(1)), 0.15)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def signatures(*images: bytes, side: int = 64) -> np.ndarray:
    return np.stack([signature(decode_image(data, side).pixels, data) for data in images])


@pytest.mark.parametrize(
    "again",
    [
        lambda image: encoded(image),
        lambda image: encoded(image, "JPEG", quality=30),
        lambda image: encoded(image.resize((48, 36)), "JPEG", quality=75),
        lambda image: encoded(image, "WEBP", quality=50),
    ],
)
def test_an_image_encoded_again_is_a_twin_of_itself_alone(again):
    originals = [scene(seed) for seed in range(40)]
    ones = signatures(*map(encoded, originals))
    others = signatures(*map(again, originals), side=40)
    assert twins(ones, others) == [(number, number) for number in range(40)]
    assert twins(ones) == []


def test_images_without_contrast_are_twins_if_they_are_equal():
    flat = [encoded(Image.new("RGB", (30, 20), color)) for color in ("black", "white", "#808080", "black")]
    assert twins(signatures(*flat)) == [(0, 3)]


def test_the_same_file_is_found_even_if_it_is_noise():
    noise = [np.random.default_rng(seed).integers(0, 256, (50, 70, 3), dtype=np.uint8) for seed in range(5)]
    files = [encoded(Image.fromarray(each)) for each in noise]
    assert twins(signatures(*files, side=20), signatures(*files, side=32)) == [(number, number) for number in range(5)]


def test_what_is_like_but_another_image_is_no_twin():
    image = np.asarray(scene(1)).astype(float)
    others = [image[:, ::-1], image[::-1], np.roll(image, 12, axis=1), 255 - image, image * 0.7, image[10:, 14:]]
    ones = [encoded(Image.fromarray(np.ascontiguousarray(each).astype(np.uint8))) for each in (image, *others)]
    assert twins(signatures(*ones)) == []


def test_pairs_are_the_nearest_in_blocks_of_any_size(monkeypatch):
    ones = signatures(*(encoded(scene(seed)) for seed in (0, 1, 2, 0)))
    others = signatures(*(encoded(scene(seed)) for seed in (2, 5, 0, 2)))
    expected = [(0, 2), (2, 0), (3, 2)]
    assert twins(ones, others) == expected
    monkeypatch.setattr("viny.datasets.leaks.BLOCK", 2)
    assert twins(ones, others) == expected
    assert twins(ones) == [(0, 3)]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """`study(leaks=...)`: 30 masked images, of which two are twins, and a pool that has twins of five of them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("kelp/images", "pool"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for number in range(30):
        content = encoded(scene(number % 28))  # 28 is 0 again, 29 is 1
        (tmp_path / f"data/kelp/images/{number}.png").write_bytes(content)
        mask(tmp_path / f"data/kelp/masks/{number}.png", (0, 1), (96, 72))
    for number in range(20):
        again = scene(number if number < 5 else 100 + number)
        (tmp_path / f"data/pool/{number}.jpg").write_bytes(encoded(again, "JPEG", quality=60))

    def make(**data):
        sets = {"pool": {"images": "pool"}, "kelp": {"images": "kelp", "classes": ["a", "b"]}}
        config = {
            "grid": {"pretrain": [0, 8], "intermediate": ["none"], "downstream": [8], "seeds": [1]},
            "data": {"sets": sets, "store_pixels": 40, **data},
            "model": {"image_size": 32, "patch_size": 8},
            "pretrain": {"images": "pool", "heldout_images": 2},
            "finetune": {"images": "kelp", "test_images": 12},
        }
        return Study(load(config))

    return make


def by_set(study, name):
    return next(spec for spec in study.stores if spec.name == name)


def test_own_sets_stop_and_say_which_images(study):
    made = study()
    assert leaks(made) == []  # nothing is decoded yet
    for spec in made.stores:
        build(spec, workers=1)
    tests = Store.open(by_set(made, "kelp").folder).names[:12]
    pool = Store.open(by_set(made, "pool").folder)
    trained = pool.names[pool.tests :]
    found = [leak for leak in leaks(made) if leak.training_set == "pool"]
    expected = {name for name in trained if int(name[:-4]) < 5 and f"{name[:-4]}.png" in tests}
    expected |= {f"{copy - 28}.jpg" for copy in (28, 29) if f"{copy}.png" in tests} & set(trained)
    assert {leak.training_image for leak in found} == expected
    assert expected
    with pytest.raises(FinalError, match=r"training images of pool look like test images of kelp: .* like .*set data"):
        refuse(by_set(made, "pool"))


def test_allowed_leaks_are_only_counted(study):
    made = study(leaks="allow")
    for spec in made.stores:
        build(spec, workers=1)
        refuse(spec)
    assert leaks(made)
    assert {spec.folder for spec in made.stores} == {spec.folder for spec in study(leaks="stop").stores}


def test_dropped_images_are_replaced_by_the_next_in_order(study):
    for spec in study(leaks="allow").stores:
        build(spec, workers=1)
    made, other = study(leaks="drop"), study(leaks="allow")
    build(by_set(made, "pool"), workers=1)  # makes the test images first
    build(by_set(made, "kelp"), workers=1)
    assert leaks(made) == []
    for name in ("pool", "kelp"):
        kept, all_of_them = (Store.open(by_set(each, name).folder) for each in (made, other))
        assert kept.count == all_of_them.count
        dropped = {leak.training_image for leak in leaks(other) if leak.training_set == name}
        rest = [each for each in all_of_them.names if each not in dropped]
        assert kept.names[: len(rest)] == rest
    keys = [{job.name: job.key for job in each.jobs.values()} for each in (made, other)]
    assert all(keys[0][name] != keys[1][name] for name in keys[0])


def test_too_few_images_without_the_dropped_ones(study, monkeypatch):
    made = study(leaks="drop")
    monkeypatch.setattr("viny.datasets.leaks.RELATIVE", 10.0)
    with pytest.raises(VinyError, match=r"of which are test images, too"):
        build(by_set(made, "pool"), workers=1)
    assert not by_set(made, "pool").folder.exists()


def test_the_sets_of_the_paper_are_allowed_to_leak():
    def modes(**config):
        return {spec.name: spec.leaks for spec in Study(load(config)).stores}

    assert set(modes().values()) == {"allow"}
    own = {"sets": {"drone": {"images": "drone"}}}
    assert modes(data=own, pretrain={"images": "drone"}) == {"drone": "stop", "intel": "allow", "pets": "allow"}
    assert set(modes(data={"leaks": "stop"}).values()) == {"stop"}
