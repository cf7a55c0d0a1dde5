"""`viny inspect`: numbers that are right, and everything that would stop a run."""

import json
import shutil

import pytest
from folders import mask, masked, photo, pool
from PIL import Image

from viny import cli

SETS = {
    "kelp": {"images": "kelp", "classes": {"water": 0, "kelp": 1, "float": 2}, "ignore": [255]},
    "places": {"images": "places", "labels": "folders"},
    "drone": {"images": "drone"},
}


@pytest.fixture
def report(tmp_path, capsys):
    """`report(code, **data)`: what the command says of the data sets, as JSON, when it ends with that code."""
    masked(tmp_path / "kelp", 30, (0, 1, 1, 255))
    pool(tmp_path / "places", classes=("sea", "forest", "street"))
    pool(tmp_path / "drone", first=3000)
    for number in (7, 8):
        mask(tmp_path / "kelp" / "masks" / f"{number}.png", (0, 1, 2, 255))
    config = {
        "grid": {"pretrain": [0, 10], "intermediate": ["none", "cls"], "downstream": [2, 18], "seeds": [1]},
        "model": {"image_size": 16, "patch_size": 8},
        "pretrain": {"images": "drone", "heldout_images": 5},
        "intermediate": {"cls": {"task": "classification", "images": "places"}},
        "finetune": {"images": "kelp", "test_images": 8},
    }

    def make(code: int, **data) -> dict:
        full = config | {"data": {"root": str(tmp_path), "store_pixels": 20, "sets": SETS, **data}}
        (tmp_path / "config.yaml").write_text(json.dumps(full))
        assert cli.main(["inspect", "--json", "--workers", "1"]) == code
        return {each["name"]: each for each in json.loads(capsys.readouterr().out)["sets"]}

    return make


def test_what_is_there(report, tmp_path):
    (tmp_path / "kelp" / "notes.txt").write_text("x")
    found = report(0)
    kelp, places, drone = found["kelp"], found["places"], found["drone"]
    assert (kelp["images"], kelp["read"]) == (30, 30)
    assert (kelp["widths"], kelp["heights"]) == ([12, 12], [10, 10])
    shares = {each["name"]: (each["images"], round(each["share"], 2)) for each in [*kelp["classes"], kelp["ignored"]]}
    assert shares == {"water": (30, 0.25), "kelp": (30, 0.48), "float": (2, 0.02), "ignored": (30, 0.25)}
    assert kelp["left_out"] == {".txt": 1}
    assert [each["images"] for each in places["classes"]] == [10, 10, 10]
    assert (drone["classes"], drone["ignored"], drone["used"]) == ([], None, ["pretrain"])
    assert any("show none of the classes float" in note for note in kelp["notes"])
    for each in found.values():
        with Image.open(each["sheet"]) as sheet:
            assert sheet.width > 400
        assert not each["problems"]


def test_what_would_stop_a_run(report, tmp_path):
    mask(tmp_path / "kelp" / "masks" / "3.png", (0, 9))
    (tmp_path / "kelp" / "masks" / "4.png").unlink()
    (tmp_path / "kelp" / "images" / "5.png").write_bytes(b"")
    photo(tmp_path / "kelp" / "images" / "6.png", 6, (30, 20))
    mask(tmp_path / "kelp" / "masks" / "more.png")
    kelp = report(1)["kelp"]
    reasons = dict(kelp["bad"])
    assert "neither classes nor ignored: 9 (60 of 120 pixels)" in reasons["3.png"]
    assert "is not there" in reasons["4.png"]
    assert "is empty" in reasons["5.png"]
    assert "its mask 12 x 10" in reasons["6.png"]
    assert kelp["left_out"] == {"masks without an image": 1}
    assert kelp["problems"][0].startswith("4 images cannot be used: 3.png has a mask with values")
    skipped = report(0, bad_images="skip")["kelp"]
    assert skipped["notes"][0].startswith("4 images cannot be used")


def test_too_few_images(report, tmp_path):
    for number in range(3, 10):
        (tmp_path / "kelp" / "images" / f"{number}.png").unlink()
    kelp = report(1)["kelp"]
    assert kelp["problems"] == ["8 test and 18 training images are needed, 8 and 15 can be used"]


def test_a_set_that_cannot_be_listed_does_not_hide_the_others(report, tmp_path):
    shutil.rmtree(tmp_path / "places")
    found = report(1)
    assert found["places"]["problems"][0].startswith("there is no")
    assert found["kelp"]["images"] == 30


def test_copies_are_found_before_anything_is_decoded(report, tmp_path):
    for number in range(30):
        shutil.copy(tmp_path / "kelp" / "images" / f"{number}.png", tmp_path / "drone" / f"{number}.png")
    drone = report(1)["drone"]
    assert drone["leaks"]
    assert all(trained == test for _, trained, _, test in drone["leaks"])
    assert "of drone look" in drone["problems"][0]
    assert "data.leaks is drop" in report(0, leaks="drop")["drone"]["notes"][0]


def test_twins_within_a_set(report, tmp_path):
    shutil.copy(tmp_path / "drone" / "1.png", tmp_path / "drone" / "copy.png")
    assert report(0)["drone"]["twins"] == [["1.png", "copy.png"]]


def test_the_page_for_people(report, tmp_path, capsys):
    report(0)
    assert cli.main(["inspect", "--output", "sheets"]) == 0
    said = capsys.readouterr().out
    assert "contact sheet" in said
    assert str(tmp_path / "sheets" / "kelp.png") in said
    assert (tmp_path / "sheets" / "kelp.png").exists()
    assert "\x1b" not in said
    assert all(line == line.rstrip() or len(line) < 80 for line in said.splitlines())


def test_generated_sets_are_made_first(tmp_path, capsys):
    procedural = {"imagenet": 40, "intel": 36, "pets": 60, "pixels": 20}
    config = {
        "grid": {"pretrain": [0, 8], "intermediate": ["none", "cls_intel"], "downstream": [8], "seeds": [1]},
        "data": {"procedural": procedural, "store_pixels": 20},
        "model": {"image_size": 16, "patch_size": 8},
        "pretrain": {"heldout_images": 5},
        "finetune": {"test_images": 8},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert cli.main(["inspect", "--json", "--workers", "1"]) == 0
    found = {each["name"]: each for each in json.loads(capsys.readouterr().out)["sets"]}
    assert [each["name"] for each in found["pets"]["classes"]] == ["foreground", "background", "border"]
