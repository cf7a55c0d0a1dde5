"""Data sets of one's own: every layout is read as documented."""

import tarfile
from collections import Counter

import numpy as np
import pytest
from folders import mask, photo
from packing import same, zip_folder
from PIL import Image

from viny.datasets.layouts import list_images
from viny.datasets.store import IGNORE

COLORS = [(255, 136, 0), (0, 0, 128), (224, 224, 192)]
HEX = {"kelp": "#ff8800", "water": "#000080"}


@pytest.fixture
def root(tmp_path):
    """`data.root`."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def listing(root, spec):
    return lambda path=".", **fields: list_images(spec("own", root / path, **fields))


def names(listing) -> list[str]:
    return [entry.name for entry in listing.entries]


def splits(listing) -> dict[str, str]:
    return {entry.name: entry.split for entry in listing.entries}


def pairs(listing) -> dict[str, str]:
    return {entry.image.path: entry.mask.path for entry in listing.entries}


def test_any_tree_of_images_is_a_pool(root, listing, build, tmp_path):
    for number, name in enumerate(("a.jpg", "b/c.PNG", "b/d/e.tiff", "f.g/h.webp", "b/Müll.jpeg")):
        photo(root / "drone" / name, number)
    zipped = zip_folder(root / "drone", tmp_path / "x.zip")
    assert same(build("own", root / "drone", "unlinked", tests=1), build("own", zipped, tests=1))
    (root / "drone" / "linked").symlink_to(root / "drone" / "b" / "d")
    for name in ("notes.txt", "raw.heic", "b/x.heic"):
        (root / "drone" / name).write_text("x")
    found = listing("drone")
    assert len(found.entries) == 6
    assert found.ignored == {".txt": 1, ".heic": 2}
    assert not found.classes
    assert found.masks is None
    store = build("own", root / "drone", tests=1)
    assert (store.count, store.tests, store.labels, store.masks) == (6, 1, None, None)
    assert sorted(store.names) == sorted(names(found))


def test_a_pool_in_a_tar(root, build):
    for number in range(6):
        photo(root / "drone" / str(number % 2) / f"{number}.png", number)
    with tarfile.open(root / "drone.tar", "w") as archive:
        archive.add(root / "drone", ".")
    assert same(build("own", root / "drone"), build("own", root / "drone.tar"))


@pytest.mark.parametrize("test", ["val", "Test", "validation"])
def test_train_and_test_folders_are_a_published_split(root, listing, test):
    for number, name in enumerate((f"{test}/1.jpg", "train/1.jpg", "train/deep/2.jpg")):
        photo(root / name, number)
    assert splits(listing()) == {f"{test}/1.jpg": "test", "train/1.jpg": "train", "train/deep/2.jpg": "train"}
    photo(root / "other" / "1.jpg")
    assert set(splits(listing()).values()) == {""}  # a tree like any other


def test_beside_a_test_folder_validation_images_are_counted(root, listing):
    for name in ("train/1.jpg", "val/2.jpg", "test/3.jpg"):
        photo(root / name)
    found = listing()
    assert splits(found) == {"train/1.jpg": "train", "test/3.jpg": "test"}
    assert found.ignored["validation images beside a test split"] == 1


def test_class_folders(root, listing, build):
    for number in range(12):
        photo(root / ("10", "9", "cat")[number % 3] / f"{number}.jpg", number)
    found = listing(labels="folders")
    assert found.classes == ["10", "9", "cat"]
    assert Counter(entry.label for entry in found.entries) == {0: 4, 1: 4, 2: 4}
    store = build("own", root, labels="folders", tests=4, images=3)
    assert (store.count, store.tests, len(store.labels)) == (7, 4, 7)


def test_class_folders_in_train_and_val(root, listing):
    for name in ("train/cat/1.jpg", "train/dog/a/2.jpg", "val/cat/1.jpg", "val/dog/2.jpg"):
        photo(root / name)
    found = listing(labels="folders")
    assert found.classes == ["cat", "dog"]
    assert [(entry.label, entry.split) for entry in found.entries] == [
        (0, "train"), (1, "train"), (0, "test"), (1, "test")
    ]  # fmt: skip


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_table_of_labels_of_any_editor(root, listing, delimiter, encoding):
    for name in ("à/1.jpg", "à/2.jpg", "3.png", "4.png"):
        photo(root / "scenes" / name)
    lines = ["File,Label,split", "à/1.jpg,großer See,train", "à/2,10,val", "3,9,TRAIN", ""]
    (root / "scenes.csv").write_bytes("\r\n".join(lines).replace(",", delimiter).encode(encoding))
    found = listing("scenes", labels="scenes.csv")
    assert found.classes == ["10", "9", "großer See"]
    assert splits(found) == {"3.png": "train", "à/1.jpg": "train", "à/2.jpg": "test"}
    assert found.ignored["images without a label"] == 1


def test_a_table_without_split_and_numbers_as_classes(root, listing):
    for number in (1, 2, 3):
        photo(root / f"{number}.jpg")
    (root / "x.csv").write_text('label,file\n10,1.jpg\n9,"2.jpg"\n10,3\n')
    found = listing(labels="x.csv")
    assert found.classes == ["9", "10"]
    assert [entry.label for entry in found.entries] == [1, 0, 1]
    assert not found.published


def test_masks_with_equal_stems(root, listing, build):
    for number in range(6):
        photo(root / "images" / "deep" / f"{number}.jpg", number)
        mask(root / "masks" / "deep" / f"{number}.png", (0, 1, 2, 255))
    fields = {"masks": "masks", "classes": ["water", "kelp", "float"], "ignore": [255]}
    assert pairs(listing("images", **fields))["deep/3.jpg"] == "deep/3.png"
    store = build("own", root / "images", tests=1, **fields)
    assert store.mask_classes == ["water", "kelp", "float"]
    assert set(np.unique(store.masks)) == {0, 1, 2, IGNORE}
    store.verify()


def test_masks_in_another_tree_or_below_the_images_pair_by_stem(root, listing):
    fields = {"classes": ["a", "b", "c"]}
    for name in ("x/1", "y/2"):
        photo(root / "kelp" / f"{name}.jpg")
        mask(root / "kelp" / "truth" / f"{name[2:]}.png")
    assert pairs(listing("kelp", masks="kelp/truth", **fields)) == {"x/1.jpg": "1.png", "y/2.jpg": "2.png"}


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("{parent}/../masks/{stem}_mask.png", "kelp/masks/{}_mask.png"),
        ("{parent}/{stem}.png", "kelp/images/{}.png"),
        ("truth/{stem}.png", "truth/{}.png"),
    ],
)
def test_masks_by_a_template(root, listing, build, template, place):
    for number in range(6):
        photo(root / "kelp" / "images" / f"{number}.jpg", number)
        mask(root / place.format(number))
    fields = {"masks": template, "classes": ["a", "b", "c"]}
    found = listing("kelp/images", **fields)
    assert pairs(found) == {f"{number}.jpg": place.format(number) for number in range(6)}
    assert build("own", root / "kelp" / "images", **fields).masks.shape == (6, 16, 16)


@pytest.mark.parametrize("shape", ["{kind}/{split}/{stem}", "{split}/{kind}/{stem}", "a/{kind}/{stem}"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_images_and_masks(root, listing, shape, packed, tmp_path):
    for split, stem in (("train", "1"), ("train", "2"), ("val", "3")):
        photo(root / "kelp" / (shape.format(kind="images", split=split, stem=stem) + ".jpg"))
        mask(root / "kelp" / (shape.format(kind="masks", split=split, stem=stem) + ".png"))
    photo(root / "kelp" / "preview.jpg")
    if packed:
        zip_folder(root / "kelp", root / "kelp.zip")
    found = listing("kelp.zip" if packed else "kelp", classes=["a", "b", "c"])
    expected = ["train", "train", "test"] if "split" in shape else ["", "", ""]
    assert [entry.split for entry in found.entries] == expected
    assert all("masks" in entry.mask.path and "images" in entry.image.path for entry in found.entries)
    assert found.ignored["images outside the folders images and masks"] == 1


def voc(root, stems=("1", "2", "3"), labelmap=True, palette=False):
    for stem in stems:
        photo(root / "JPEGImages" / f"{stem}.jpg")
        path = mask(root / "SegmentationClass" / f"{stem}.png", COLORS)
        if palette:
            indexed = Image.open(path).quantize(3)
            indexed.save(path)
    photo(root / "SegmentationObject" / "1.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    if labelmap:
        text = "# label:color_rgb:parts:actions\nkelp:255,136,0::\nwater:0,0,128::\nedge:224,224,192::\n"
        (root / "labelmap.txt").write_text(text)
    return lists


@pytest.mark.parametrize("palette", [False, True])
def test_cvat_with_a_label_map_and_an_ignored_color(root, listing, build, palette):
    lists = voc(root / "kelp", palette=palette)
    (lists / "default.txt").write_text("1\n2\n")
    found = listing("kelp", ignore=["#e0e0c0"])
    assert found.mask_classes == ["kelp", "water"]
    assert names(found) == ["1.jpg", "2.jpg"]
    assert found.ignored["images in no list"] == 1
    assert found.ignored["images outside JPEGImages and SegmentationClass"] == 1
    assert not found.published
    store = build("own", root / "kelp", tests=1, ignore=["#e0e0c0"])
    assert set(np.unique(store.masks)) == {0, 1, IGNORE}


def test_pascal_voc_has_splits_and_classes_of_its_own(root, listing):
    lists = voc(root / "VOCdevkit" / "VOC2012", labelmap=False)
    (lists / "trainval.txt").write_text("1\n2\n3\n")
    assert set(splits(listing()).values()) == {""}
    (lists / "train.txt").write_text("1\n3\n")
    (lists / "Validation.txt").write_text("2\r\n")
    found = listing()
    assert splits(found) == {"1.jpg": "train", "2.jpg": "test", "3.jpg": "train"}
    assert (len(found.mask_classes), found.values.numbers[255], found.values.numbers[15]) == (21, IGNORE, 15)
    assert listing(classes=HEX, ignore=["#e0e0c0"]).mask_classes == ["kelp", "water"]


def test_classes_by_names_merged_values_and_colors(root, listing, build):
    for number in range(6):
        photo(root / "i" / f"{number}.jpg", number)
        mask(root / "m" / f"{number}.png", COLORS if number % 2 else (0, 1, 2))
    classes = {"water": ["#000080", 0], "kelp": [1, 2], "float": "#FF8800"}
    store = build("own", root / "i", masks="m", classes=classes, ignore=["#e0e0c0"], tests=1)
    for name, values in zip(store.names, store.masks, strict=True):
        assert list(values[0, [0, 8, 15]]) == ([2, 0, IGNORE] if int(name[0]) % 2 else [0, 1, 1])


def test_split_lists(root, listing):
    for stem in "abcd":
        photo(root / "kelp" / "images" / f"{stem}.jpg")
        mask(root / "kelp" / "masks" / f"{stem}.png")
    (root / "train.txt").write_bytes("a.jpg\r\n\r\nimages/b\r\n".encode("utf-16"))
    (root / "test.txt").write_text("c\n")
    fields = {"classes": ["x", "y", "z"]}
    found = listing("kelp", splits={"train": "train.txt", "test": "test.txt"}, **fields)
    assert splits(found) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "test"}
    assert found.ignored["images on no side of the split"] == 1
    found = listing("kelp", splits={"test": "test.txt"}, **fields)
    assert splits(found) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "test", "d.jpg": "train"}


@pytest.mark.parametrize("line", ["{root}/i/{name}", "../i/{name}", "./{name}", ".//{name}", "x/../{name}"])
@pytest.mark.parametrize(("name", "encoding"), [("a\u2028b.jpg", "utf-8"), ("a…b.jpg", "cp1252"), ("a.b.jpg", "ascii")])
def test_other_spellings_of_paths_and_names_with_odd_characters(root, listing, line, name, encoding):
    for each in (name, "c.jpg"):
        photo(root / "i" / each)
    (root / "test.txt").write_bytes(line.format(root=root, name=name).encode(encoding))
    assert splits(listing("i", splits={"test": "test.txt"})) == {name: "test", "c.jpg": "train"}


def test_file_names_in_composed_and_decomposed_characters_meet(root, listing):
    photo(root / "images" / "cafe\u0301.jpg")
    mask(root / "masks" / "caf\u00e9.png")
    (root / "x.txt").write_text("caf\u00e9\n")
    photo(root / "images" / "b.jpg")
    mask(root / "masks" / "b.png")
    found = listing(classes=["a", "b", "c"], splits={"test": "x.txt"})
    assert list(splits(found).values()) == ["train", "test"]


def test_every_file_is_read_or_counted(root, listing):
    """Whatever the layout: images, masks and counted files together are all files that there are."""
    layouts = {"pool": {}, "classes": {"labels": "folders"}, "table": {"labels": "table.csv"}, "masked": {}, "voc": {}}
    for number in range(4):
        for place in ("pool/a", "classes/x", "classes/y/z", "table", "masked/images", "voc/JPEGImages", "masked"):
            photo(root / place / f"{number}.jpg", number)
        mask(root / "masked" / "masks" / f"{number + 1}.png")
        mask(root / "voc" / "SegmentationClass" / f"{number}.png")
    (root / "table.csv").write_text("file,label\n1.jpg,a\n2.jpg,b\n")
    for name, fields in layouts.items():
        for junk in ("notes.txt", ".DS_Store", "raw.heic", "none"):
            (root / name / junk).write_text("x")
        fields = fields | ({"classes": ["a", "b", "c"]} if name in ("masked", "voc") else {})
        found = listing(name, **fields)
        files = {each.path for entry in found.entries for each in (entry.image, entry.mask) if each and each.size >= 0}
        there = [path for path in (root / name).rglob("*") if path.is_file()]
        assert len(files) + found.ignored.total() == len(there), (name, found.ignored)


def test_a_labeled_image_that_is_missing_beside_split_folders_is_not_forgotten(root, listing):
    for name in ("train/1.jpg", "val/2.jpg"):
        photo(root / "scenes" / name)
    (root / "x.csv").write_text("file,label\ntrain/1,a\nval/2,b\ntrain/3.jpg,a\n")
    found = listing("scenes", labels="x.csv")
    assert splits(found) == {"train/1.jpg": "train", "train/3.jpg": "train", "val/2.jpg": "test"}
    assert [entry.image.size < 0 for entry in found.entries] == [False, True, False]


def test_groups_are_never_on_both_sides(root, build, listing):
    for number in range(40):
        photo(root / "scans" / f"{number}.jpg", number)
    rows = [f"{number}.jpg,patient {number % 8}" for number in range(40)]
    (root / "groups.csv").write_text("\n".join(["file,group", *rows]))

    def patients(names):
        return {int(name.split(".")[0]) % 8 for name in names}

    store = build("own", root / "scans", groups="groups.csv", tests=7)
    assert store.tests == 7
    assert not patients(store.names[:7]) & patients(store.names[7:])
    assert store.count == 7 + 30  # two patients for the tests, of whom three images are unused
    less = build("own", root / "scans", groups="groups.csv", tests=7, images=11)
    assert less.names == store.names[:18]
    more = build("own", root / "scans", groups="groups.csv", tests=8)
    assert more.names[:7] == store.names[:7]
    assert build("own", root / "scans", groups="groups.csv", tests=None).tests == 8
