"""Procedural images: the published layouts, the same for a seed, and neither trivial nor hidden."""

import numpy as np
import pytest
from PIL import Image

from viny.config.sections import Procedural
from viny.datasets import procedural
from viny.datasets.procedural import generate


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_torchvision_reads_the_layouts(data):
    from torchvision.datasets import ImageFolder, OxfordIIITPet

    imagenet = ImageFolder(str(data / "imagenet" / "train"))
    assert len(imagenet) == 60
    assert len(imagenet.classes) == 10
    assert ImageFolder(str(data / "intel" / "seg_train" / "seg_train")).classes == [
        "buildings", "forest", "glacier", "mountain", "sea", "street"
    ]  # fmt: skip
    assert len(ImageFolder(str(data / "intel" / "seg_test" / "seg_test"))) == 12
    splits = [
        OxfordIIITPet(str(data), split, ["category", "binary-category", "segmentation"])
        for split in ("trainval", "test")
    ]
    assert [len(split) for split in splits] == [37, 37]
    image, (breed, species, trimap) = splits[0][5]
    assert image.size == trimap.size
    assert (breed, species) == (5, 0)
    assert set(np.unique(trimap)) == {1, 2, 3}


def test_a_seed_makes_the_same_images_and_more_images_keep_the_first(tmp_path):
    few, again, other, many = (
        files(generate("pets", Procedural(pets=pets, pixels=24, seed=seed), tmp_path / str(number)))
        for number, (pets, seed) in enumerate([(40, 3), (40, 3), (40, 4), (80, 3)])
    )
    assert few == again
    assert few != other
    assert all(many[name] == content for name, content in few.items() if name.endswith(("jpg", "png")))


def test_figure_and_ground_are_not_told_apart_by_brightness(data):
    """The best single threshold over all images is hardly better than calling everything ground."""
    folder = data / "oxford-iiit-pet"
    grey, truth = [], []
    for path in sorted((folder / "images").iterdir()):
        trimap = np.asarray(Image.open(folder / "annotations" / "trimaps" / f"{path.stem}.png"))
        grey.append(np.asarray(Image.open(path).convert("L"))[trimap != 3])
        truth.append(trimap[trimap != 3] == 1)
    values, figure = np.concatenate(grey), np.concatenate(truth)
    majority = max(figure.mean(), 1 - figure.mean())
    best = max(max(np.mean((values > t) == figure), np.mean((values <= t) == figure)) for t in range(0, 256, 8))
    assert best < majority + 0.05


def test_trimaps_ring_the_figure(data):
    for path in (data / "oxford-iiit-pet" / "annotations" / "trimaps").iterdir():
        trimap = np.asarray(Image.open(path))
        for one, other in ((trimap[1:], trimap[:-1]), (trimap[:, 1:], trimap[:, :-1])):
            assert not ((one != other) & (one != 3) & (other != 3)).any()
        assert 0.03 < (trimap == 3).mean() < 0.5


def test_nothing_is_overwritten(tmp_path):
    settings = Procedural(intel=12, pixels=20)
    precious = tmp_path / "intel" / "mine.jpg"
    precious.parent.mkdir()
    precious.write_bytes(b"mine")
    with pytest.raises(OSError, match="not empty"):
        generate("intel", settings, tmp_path)
    assert precious.read_bytes() == b"mine"
    assert [item.name for item in tmp_path.iterdir()] == ["intel"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(name, number, rng, pixels):
        if number == 3:
            raise KeyboardInterrupt
        return {"train/x.jpg": Image.new("RGB", (8, 8))}

    monkeypatch.setattr(procedural, "_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate("imagenet", Procedural(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_scenes_can_be_told_apart(data):
    """Mean colors tell the kinds of scenes better than chance, which is what the task is about."""
    folders = sorted((data / "intel" / "seg_train" / "seg_train").iterdir())
    means = {folder.name: [np.asarray(Image.open(p)).mean((0, 1)) for p in folder.iterdir()] for folder in folders}
    right = total = 0
    for name, colors in means.items():
        for number, color in enumerate(colors):
            rest = {n: np.mean([c for i, c in enumerate(cs) if (n, i) != (name, number)], 0) for n, cs in means.items()}
            right += min(rest, key=lambda n: np.linalg.norm(rest[n] - color)) == name
            total += 1
    assert right / total > 2 / 6


def test_images_are_jpegs(data):
    assert {Image.open(path).format for path in (data / "imagenet" / "train").rglob("*.JPEG")} == {"JPEG"}
