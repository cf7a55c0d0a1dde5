"""Readers of the published layouts: folder, tar of tars and zip give the same store, junk and traps are kept out."""

import io
import shutil
import tarfile
import zipfile

import pytest
from packing import add_bytes, same, tar_of_tars, zip_folder

from viny.data.sources import imagenet, open_source
from viny.errors import VinyError


@pytest.fixture
def tar(data, tmp_path):
    return tar_of_tars(data / "imagenet" / "train", tmp_path / "ILSVRC2012_img_train.tar")


def test_imagenet_tar_gives_the_store_of_the_folder(data, tar, build):
    folder = build("imagenet", data / "imagenet" / "train")
    archive = build("imagenet", tar, folder="from-tar")
    assert folder.count == 60
    assert same(folder, archive)
    assert folder.names[0].count("/") == 1


def test_the_parent_of_train_is_understood(data):
    one, other = open_source("imagenet", data / "imagenet"), open_source("imagenet", data / "imagenet" / "train")
    assert one.entries == other.entries
    assert one.fingerprint == other.fingerprint


def test_fingerprint_tells_content_not_place(data, tar, copy):
    here = open_source("imagenet", data / "imagenet" / "train").fingerprint
    moved = copy("imagenet")
    assert open_source("imagenet", moved).fingerprint == here == open_source("imagenet", tar).fingerprint
    with next(moved.rglob("*.JPEG")).open("ab") as file:
        file.write(b"x")
    assert open_source("imagenet", moved).fingerprint != here


def test_the_listing_of_a_tar_is_kept_until_the_tar_changes(tar, tmp_path, monkeypatch):
    first = open_source("imagenet", tar, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(imagenet, "index_tar", lambda path: pytest.fail("listed again"))
        assert open_source("imagenet", tar, tmp_path / "cache").entries == first.entries
    shutil.copyfile(tar, tar.with_suffix(".copy"))
    tar.with_suffix(".copy").replace(tar)
    assert open_source("imagenet", tar, tmp_path / "cache").entries == first.entries
    (tmp_path / "cache" / imagenet.INDEX).write_bytes(b"PK damaged")
    assert open_source("imagenet", tar, tmp_path / "cache").entries == first.entries


@pytest.mark.parametrize("cut", [1000, 30_000, -1024 * 12])
def test_a_tar_cut_short_is_named(tar, cut):
    content = tar.read_bytes()
    tar.write_bytes(content[:cut])
    with pytest.raises(VinyError, match=r"ILSVRC2012_img_train\.tar.*download it again"):
        open_source("imagenet", tar)


def test_a_tar_with_a_damaged_header_inside_is_named(tar):
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as outer:
        member = outer.getmembers()[3]
        with tarfile.open(fileobj=outer.extractfile(member)) as inner:
            at = member.offset_data + inner.getmembers()[1].offset
    content[at : at + 200] = b"\xff" * 200
    tar.write_bytes(content)
    with pytest.raises(VinyError, match=f"damaged or cut off at byte .* of .*{member.name}"):
        open_source("imagenet", tar)


def test_a_compressed_or_foreign_tar_is_named(tar, tmp_path):
    import gzip

    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(VinyError, match="uncompressed tar"):
        open_source("imagenet", tar)
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    with pytest.raises(VinyError, match="no images found"):
        open_source("imagenet", tmp_path / "empty.tar")


@pytest.mark.parametrize("name", ["../../evil.JPEG", "/etc/evil.JPEG", "a/../../evil.JPEG", "..\\evil.JPEG"])
def test_tar_members_that_point_outside_are_refused(tmp_path, name):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        add_bytes(archive, name, b"x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_bytes(archive, "n1.tar", inner.getvalue())
    with pytest.raises(VinyError, match="points out of the archive"):
        open_source("imagenet", tmp_path / "x.tar")


def test_links_in_archives_are_refused(tmp_path):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        link = tarfile.TarInfo("a.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_bytes(archive, "n1.tar", inner.getvalue())
    with pytest.raises(VinyError, match=r"'a\.JPEG' is a link"):
        open_source("imagenet", tmp_path / "x.tar")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        member = zipfile.ZipInfo("seg_train/sea/a.jpg")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(VinyError, match=r"a\.jpg' is a link"):
        open_source("intel-train", tmp_path / "x.zip")


def test_intel_doubled_single_and_zipped_give_the_same_store(data, tmp_path, build):
    doubled = build("intel-train", data / "intel")
    for split in ("train", "test"):
        shutil.copytree(data / "intel" / f"seg_{split}" / f"seg_{split}", tmp_path / "single" / f"seg_{split}")
    archive = zip_folder(data / "intel", tmp_path / "archive.zip")
    nested = zip_folder(tmp_path / "single", tmp_path / "nested.zip", "intel-image-classification/")
    assert doubled.count == 30
    assert doubled.classes == ["buildings", "forest", "glacier", "mountain", "sea", "street"]
    assert [doubled.classes[label] for label in doubled.labels] == [name.split("/")[0] for name in doubled.names]
    for number, source in enumerate((tmp_path / "single", archive, nested)):
        assert same(doubled, build("intel-train", source, folder=f"other{number}"))
    assert same(build("intel-test", data / "intel", folder="t0"), build("intel-test", archive, folder="t1"))


def test_zip_members_that_point_outside_are_refused(data, tmp_path):
    archive = zip_folder(data / "intel", tmp_path / "archive.zip")
    with zipfile.ZipFile(archive, "a") as out:
        out.writestr("seg_train/../../sea/evil.jpg", b"x")
    with pytest.raises(VinyError, match=r"evil\.jpg' points out of the archive"):
        open_source("intel-train", archive)


def test_a_damaged_zip_is_named(data, tmp_path, build):
    archive = zip_folder(data / "intel", tmp_path / "archive.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = next(item for item in opened.infolist() if item.filename.startswith("seg_train"))
    content[member.header_offset + 200 : member.header_offset + 220] = b"\0" * 20
    archive.write_bytes(content)
    with pytest.raises(VinyError, match=f"{member.filename} is damaged within the archive"):
        build("intel-train", archive)
    archive.write_bytes(content[:-100])
    with pytest.raises(VinyError, match="cannot be read as a zip archive"):
        build("intel-train", archive)


def test_junk_of_operating_systems_is_not_an_image(copy, data, tmp_path):
    imagenet_root, intel, pets = copy("imagenet"), copy("intel"), copy("pets")
    for junk in (
        imagenet_root / "n90000001" / "._n90000001_0.JPEG",
        imagenet_root / ".DS_Store",
        imagenet_root / "n90000001" / "Thumbs.db",
        imagenet_root / "__MACOSX" / "x.JPEG",
        intel / "seg_train" / "seg_train" / ".ipynb_checkpoints" / "a.jpg",
        pets / "images" / "Abyssinian_100.mat",
        pets / "images" / "._Red_circle_1.jpg",
        pets / "annotations" / "trimaps" / "._Red_circle_1.png",
    ):
        junk.parent.mkdir(exist_ok=True)
        junk.write_bytes(b"junk")
    for dataset, root in (("imagenet", imagenet_root), ("intel-train", intel), ("pets", pets)):
        original = data / root.relative_to(tmp_path / "copy")
        assert open_source(dataset, root).entries == open_source(dataset, original).entries


def test_pets_pool_both_splits_with_breeds(data, build):
    store = build("pets", data / "oxford-iiit-pet")
    assert store.count == 74
    assert sorted(set(store.labels.tolist())) == list(range(37))
    assert store.classes[:2] == ["Red_circle", "Yellow_circle"]
    assert all(name.startswith(store.classes[label]) for name, label in zip(store.names, store.labels, strict=True))
    assert store.masks.shape == (74, 16, 16)
    assert store.masks.max() == 2


def test_missing_data_says_what_is_expected(tmp_path, data, copy):
    for dataset, hint in (
        ("imagenet", "ILSVRC2012_img_train.tar"),
        ("intel-train", "Kaggle"),
        ("pets", "data.download: true"),
    ):
        with pytest.raises(VinyError, match=f"{tmp_path}/nowhere.*{hint}"):
            open_source(dataset, tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "n1.tar").write_bytes(b"")
    with pytest.raises(VinyError, match=r"there is n1\.tar"):
        open_source("imagenet", tmp_path / "half")
    pets = copy("pets")
    (pets / "annotations" / "test.txt").unlink()
    with pytest.raises(VinyError, match=r"test\.txt"):
        open_source("pets", pets)


def test_missing_empty_and_unknown_classes_are_named(copy):
    intel = copy("intel") / "seg_train" / "seg_train"
    shutil.move(intel / "sea", intel / "ocean")
    with pytest.raises(VinyError, match="class sea missing"):
        open_source("intel-train", intel.parent.parent)
    shutil.copytree(intel / "ocean", intel / "sea")
    with pytest.raises(VinyError, match="unknown class ocean"):
        open_source("intel-train", intel.parent.parent)
    shutil.rmtree(intel / "ocean")
    for image in (intel / "sea").iterdir():
        image.unlink()
    with pytest.raises(VinyError, match="no images in class sea"):
        open_source("intel-train", intel.parent.parent)
    imagenet_root = copy("imagenet")
    (imagenet_root / "n99999999").mkdir()
    with pytest.raises(VinyError, match="no images in class n99999999"):
        open_source("imagenet", imagenet_root)


@pytest.mark.parametrize("line", ["Red_circle_9", "Red_circle_9 38 1 1", "Red_circle_9 x 1 1", "../evil 1 1 1"])
def test_a_line_of_the_pets_lists_that_makes_no_sense_is_named(copy, line):
    pets = copy("pets")
    with (pets / "annotations" / "test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(VinyError, match=r"test\.txt, line 38: .* is not NAME CLASS-ID"):
        open_source("pets", pets)


def test_pets_lists_that_contradict_themselves_are_named(copy):
    pets = copy("pets")
    lines = (pets / "annotations" / "trainval.txt").read_text().splitlines()
    test = pets / "annotations" / "test.txt"
    original = test.read_text()
    test.write_text(original + lines[0] + "\n")
    with pytest.raises(VinyError, match="lists Red_circle_1 twice"):
        open_source("pets", pets)
    test.write_text(original + "Blue_moon_1 1 1 1\n")
    with pytest.raises(VinyError, match="class id 1 is Red_circle and Blue_moon"):
        open_source("pets", pets)
    test.write_text("")
    (pets / "annotations" / "trainval.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(VinyError, match="no images of class id 1 are listed"):
        open_source("pets", pets)
