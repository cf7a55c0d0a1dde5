"""Damaged variants of own data sets: one true message each, and nothing is left behind."""

import io
import os
import tarfile
import zipfile

import pytest
from folders import mask, photo
from PIL import Image

from viny.datasets.build import build
from viny.datasets.store import Store
from viny.errors import VinyError

SEGMENTATION = {"masks": "masks", "classes": ["a", "b", "c"]}
FOLDERS = {"classes": ["a", "b", "c"], "path": "."}
LABELS = {"labels": "labels.csv"}
SPLITS = {"splits": {"train": "train.txt", "test": "test.txt"}}
GROUPS = {"groups": "groups.csv"}


def six(root):
    """Six images in `images`, with masks, labels, lists and groups."""
    for number in range(6):
        photo(root / "images" / f"{number}.jpg", number)
        mask(root / "masks" / f"{number}.png")
    write(root / "labels.csv", "file,label", *(f"{n}.jpg,{n % 2}" for n in range(6)))
    write(root / "groups.csv", "file,group", *(f"{n}.jpg,g{n % 3}" for n in range(6)))
    write(root / "train.txt", *"0123")
    write(root / "test.txt", *"45")


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))


def voc(root, *lines, labelmap="a:0,0,0::\nb:1,1,1::\nc:2,2,2::\n"):
    (root / "images").rename(root / "JPEGImages")
    (root / "masks").rename(root / "SegmentationClass")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    write(root / "ImageSets" / "Segmentation" / "train.txt", *lines)
    (root / "labelmap.txt").write_text(labelmap)


def class_folders(root):
    for number in range(6):
        photo(root / "images" / "xy"[number % 2] / f"{number}.jpg", number)
        (root / "images" / f"{number}.jpg").unlink()


def archive(root, name, content=None):
    """`images` becomes an archive."""
    if content is None:
        with zipfile.ZipFile(root / name, "w") as made:
            for file in (root / "images").iterdir():
                made.write(file, file.name)
        content = (root / name).read_bytes()
    (root / name).write_bytes(content)


def as_jpeg(root):
    for path in (root / "masks").iterdir():
        image = Image.open(path).point(lambda value: value * 100)
        path.unlink()
        image.save(path.with_suffix(".jpg"), quality=30)


def swap(root, name, **options):
    mask(root / "masks" / name, **options)


CASES = {
    # trees
    "nothing there": (lambda r: None, {"path": "photos"}, "there is no .*/photos; put a folder"),
    "no images": (
        lambda r: [p.rename(p.with_suffix(".heic")) for p in (r / "images").iterdir()],
        {},
        "images: no images found; ignored: 6 .heic",
    ),
    "not an image": (
        lambda r: (r / "images" / "3.jpg").write_text("<html>"),
        {},
        "1 image cannot be used:\n  .*/3.jpg is no image that Pillow can read as JPEG, ",
    ),
    "an empty image": (lambda r: (r / "images" / "3.jpg").write_text(""), {}, "3.jpg is empty"),
    "a link to nothing": (lambda r: (r / "images" / "7.jpg").symlink_to("gone"), {}, "7.jpg is not there, or a link"),
    "a folder that is a link to nothing": (
        lambda r: (r / "images" / "more").symlink_to("gone"),
        {},
        "1 links lead to nothing: more; restore",
    ),
    "a link to itself": (lambda r: (r / "images" / "7.jpg").symlink_to("7.jpg"), {}, "7.jpg is not there, or a link"),
    "all images bad": (lambda r: [p.write_text("x") for p in (r / "images").iterdir()], {}, "6 images cannot be used"),
    "too few": (
        lambda r: None,
        {"tests": 6},
        "6 test and 1 training images are needed; .* has 6 images, enough for 6 test and 0 training images",
    ),
    "far too few": (lambda r: None, {"images": 10}, "1 test and 10 training .* enough for 1 test and 5 training"),
    # archives
    "no archive": (
        lambda r: (r / "x.zip").write_text("hello"),
        {"path": "x.zip"},
        "x.zip cannot be read as an uncompressed tar archive, nor as a zip archive",
    ),
    "a cut zip": (
        lambda r: archive(r, "x.zip") or archive(r, "x.zip", (r / "x.zip").read_bytes()[:-60]),
        {"path": "x.zip"},
        "x.zip cannot be read as a zip archive",
    ),
    "an empty file": (lambda r: (r / "x.zip").touch(), {"path": "x.zip"}, "cannot be read as an uncompressed tar"),
    "an image as archive": (lambda r: None, {"path": "images/1.jpg"}, "1.jpg cannot be read as an uncompressed tar"),
    "xz": (lambda r: tarfile.open(r / "x.tar.xz", "w:xz").close(), {"path": "x.tar.xz"}, r"compressed as a whole \(xz"),
    "a pipe": (lambda r: os.mkfifo(r / "x"), {"path": "x"}, "/x is neither a file nor a folder; put"),
    # labels
    "no table": (
        lambda r: (r / "labels.csv").unlink(),
        LABELS,
        r"data.sets.own.labels: .*labels.csv cannot be read \(No such file",
    ),
    "a folder as table": (lambda r: None, {"labels": "masks"}, r"masks cannot be read \(Is a directory"),
    "an endless table": (lambda r: None, {"labels": "/dev/zero"}, "labels: /dev/zero is a pipe or a device, no file"),
    "an empty table": (lambda r: write(r / "labels.csv"), LABELS, "has no lines; expected .* columns file,label"),
    "a table without header": (
        lambda r: write(r / "labels.csv", "0.jpg,cat"),
        LABELS,
        "first line must name the columns file,label, but is '0.jpg,cat'",
    ),
    "a header only": (lambda r: write(r / "labels.csv", "file,label"), LABELS, "has no lines"),
    "no label": (lambda r: write(r / "labels.csv", "file,label", "0.jpg,"), LABELS, "line 2: no label; fill it in"),
    "labeled twice": (
        lambda r: write(r / "labels.csv", "file,label", "0.jpg,a", "0,b"),
        LABELS,
        "0.jpg is there twice, in the lines 2 and 3",
    ),
    "a labeled image is missing": (lambda r: (r / "images" / "2.jpg").unlink(), LABELS, "2.jpg is not there"),
    "a missing image labeled twice": (
        lambda r: write(r / "labels.csv", "file,label", "9.jpg,a", "9.jpg,b"),
        LABELS,
        "9.jpg is there twice, in the lines 2 and 3",
    ),
    "an unknown split": (
        lambda r: write(r / "labels.csv", "file,label,split", "0.jpg,a,dev"),
        LABELS,
        "line 2: the split 'dev' is none of train, val, test",
    ),
    "a split of one side": (
        lambda r: write(r / "labels.csv", "file,label,split", "0.jpg,a,train"),
        LABELS,
        "the published split has no test images",
    ),
    "binary": (lambda r: (r / "labels.csv").write_bytes(bytes(range(256))), LABELS, "has null characters"),
    "broken UTF-16": (lambda r: (r / "labels.csv").write_bytes(b"\xff\xfe\x00\xd8\x00"), LABELS, "begins as UTF-16"),
    "a quote that never ends": (
        lambda r: write(r / "labels.csv", "file,label", '"0.jpg,a', "1.jpg,b"),
        LABELS,
        r"not a table of comma-separated values \(unexpected end of data",
    ),
    "a column twice": (
        lambda r: write(r / "labels.csv", "file,label,label", "0.jpg,a,b"),
        LABELS,
        "names the column label more than once",
    ),
    "a label of an image elsewhere": (
        lambda r: write(r / "labels.csv", "file,label", "../masks/0.png,a"),
        LABELS,
        r"line 2: \.\./masks/0\.png is not in .*/images; paths are relative to that",
    ),
    "an endless field": (
        lambda r: write(r / "labels.csv", "file,label", '"' + "x" * 200_000),
        LABELS,
        "not a table of comma-separated values",
    ),
    "an ambiguous stem": (
        lambda r: photo(r / "images" / "0.png") and write(r / "labels.csv", "file,label", "0,a"),
        LABELS,
        "0 may be each of 0.jpg, 0.png; write the suffix",
    ),
    "an empty class": (
        lambda r: class_folders(r) or (r / "images" / "z").mkdir(),
        {"labels": "folders"},
        "no images of 1 of 3 classes: z",
    ),
    "an image beside class folders": (
        lambda r: class_folders(r) or photo(r / "images" / "7.jpg"),
        {"labels": "folders"},
        "the image 7.jpg lies in no class folder",
    ),
    "images beside a split": (
        lambda r: (
            [photo(r / "images" / p / "1.jpg") for p in ("train/x", "val/x", "more/x")]
            and [(r / "images" / f"{n}.jpg").unlink() for n in range(6)]
        ),
        {"labels": "folders"},
        "folders of a published split .* and 1 images elsewhere: more/x/1.jpg",
    ),
    # masks
    "a missing mask": (
        lambda r: (r / "masks" / "2.png").unlink(),
        SEGMENTATION,
        r"2.jpg has a mask \(2\.\*\) that is not there",
    ),
    "no masks folder": (lambda r: None, SEGMENTATION | {"masks": "truth"}, "there is no .*/truth; put"),
    "an empty masks folder": (
        lambda r: (r / "empty").mkdir(),
        SEGMENTATION | {"masks": "empty"},
        "empty: no masks found",
    ),
    "no equal stem": (
        lambda r: [p.rename(p.with_stem(p.stem + "_mask")) for p in (r / "masks").iterdir()],
        SEGMENTATION,
        "none of the 6 masks has the stem of one of the 6 images, for example 0_mask.png and 0.jpg",
    ),
    "two images of one stem": (
        lambda r: photo(r / "images" / "2.png"),
        SEGMENTATION,
        "2.(jpg|png) and 2.(jpg|png) have the",
    ),
    "two masks of one stem": (
        lambda r: swap(r, "2.bmp"),
        SEGMENTATION,
        "2.(bmp|png) and 2.(bmp|png) have the same stem",
    ),
    "the same folder": (lambda r: None, SEGMENTATION | {"masks": "images"}, "0.jpg has a mask with values"),
    "a mask of another size": (
        lambda r: swap(r, "2.png", size=(10, 12)),
        SEGMENTATION,
        "is 12 x 10, but its mask 10 x 12",
    ),
    "unknown values": (
        lambda r: swap(r, "2.png", values=(0, 1, 9, 255)),
        SEGMENTATION,
        r"neither classes nor ignored: 9 \(30 of 120 pixels\), 255 \(30 of 120 pixels\)",
    ),
    "many unknown values": (
        lambda r: swap(r, "2.png", values=range(12)),
        SEGMENTATION,
        r"7 \(10 of 120 pixels\) and 4 more",
    ),
    "an unknown color": (
        lambda r: swap(r, "2.png", values=[(0, 0, 0), (255, 0, 1)]),
        SEGMENTATION,
        r"#ff0001 \(60 of 120",
    ),
    "masks as JPEG": (as_jpeg, SEGMENTATION, r"a JPEG, which does not keep values exactly"),
    "a mask of floats": (
        lambda r: Image.new("F", (12, 10)).save(r / "masks" / "2.tiff") or (r / "masks" / "2.png").unlink(),
        SEGMENTATION,
        "has a mask of the form 'F', where gray, palette or RGB",
    ),
    "a damaged mask": (
        lambda r: (r / "masks" / "2.png").write_bytes((r / "masks" / "2.png").read_bytes()[:45]),
        SEGMENTATION,
        r"has a mask that cannot be decoded \(",
    ),
    "an empty mask": (lambda r: (r / "masks" / "2.png").write_bytes(b""), SEGMENTATION, "has a mask that is empty"),
    "a mask that is a link to nothing": (
        lambda r: (r / "masks" / "2.png").unlink() or (r / "masks" / "2.png").symlink_to("x"),
        SEGMENTATION,
        r"has a mask \(2.png\) that is not there, or a link",
    ),
    "no classes": (lambda r: None, {"masks": "masks"}, "`classes` does not say what their values mean"),
    "classes without masks": (
        lambda r: None,
        {"classes": ["a", "b"]},
        "sets `classes` or `ignore` of masks, but has no masks",
    ),
    "one class": (lambda r: None, SEGMENTATION | {"classes": ["a"]}, "needs 2 to 255 classes, not 1"),
    "a class twice": (lambda r: None, SEGMENTATION | {"classes": ["a", "a"]}, "names a class twice"),
    "a value twice": (lambda r: None, SEGMENTATION | {"classes": {"a": 0, "b": [1, 0]}}, "value 0 is both a and b"),
    "a class that is ignored": (lambda r: None, SEGMENTATION | {"ignore": [2]}, "value 2 is both c and ignore"),
    "no color": (
        lambda r: None,
        SEGMENTATION | {"classes": {"a": 0, "b": "red"}},
        "classes.b: 'red' is neither a whole",
    ),
    "no values": (lambda r: None, SEGMENTATION | {"classes": {"a": 0, "b": []}}, "b has no values"),
    "a negative value": (lambda r: None, SEGMENTATION | {"ignore": [-1]}, "ignore: -1 is neither"),
    "a template without stem": (lambda r: None, SEGMENTATION | {"masks": "{parent}/x.png"}, r"must have {stem}"),
    "a template of others": (lambda r: None, SEGMENTATION | {"masks": "{name}{stem}"}, "and no other braces"),
    "a template that fits nothing": (
        lambda r: None,
        SEGMENTATION | {"masks": "masks/{stem}.tif"},
        r"\(masks/0.tif\) that is not",
    ),
    "a mask that is a pipe": (
        lambda r: (r / "masks" / "2.png").unlink() or os.mkfifo(r / "masks" / "2.png"),
        SEGMENTATION | {"masks": "masks/{stem}.png"},
        r"\(masks/2.png\) that is neither a file nor a folder",
    ),
    "a template in an archive": (
        lambda r: archive(r, "x.zip"),
        SEGMENTATION | {"masks": "m/{stem}.png", "path": "x.zip"},
        "a template needs a folder of images, but .*x.zip is an archive",
    ),
    "images and masks, one missing": (
        lambda r: (r / "masks" / "2.png").unlink(),
        FOLDERS,
        r"2.jpg has a mask \(2\.\*\)",
    ),
    "images and masks that do not fit": (
        lambda r: (r / "masks").rename(r / "x") and swap(r, "none.png"),
        FOLDERS,
        "none of the 1 masks has the stem",
    ),
    # Pascal VOC and CVAT
    "an entry of no image": (
        lambda r: voc(r, 0, 1, 9),
        {"path": "."},
        r"train.txt: 1 lines name no image .* '9' \(line 3\)",
    ),
    "an image twice in a list": (
        lambda r: voc(r, 0, 1, 0),
        {"path": "."},
        "0.jpg is there twice, in the lines 1 and 3",
    ),
    "a list of nothing": (lambda r: voc(r), {"path": "."}, "no images found"),
    "a label map without colors": (
        lambda r: voc(r, 0, labelmap="a:::\n"),
        {"path": "."},
        "line 1: 'a:::' is not NAME:R,G,B",
    ),
    "a channel too large": (lambda r: voc(r, 0, labelmap="a:0,0,256::\n"), {"path": "."}, "with channels of 0 to 255"),
    "a color of two classes": (
        lambda r: voc(r, 0, labelmap="a:0,0,0::\nb:0,0,0::\n"),
        {"path": "."},
        "is both a and b",
    ),
    "a class twice in the map": (
        lambda r: voc(r, 0, labelmap="a:0,0,0::\na:1,1,1::\n"),
        {"path": "."},
        "class a is there twice",
    ),
    "a color that the map lacks": (
        lambda r: voc(r, *range(6), labelmap="a:0,0,0::\nb:1,1,1::\n"),
        {"path": "."},
        r"6 images cannot be used:\n.* 2 \(40 of 120 pixels\)",
    ),
    # splits and groups
    "no list": (lambda r: (r / "test.txt").unlink(), SPLITS, r"data.sets.own.splits.test: .*test.txt cannot be read"),
    "on both sides": (
        lambda r: write(r / "test.txt", *"3451"),
        SPLITS,
        r"2 images are both in .*train.txt and in .*test.txt: 1.jpg, 3.jpg",
    ),
    "unknown entries": (
        lambda r: write(r / "test.txt", "4", "x/5.jpg", "y"),
        SPLITS,
        r"2 lines name no image .*'x/5.jpg' \(line 2\), 'y'",
    ),
    "an empty list": (lambda r: write(r / "test.txt"), SPLITS, "the published split has no test images"),
    "all on one side": (
        lambda r: write(r / "test.txt", *"012345"),
        {"splits": {"test": "test.txt"}},
        "split has no train images",
    ),
    "no group": (
        lambda r: write(r / "groups.csv", "file,group", "0,a", "1,b"),
        GROUPS,
        "4 of 6 images have no group: 2.jpg",
    ),
    "one group": (
        lambda r: write(r / "groups.csv", "file,group", *(f"{n},a" for n in range(6))),
        GROUPS,
        "1 test and 1 training .* enough for 1 test and 0 training images",
    ),
    "a group on both sides": (
        lambda r: None,
        SPLITS | GROUPS,
        "2 groups have training and test images: g1, g2; correct",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_set_is_named_and_nothing_is_left(case, tmp_path, spec):
    damage, fields, message = CASES[case]
    root = tmp_path / "data"
    six(root)
    damage(root)
    made = spec("own", root / fields.get("path", "images"), **({"tests": 1} | without_path(fields)))
    with pytest.raises(VinyError, match=message) as refused:
        build(made, workers=1)
    assert "own" in str(refused.value) or str(root) in str(refused.value)
    left = [path.name for path in made.folder.parent.iterdir() if path.suffix != ".lock"]
    assert not left


def test_there_are_enough_damaged_variants():
    assert len(CASES) >= 60


def without_path(fields):
    return {key: value for key, value in fields.items() if key != "path"}


SKIPPED = ["not an image", "a link to nothing", "a missing mask", "unknown values", "a labeled image is missing"]


@pytest.mark.parametrize("case", SKIPPED)
def test_what_is_bad_is_left_out_and_recorded_if_wanted(case, tmp_path, spec):
    damage, fields, _ = CASES[case]
    six(tmp_path / "data")
    damage(tmp_path / "data")
    made = spec("own", tmp_path / "data" / "images", bad_images="skip", tests=1, **fields)
    build(made, workers=1)
    store = Store.open(made.folder)
    listed = 7 if case == "a link to nothing" else 6
    assert store.count == listed - 1
    assert (made.folder / "manifest.json").read_text().count('"reason"') == 1
    store.verify()


def test_too_many_bad_images_are_too_few_images(tmp_path, spec):
    six(tmp_path / "data")
    for number in range(4):
        (tmp_path / "data" / "images" / f"{number}.jpg").write_text("")
    made = spec("own", tmp_path / "data" / "images", bad_images="skip", tests=1, images=2)
    with pytest.raises(VinyError, match="6 images, 4 of which cannot be used, enough for 1 test and 1 training"):
        build(made, workers=1)


def test_images_that_cannot_be_listed_are_named(tmp_path, spec, monkeypatch):
    from viny.datasets.layouts import list_images

    six(tmp_path / "data")
    real = os.scandir

    def refuse(path):
        if str(path).endswith("masks/"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(VinyError, match=r"data/masks/ cannot be listed \(Permission denied\)"):
        list_images(spec("own", tmp_path / "data"))


def test_a_pipe_named_as_an_image_is_bad(tmp_path, spec):
    six(tmp_path / "data")
    os.mkfifo(tmp_path / "data" / "images" / "7.jpg")
    with pytest.raises(VinyError, match=r"7\.jpg is neither a file nor a folder"):
        build(spec("own", tmp_path / "data" / "images", tests=1), workers=1)


def test_a_bomb_in_a_zip_is_refused_unread(tmp_path, spec):
    six(tmp_path / "data")
    archive(tmp_path / "data", "x.zip")
    with zipfile.ZipFile(tmp_path / "data" / "x.zip", "a", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.jpg", bytes(300 * 2**20))
    with pytest.raises(VinyError, match=r"bomb\.jpg is 300 MiB large, more than the 256 MiB allowed"):
        build(spec("own", tmp_path / "data" / "x.zip", tests=1), workers=1)


def test_warnings_name_classes_without_training_images(tmp_path, spec, caplog):
    caplog.set_level("INFO")
    six(tmp_path / "data")
    build(spec("own", tmp_path / "data" / "images", tests=1, masks="masks", classes=["a", "b", "c", "d"]), workers=1)
    write(tmp_path / "data" / "labels.csv", "file,label,split", "0,a,train", "1,b,test")
    build(spec("own", tmp_path / "data" / "images", labels="labels.csv"), workers=1)
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["own: no training image shows the classes d", "own: no training image shows the classes b"]
    assert ": done, 2 images in" in caplog.messages[-1]  # the last message is shown as what came of it


def test_reading_is_no_place_for_surprises(tmp_path, spec):
    """A damaged PNG in a tar is named by the tar and its own name."""
    six(tmp_path / "data")
    with tarfile.open(tmp_path / "data" / "x.tar", "w") as made:
        for file in (tmp_path / "data" / "images").iterdir():
            made.add(file, file.name)
        info = tarfile.TarInfo("bad.png")
        info.size = 3
        made.addfile(info, io.BytesIO(b"abc"))
    with pytest.raises(VinyError, match=r"x\.tar: bad\.png is no image"):
        build(spec("own", tmp_path / "data" / "x.tar", tests=1), workers=1)
