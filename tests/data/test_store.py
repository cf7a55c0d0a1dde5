"""Opening a store: what it offers, and that damage is noticed."""

import json

import numpy as np
import pytest

from viny.data.store import Store
from viny.errors import VinyError


@pytest.fixture
def store(data, build):
    return build("pets", data / "oxford-iiit-pet", 20)


def rewrite(path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def test_what_a_store_offers(store):
    assert (store.count, store.pixels, store.dataset) == (20, 16, "pets")
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
    path = store.manifest.parent / file
    content = bytearray(path.read_bytes())
    content[7 * size + 5] ^= 1
    content[9 * size] ^= 1
    path.write_bytes(content)
    again = Store.open(store.manifest)
    with pytest.raises(VinyError, match=rf"rows 7 \({store.names[7]}\), 9 \({store.names[9]}\); delete the folder"):
        again.verify()
    again.verify(7)


def test_growing_a_damaged_store_does_not_vouch_for_it(store, data, build):
    path = store.manifest.parent / "images.u8"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(VinyError, match="damaged in the rows 0"):
        build("pets", data / "oxford-iiit-pet", 30)
    assert not (store.manifest.parent / "first=30.json").exists()


@pytest.mark.parametrize("file", ["images.u8", "masks.u8", "index.jsonl"])
def test_a_missing_or_short_file_is_noticed(store, data, build, file):
    path = store.manifest.parent / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] if file != "index.jsonl" else content[: len(content) // 2])
    with pytest.raises(VinyError, match=rf"{file}.*delete the folder"):
        Store.open(store.manifest)
    with pytest.raises(VinyError, match=rf"{file}.*delete the folder"):
        build("pets", data / "oxford-iiit-pet", 30)
    path.unlink()
    with pytest.raises(VinyError, match=rf"{file}.*delete the folder"):
        Store.open(store.manifest)


def test_a_changed_label_is_noticed(store):
    rewrite(store.manifest.parent / "index.jsonl", b'"label": ', b'"label": 1')
    with pytest.raises(VinyError, match="do not fit"):
        Store.open(store.manifest)


def test_a_manifest_beside_another_store_is_noticed(store, data, build):
    other = build("pets", data / "oxford-iiit-pet", 20, folder="other", order_seed=1)
    other.manifest.write_bytes(store.manifest.read_bytes())
    with pytest.raises(VinyError, match="do not fit"):
        Store.open(other.manifest)


def test_what_is_no_manifest_is_named(store, tmp_path):
    with pytest.raises(VinyError, match=r"no store manifest.*viny\.data\.ingest"):
        Store.open(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(VinyError, match="damaged"):
        Store.open(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(VinyError, match="not the manifest of a store"):
        Store.open(tmp_path / "x.json")
    newer = json.loads(store.manifest.read_bytes()) | {"format": 99}
    (tmp_path / "x.json").write_text(json.dumps(newer))
    with pytest.raises(VinyError, match="format 99, this version reads 1"):
        Store.open(tmp_path / "x.json")


def test_a_damaged_state_is_not_built_upon(store, data, build):
    state = store.manifest.parent / "state.json"
    whole = state.read_bytes()
    for content, message in ((b"{", "damaged"), (whole.replace(b'"format": 1', b'"format": 99'), "format 99")):
        state.write_bytes(content)
        with pytest.raises(VinyError, match=message):
            build("pets", data / "oxford-iiit-pet", 30)
    state.unlink()
    with pytest.raises(VinyError, match="not a whole store"):
        build("pets", data / "oxford-iiit-pet", 30)
    assert Store.open(store.manifest).count == 20
