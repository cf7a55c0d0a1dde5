"""The published layouts: folder, tar of tars and zip give the same store, junk and traps are kept out."""

import gzip
import io
import shutil
import tarfile
import zipfile

import pytest
from packing import SOURCES, add_bytes, same, tar_of_tars, zip_folder

from viny.datasets.layouts import list_images
from viny.errors import VinyError


@pytest.fixture
def tar(data, tmp_path):
    return tar_of_tars(data / "imagenet" / "train", tmp_path / "ILSVRC2012_img_train.tar")


@pytest.fixture
def listing(spec):
    return lambda name, source, **fields: list_images(spec(name, source, **fields))


def test_imagenet_folder_tars_and_zip_give_the_same_store(data, tar, build, tmp_path):
    folder = build("imagenet", data / "imagenet" / "train")
    assert folder.count == 60
    assert folder.names[0].count("/") == 1
    with tarfile.open(tmp_path / "plain.tar", "w") as plain:
        plain.add(data / "imagenet" / "train", "./train")
    zipped = zip_folder(data / "imagenet" / "train", tmp_path / "train.zip")
    for source in (data / "imagenet", tar, tmp_path / "plain.tar", zipped):
        assert same(folder, build("imagenet", source))


def test_a_fingerprint_tells_content_not_place(data, tar, copy, listing):
    here = listing("imagenet", data / "imagenet" / "train").fingerprint
    moved = copy("imagenet")
    assert listing("imagenet", moved).fingerprint == here == listing("imagenet", tar).fingerprint
    with next(moved.rglob("*.JPEG")).open("ab") as file:
        file.write(b"x")
    assert listing("imagenet", moved).fingerprint != here


def test_images_in_sub_folders_of_a_class_are_read(copy, listing):
    source = copy("imagenet")
    before = listing("imagenet", source)
    folder = min(path for path in source.iterdir() if path.is_dir())
    (folder / "images" / "deeper").mkdir(parents=True)
    for file in sorted(folder.glob("*.JPEG"))[:2]:
        file.rename(folder / "images" / "deeper" / file.name)
    after = listing("imagenet", source)
    assert len(after.entries) == len(before.entries)
    assert [entry.label for entry in after.entries].count(0) == [entry.label for entry in before.entries].count(0)


@pytest.mark.parametrize("name", ["imagenet", "intel"])
def test_dangling_links_are_named_or_counted(name, copy, build):
    source = copy(name)
    file = min(path for path in source.rglob("*") if path.suffix in (".jpg", ".JPEG") and "seg_test" not in str(path))
    file.unlink()
    file.symlink_to("/annex/not/here.jpg")
    with pytest.raises(VinyError, match=rf"1 image cannot be used:\n  {file} is not there, or a link to something"):
        build(name, source)
    store = build(name, source, bad_images="skip")
    assert store.count == {"imagenet": 59, "intel": 71}[name]
    assert '"reason": "is not there, or a link' in (store.folder / "manifest.json").read_text()


def test_a_class_folder_that_is_a_dangling_link_is_named_or_counted(copy, build):
    source = copy("imagenet")
    shutil.rmtree(source / "n90000003")
    (source / "n90000003").symlink_to("/scratch/purged/n90000003")
    with pytest.raises(VinyError, match="1 links lead to nothing: n90000003"):
        build("imagenet", source)
    store = build("imagenet", source, bad_images="skip")
    assert store.count == 54
    assert '"name": "n90000003"' in (store.folder / "manifest.json").read_text()


def test_links_to_files_and_folders_are_followed_once(copy, listing, tmp_path):
    source = copy("imagenet")
    shutil.move(source / "n90000001", tmp_path / "elsewhere")
    (source / "n90000001").symlink_to(tmp_path / "elsewhere")
    (source / "n90000002" / "loop").symlink_to(source)
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "elsewhere")
    found = listing("imagenet", source)
    assert len(found.entries) == 60
    assert found.ignored["hidden"] == 2


@pytest.mark.parametrize("cut", [1000, 30_000, -1024 * 12])
def test_a_tar_cut_short_is_named(tar, cut, listing):
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(VinyError, match=r"ILSVRC2012_img_train\.tar.*download it again"):
        listing("imagenet", tar)


def test_a_tar_with_a_damaged_header_inside_is_named(tar, listing):
    content = bytearray(tar.read_bytes())
    with tarfile.open(tar) as outer:
        member = outer.getmembers()[3]
        with tarfile.open(fileobj=outer.extractfile(member)) as inner:
            at = member.offset_data + inner.getmembers()[1].offset
    content[at : at + 200] = b"\xff" * 200
    tar.write_bytes(content)
    with pytest.raises(VinyError, match=f"damaged or cut off at byte .* of .*{member.name}"):
        listing("imagenet", tar)


def test_a_compressed_or_empty_tar_is_named(tar, tmp_path, listing):
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(VinyError, match=r"compressed as a whole \(gzip\)"):
        listing("imagenet", tar)
    (tmp_path / "empty.tar").write_bytes(bytes(10240))
    with pytest.raises(VinyError, match="no images found"):
        listing("imagenet", tmp_path / "empty.tar")


@pytest.mark.parametrize(
    "name", ["../../evil.JPEG", "/etc/evil.JPEG", "a/../../evil.JPEG", "..\\evil.JPEG", "C:\\evil.JPEG"]
)
def test_absolute_names_and_parents_in_archives_are_refused(tmp_path, name, listing):
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        add_bytes(archive, name, b"x")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_bytes(archive, "n1.tar", inner.getvalue())
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(name, b"x")
    for file in ("x.tar", "x.zip"):
        with pytest.raises(VinyError, match=r"evil\.JPEG', whose name is absolute or has `\.\.`"):
            listing("imagenet", tmp_path / file)


def test_links_encryption_and_duplicates_in_archives_are_refused(tmp_path, listing):
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        link = tarfile.TarInfo("n1/a.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        member = zipfile.ZipInfo("n1/a.jpg")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with zipfile.ZipFile(tmp_path / "secret.zip", "w") as archive:
        archive.writestr("n1/a.jpg", b"x")
    content = bytearray((tmp_path / "secret.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "secret.zip").write_bytes(content)
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        add_bytes(archive, "n1/a.jpg", b"x")
        add_bytes(archive, "./n1/a.jpg", b"y")
    cases = {
        "link.tar": "'n1/a.JPEG' that is a link, a device",
        "link.zip": "'n1/a.jpg' that is a link",
        "secret.zip": "is encrypted",
        "twice.tar": "two members named n1/a.jpg",
    }
    for file, message in cases.items():
        with pytest.raises(VinyError, match=message):
            listing("imagenet", tmp_path / file)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path, listing):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 40 * 2**30
    (tmp_path / "x.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(VinyError, match="extended header claims 42,949,672,960 bytes"):
        listing("imagenet", tmp_path / "x.tar")


def test_intel_doubled_single_and_zipped_give_the_same_store(data, tmp_path, build):
    doubled = build("intel", data / "intel")
    for split in ("train", "test"):
        shutil.copytree(data / "intel" / f"seg_{split}" / f"seg_{split}", tmp_path / "single" / f"seg_{split}")
    archive = zip_folder(data / "intel", tmp_path / "archive.zip")
    nested = zip_folder(tmp_path / "single", tmp_path / "nested.zip", "intel-image-classification/")
    assert (doubled.count, doubled.tests) == (72, 12)
    assert doubled.classes == ["buildings", "forest", "glacier", "mountain", "sea", "street"]
    assert [doubled.classes[label] for label in doubled.labels] == [name.split("/")[0] for name in doubled.names]
    test = {path.name for path in (data / "intel" / "seg_test").rglob("*.jpg")}
    assert {name.split("/")[1] for name in doubled.names[:12]} == test
    for source in (tmp_path / "single", archive, nested):
        assert same(doubled, build("intel", source))


def test_a_zip_of_windows_is_read(data, tmp_path, build):
    with zipfile.ZipFile(tmp_path / "windows.zip", "w") as archive:
        for file in sorted((data / "intel").rglob("*.jpg")):
            info = zipfile.ZipInfo("x")
            info.filename = str(file.relative_to(data / "intel")).replace("/", "\\")
            archive.writestr(info, file.read_bytes())
    assert same(build("intel", data / "intel"), build("intel", tmp_path / "windows.zip"))


def test_a_damaged_zip_is_named(data, tmp_path, build):
    archive = zip_folder(data / "intel", tmp_path / "archive.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        member = next(item for item in opened.infolist() if item.filename.startswith("seg_train"))
    content[member.header_offset + 200 : member.header_offset + 220] = b"\0" * 20
    archive.write_bytes(content)
    with pytest.raises(VinyError, match=f"{member.filename} cannot be unpacked from its archive"):
        build("intel", archive)
    archive.write_bytes(content[:-100])
    with pytest.raises(VinyError, match="cannot be read as a zip archive"):
        build("intel", archive)


def test_junk_of_operating_systems_is_not_an_image(copy, data, listing):
    roots = {name: copy(name) for name in SOURCES}
    for junk in (
        roots["imagenet"] / "n90000001" / "._n90000001_0.JPEG",
        roots["imagenet"] / ".DS_Store",
        roots["imagenet"] / "n90000001" / "Thumbs.db",
        roots["imagenet"] / "__MACOSX" / "x.JPEG",
        roots["intel"] / "seg_train" / "seg_train" / ".ipynb_checkpoints" / "a.jpg",
        roots["pets"] / "images" / "Abyssinian_100.mat",
        roots["pets"] / "images" / "._Red_circle_1.jpg",
        roots["pets"] / "annotations" / "trimaps" / "._Red_circle_1.png",
    ):
        junk.parent.mkdir(exist_ok=True)
        junk.write_bytes(b"junk")
    for name, root in roots.items():
        assert listing(name, root).entries == listing(name, data / SOURCES[name]).entries


def test_pets_pool_both_splits_with_breeds(data, build):
    store = build("pets", data / "oxford-iiit-pet")
    assert (store.count, store.tests) == (74, 5)
    assert sorted(set(store.labels.tolist())) == list(range(37))
    assert store.classes[:2] == ["Red_circle", "Yellow_circle"]
    assert all(name.startswith(store.classes[label]) for name, label in zip(store.names, store.labels, strict=True))
    assert store.mask_classes == ["foreground", "background", "border"]
    assert store.masks.shape == (74, 16, 16)
    assert store.masks.max() == 2


def test_images_and_lists_that_nobody_uses_are_counted(copy, listing):
    pets, intel = copy("pets"), copy("intel")
    shutil.copy(pets / "images" / "Red_circle_1.jpg", pets / "images" / "Red_circle_77.jpg")
    (intel / "seg_pred").mkdir()
    shutil.copy(pets / "images" / "Red_circle_1.jpg", intel / "seg_pred" / "1.jpg")
    assert listing("pets", pets).ignored["images and trimaps in neither list"] == 1
    assert listing("intel", intel).ignored["images outside seg_train and seg_test"] == 1


def test_missing_data_says_what_is_expected(tmp_path, copy, listing):
    for name, hint in {
        "imagenet": "ILSVRC2012_img_train.tar",
        "intel": "Kaggle",
        "pets": "data.download: true",
    }.items():
        with pytest.raises(VinyError, match=rf"{tmp_path}/nowhere.*{hint}.*data\.sets\.{name}\.images"):
            listing(name, tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "n1.tar").write_bytes(b"")
    with pytest.raises(VinyError, match=r"no images found; tars or zips lie there: n1\.tar"):
        listing("imagenet", tmp_path / "half")
    pets = copy("pets")
    (pets / "annotations" / "test.txt").unlink()
    with pytest.raises(VinyError, match=r"there is no annotations/test\.txt"):
        listing("pets", pets)


def test_missing_empty_and_unknown_classes_are_named(copy, listing):
    intel = copy("intel") / "seg_train" / "seg_train"
    shutil.move(intel / "sea", intel / "ocean")
    with pytest.raises(VinyError, match="unknown class ocean"):
        listing("intel", intel.parent.parent)
    shutil.rmtree(intel / "ocean")
    with pytest.raises(VinyError, match=r"\(seg_train\): no images of the classes sea"):
        listing("intel", intel.parent.parent)
    shutil.rmtree(intel.parent)
    with pytest.raises(VinyError, match=r"found images in: seg_test/seg_test$"):
        listing("intel", intel.parent.parent)
    imagenet = copy("imagenet")
    (imagenet / "n99999999").mkdir()
    with pytest.raises(VinyError, match="no images of 1 of 11 classes: n99999999"):
        listing("imagenet", imagenet)
    shutil.copy(next(imagenet.rglob("*.JPEG")), imagenet / "loose.JPEG")
    with pytest.raises(VinyError, match=r"the image loose\.JPEG lies in no class folder"):
        listing("imagenet", imagenet)


@pytest.mark.parametrize("line", ["Red_circle_9", "Red_circle_9 0 1 1", "Red_circle_9 x 1 1", "../evil 1 1 1"])
def test_a_line_of_the_pets_lists_that_makes_no_sense_is_named(copy, line, listing):
    pets = copy("pets")
    with (pets / "annotations" / "test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(VinyError, match=r"test\.txt, line 38: .* is not NAME CLASS-ID"):
        listing("pets", pets)


def test_pets_lists_that_contradict_themselves_are_named(copy, listing):
    pets = copy("pets")
    lines = (pets / "annotations" / "trainval.txt").read_text().splitlines()
    test = pets / "annotations" / "test.txt"
    original = test.read_text()
    test.write_text(original + lines[0] + "\n")
    with pytest.raises(VinyError, match="two images named Red_circle_1;"):
        listing("pets", pets)
    test.write_text(original + "Blue_moon_1 1 1 1\n")
    with pytest.raises(VinyError, match="class id 1 is both Red_circle and Blue_moon"):
        listing("pets", pets)
    test.write_text("")
    (pets / "annotations" / "trainval.txt").write_text("\n".join(lines[1:]))
    with pytest.raises(VinyError, match="list no image of the class ids 1;"):
        listing("pets", pets)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_lists_of_other_editors_are_read(copy, listing, data, encoding):
    pets = copy("pets")
    for name in ("trainval.txt", "test.txt"):
        path = pets / "annotations" / name
        text = "# Pétré\n" + path.read_text().replace("\n", "\r\n")
        path.write_bytes(text.encode(encoding))
    assert listing("pets", pets).entries == listing("pets", data / "oxford-iiit-pet").entries


def test_download_arrives_whole_or_not_at_all(data, tmp_path, monkeypatch, spec):
    from pathlib import Path

    import torchvision.datasets

    from viny.datasets.build import build

    target = tmp_path / "root" / "oxford-iiit-pet"

    def broken(root, download):
        (Path(root) / "oxford-iiit-pet" / "images").mkdir(parents=True)
        raise OSError("connection lost")

    def whole(root, download):
        shutil.copytree(data / "oxford-iiit-pet", Path(root) / "oxford-iiit-pet")

    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", broken)
    with pytest.raises(VinyError, match=r"could not be downloaded \(connection lost\)"):
        build(spec("pets", target), download=True)
    assert not target.exists()
    assert not list(target.parent.glob(".oxford-iiit-pet-*"))
    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", whole)
    build(spec("pets", target), download=True)
    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", broken)
    build(spec("pets", target, tests=6), download=True)
