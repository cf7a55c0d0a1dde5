"""`viny init`: layouts are recognized, and the study file can be run as it is."""

import numpy as np
import pytest
from folders import mask, masked, photo, pool
from PIL import Image

from viny import cli
from viny.config import load
from viny.datasets.build import build
from viny.grid import Study


def run(capsys, *folders: str) -> str:
    """Run the command, which must succeed; returns what it said."""
    assert cli.main(["init", *folders]) == 0
    return capsys.readouterr().out


def made(name: str):
    """The study, whose stores can be built."""
    study = Study(load(f"{name}.yaml"))
    for spec in study.stores:
        build(spec, workers=1)
    return study.config


def test_a_folder_with_masks_alone(tmp_path, capsys):
    masked(tmp_path / "kelp")
    said = run(capsys, "kelp")
    assert "kelp: folders images and masks; 40 images, 2 classes: background, foreground" in said
    assert "viny inspect --configfile kelp.yaml" in said
    assert "--cores 2 --configfile kelp.yaml" in said
    config = made("kelp")
    assert config.study == "kelp"
    assert config.data.sets["kelp"].classes == {"background": 0, "foreground": 1}
    assert config.data.sets["kelp"].ignore == (255,)
    assert (config.pretrain.images, config.finetune.images, config.grid.intermediate) == ("kelp", "kelp", ("none",))
    assert max(config.grid.downstream) <= 32
    assert config.finetune.test_images == 8


def test_all_kinds_together(tmp_path, capsys):
    masked(tmp_path / "in" / "my scans", values=[(255, 136, 0), (0, 0, 128), (224, 224, 192)])
    rows = "".join(f"{number}.png,patient {number % 9}\n" for number in range(40))
    (tmp_path / "in" / "my scans" / "who.csv").write_text("file,group\n" + rows)
    pool(tmp_path / "in" / "places", classes=("sea", "forest"))
    pool(tmp_path / "in" / "drone", 90, first=2000)
    said = run(capsys, "in/my scans", "in/places", "in/drone")
    assert "groups in who.csv" in said
    config = made("my-scans")
    assert config.data.root == "in"
    assert config.data.sets["my-scans"].groups == "my scans/who.csv"
    assert set(config.data.sets["my-scans"].classes.values()) == {"#ff8800", "#000080"}
    assert config.data.sets["my-scans"].ignore == ("#e0e0c0",)
    assert config.grid.intermediate == ("none", "cls_places")
    assert config.pretrain.images == "drone"
    assert max(config.grid.pretrain) <= 81


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_table_of_labels(tmp_path, capsys, place):
    masked(tmp_path / "kelp")
    pool(tmp_path / "places")
    rows = "".join(f"{number},{'ab'[number % 2]}\n" for number in range(30))
    (tmp_path / ("places/x.csv" if place == "inside" else "places.csv")).write_text("file,label\n" + rows)
    run(capsys, "kelp", "places")
    assert made("kelp").intermediate["cls_places"].images == "places"


def test_masks_beside_their_images_and_in_folders_of_other_names(tmp_path, capsys):
    for number in range(12):
        photo(tmp_path / "one" / f"{number}.jpg", number)
        mask(tmp_path / "one" / f"{number}_mask.png")
    masked(tmp_path / "two", 12, (0, 255), "img", "ground_truth")
    run(capsys, "one")
    assert made("one").data.sets["one"].masks == "{parent}/{stem}_mask.png"
    run(capsys, "two")
    config = made("two").data.sets["two"]
    assert (config.images, config.masks) == ("two/img", "two/ground_truth")
    assert config.classes == {"background": 0, "foreground": 255}


def test_an_export_of_cvat(tmp_path, capsys):
    masked(tmp_path / "x", 12, [(0, 0, 0), (255, 136, 0)], "JPEGImages", "SegmentationClass")
    (tmp_path / "x" / "labelmap.txt").write_text("background:0,0,0::\nkelp:255,136,0::\n")
    assert "Pascal VOC with labelmap.txt; 12 images, 2 classes: background, kelp" in run(capsys, "x")
    assert made("x").data.sets["x"].classes is None


def test_images_without_masks_are_left_out_and_counted(tmp_path, capsys):
    masked(tmp_path / "kelp")
    for number in range(3):
        photo(tmp_path / "kelp" / "images" / f"more{number}.png", 500 + number)
    assert "3 images without a mask are left out" in run(capsys, "kelp")
    assert made("kelp").data.bad_images == "skip"


def test_a_published_split_is_kept(tmp_path, capsys):
    for split, first in (("train", 0), ("val", 100)):
        for number in range(first, first + 15):
            photo(tmp_path / "kelp" / "images" / split / f"{number}.png", number)
            mask(tmp_path / "kelp" / "masks" / split / f"{number}.png")
    assert "with a published split" in run(capsys, "kelp")
    assert max(made("kelp").grid.downstream) <= 15


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (pool, "none of these has masks, and segmentation needs images with masks"),
        (lambda folder: pool(folder, classes=("sea", "forest")), "none of these has masks"),
        (lambda folder: masked(folder, values=(7, 7)), "the masks have one value, 7; segmentation needs two classes"),
        (lambda folder: masked(folder, values=range(0, 200, 2), count=2), "more than 64 different values|one value"),
        (lambda folder: folder.mkdir(), "no images found"),
        (lambda folder: None, "there is no"),
    ],
)
def test_what_is_missing_is_said(tmp_path, capsys, make, said):
    make(tmp_path / "x")
    if said.startswith("more"):
        shades = np.arange(24 * 20, dtype=np.uint8).reshape(20, 24)
        Image.fromarray(shades).save(tmp_path / "x" / "masks" / "0.png")
    assert cli.main(["init", "x"]) == 1
    error = capsys.readouterr().err
    assert any(part in error for part in said.split("|")), error
    assert not (tmp_path / "x.yaml").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    masked(tmp_path / "kelp", 12)
    (tmp_path / "kelp.yaml").write_text("mine")
    assert cli.main(["init", "kelp"]) == 1
    assert "kelp.yaml is there already; remove it, or choose another file with --output" in capsys.readouterr().err
    assert (tmp_path / "kelp.yaml").read_text() == "mine"
    assert cli.main(["init", "kelp", "--output", "other.yaml"]) == 0
    assert (tmp_path / "other.yaml").exists()


@pytest.mark.parametrize("name", ["123", "null", "pets", "Größe & Co", "published"])
def test_names_that_yaml_or_viny_would_misread(tmp_path, capsys, name):
    masked(tmp_path / name, 12)
    assert cli.main(["init", name]) == 0
    [file] = tmp_path.glob("*.yaml")
    assert load(file).finetune.images in load(file).data.sets
