"""Procedural images: the published layouts, the same for a seed, and neither trivial nor hidden."""

import json

import numpy as np
import pytest
from PIL import Image

from viny.data import procedural
from viny.data.procedural import generate, main
from viny.errors import VinyError


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_torchvision_reads_the_layouts(data):
    from torchvision.datasets import ImageFolder, OxfordIIITPet

    imagenet = ImageFolder(str(data / "imagenet" / "train"))
    assert len(imagenet) == 60
    assert len(imagenet.classes) == 20
    assert ImageFolder(str(data / "intel" / "seg_train" / "seg_train")).classes == [
        "buildings", "forest", "glacier", "mountain", "sea", "street"
    ]  # fmt: skip
    assert len(ImageFolder(str(data / "intel" / "seg_test" / "seg_test"))) == 6
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
    one, again = generate("pets", 40, 24, 3, tmp_path / "a"), generate("pets", 40, 24, 3, tmp_path / "b")
    assert one == again
    assert generate("pets", 40, 24, 4, tmp_path / "c")["checksum"] != one["checksum"]
    generate("pets", 80, 24, 3, tmp_path / "d")
    few, many = files(tmp_path / "a"), files(tmp_path / "d")
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


def test_command_writes_the_marker_last_and_replaces_only_what_it_made(tmp_path, capsys):
    flags = ["--dataset", "intel", "--images", "12", "--pixels", "20", "--output", str(tmp_path / "out")]
    marker = tmp_path / "intel.json"
    assert main([*flags, "--marker", str(marker), "--log", str(tmp_path / "log.txt")]) == 0
    first = marker.read_text()
    assert json.loads(first)["images"] == 12
    assert "12 images" in (tmp_path / "log.txt").read_text()
    assert main([*flags, "--marker", str(marker)]) == 0
    assert marker.read_text() == first
    assert sorted(item.name for item in (tmp_path / "out").iterdir()) == ["intel"]

    precious = tmp_path / "real" / "intel" / "mine.jpg"
    precious.parent.mkdir(parents=True)
    precious.write_bytes(b"mine")
    flags[-1] = str(tmp_path / "real")
    assert main([*flags, "--marker", str(tmp_path / "other.json")]) == 1
    assert "was not generated" in capsys.readouterr().err
    assert precious.read_bytes() == b"mine"
    assert not (tmp_path / "other.json").exists()


def test_an_interrupted_run_leaves_nothing_that_looks_finished(tmp_path, monkeypatch):
    def interrupted(folder, images, pixels, seed):
        (folder / "train").mkdir()
        yield folder
        raise KeyboardInterrupt

    monkeypatch.setitem(procedural.MAKERS, "imagenet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate("imagenet", 60, 24, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dataset", "least"), [("intel", 12), ("pets", 37)])
def test_too_few_images_for_the_classes_are_refused(tmp_path, dataset, least):
    with pytest.raises(VinyError, match=f"at least {least} images, not {least - 1}"):
        generate(dataset, least - 1, 24, 0, tmp_path)
    generate(dataset, least, 24, 0, tmp_path)


def test_images_are_jpegs(data):
    assert {Image.open(path).format for path in (data / "imagenet" / "train").rglob("*.JPEG")} == {"JPEG"}
