"""Opening a store: what it offers, and that damage is noticed."""

import json

import numpy as np
import pytest

from viny.datasets.store import Store, prefix_checksum, read_manifest
from viny.errors import VinyError


@pytest.fixture
def store(data, build):
    return build("pets", data / "oxford-iiit-pet", images=15)


def rewrite(path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_what_a_store_offers(store):
    assert (store.count, store.tests, store.pixels, store.name) == (20, 5, 16, "pets")
    assert store.images.shape == (20, 16, 16, 3)
    assert store.masks.shape == (20, 16, 16)
    assert [store.images.dtype, store.masks.dtype] == [np.uint8, np.uint8]
    assert store.labels.dtype == np.int64
    assert store.aspect.dtype == np.float32
    assert len(set(store.names)) == 20
    assert len(store.classes) == 37
    with pytest.raises(ValueError, match="read-only"):
        store.images[0] = 0
    store.verify()


@pytest.mark.parametrize(("file", "size"), [("images.u8", 16 * 16 * 3), ("masks.u8", 16 * 16)])
def test_a_changed_pixel_is_found_and_named(store, file, size):
    path = store.folder / file
    content = bytearray(path.read_bytes())
    content[7 * size + 5] ^= 1
    content[9 * size] ^= 1
    path.write_bytes(content)
    again = Store.open(store.folder)
    with pytest.raises(VinyError, match=rf"rows 7 \({store.names[7]}\), 9 \({store.names[9]}\); delete the folder"):
        again.verify()
    again.verify(7)


@pytest.mark.parametrize("file", ["images.u8", "masks.u8", "index.jsonl", "digests.u64", "signatures.u8"])
@pytest.mark.parametrize("damage", ["half", "longer", "gone"])
def test_a_file_of_another_size_is_noticed(store, file, damage):
    path = store.folder / file
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if damage == "half" else content * 2)
    if damage == "gone":
        path.unlink()
    with pytest.raises(VinyError, match=rf"{file}.*delete the folder"):
        Store.open(store.folder)


def test_a_changed_label_or_test_count_is_noticed(store):
    rewrite(store.folder / "index.jsonl", b'"label": ', b'"label": 1')
    with pytest.raises(VinyError, match="do not fit"):
        Store.open(store.folder).verify()
    rewrite(store.folder / "index.jsonl", b'"label": 1', b'"label": ')
    Store.open(store.folder).verify()
    rewrite(store.folder / "manifest.json", b'"tests": 5', b'"tests": 4')
    with pytest.raises(VinyError, match="do not fit"):
        Store.open(store.folder).verify()


def test_checksums_of_prefixes_do_not_depend_on_what_follows(store, data, build):
    longer = build("pets", data / "oxford-iiit-pet", images=40)
    assert store.checksum(20) == longer.checksum(20) == prefix_checksum(longer.folder, 20)
    assert longer.checksum(45) != longer.checksum(44) != store.checksum(20)
    assert build("pets", data / "oxford-iiit-pet", images=15, split_seed=1).checksum(20) != store.checksum(20)
    for rows in (0, 21, -1):
        assert prefix_checksum(store.folder, rows) is None
    (store.folder / "digests.u64").unlink()
    assert prefix_checksum(store.folder, 3) is None


@pytest.mark.parametrize(
    "change",
    [{"format": 1}, {"count": 0}, {"count": "9"}, {"tests": 21}, {"tests": -1}, {"pixels": 10**9}, {"classes": None}],
)
def test_what_is_no_manifest_of_a_whole_store_is_none(store, change, tmp_path):
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    assert read_manifest(store.folder) is None
    assert prefix_checksum(store.folder, 3) is None
    with pytest.raises(VinyError, match="is not a whole store of this version; delete the folder"):
        Store.open(store.folder)
    path.write_text("[" * 100_000)
    assert read_manifest(store.folder) is None
    assert read_manifest(tmp_path / "nothing") is None


def test_a_huge_claim_is_refused_before_anything_is_made(store):
    path = store.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"count": 10**15}))
    with pytest.raises(VinyError, match="bytes where"):
        Store.open(store.folder)
