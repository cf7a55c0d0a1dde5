"""Building stores: nested subsets, splits, interruption, two builders, refusals."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from folders import photo
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packing import same
from PIL import Image

import viny
from viny.config.sections import Procedural
from viny.datasets import build as building
from viny.datasets import parallel
from viny.datasets.listing import Entry, Listing
from viny.datasets.order import in_order
from viny.datasets.procedural import generate
from viny.datasets.store import Store
from viny.datasets.trees import File, FolderReader
from viny.errors import VinyError

# Many small batches and processes, so that a build of few images takes the way of a large one.
SCRIPT = """
import sys
from pathlib import Path
from viny.datasets import build, parallel
from packing import make_spec
if __name__ == "__main__":
    parallel.BATCH, parallel.PER_WORKER = 4, 8
    root, source, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    spec = make_spec(root, source, root, "imagenet", pixels=64)
    print(spec.folder, flush=True)
    build.build(spec, workers=workers)
"""


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(parallel, "BATCH", 4)
    monkeypatch.setattr(parallel, "PER_WORKER", 8)


def start(root: Path, source: Path, workers: int = 1) -> subprocess.Popen:
    path = f"{Path(viny.__file__).parents[1]}:{Path(__file__).parent}"
    command = [sys.executable, "-c", SCRIPT, str(root), str(source), str(workers)]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_the_first_n_training_images_are_the_same_in_every_size(data, build):
    stores = [build("pets", data / "oxford-iiit-pet", images=n) for n in (10, 30, None)]
    assert [store.count for store in stores] == [15, 35, 74]
    for store in stores[:2]:
        assert store.names == stores[2].names[: store.count]
        assert (store.images == stores[2].images[: store.count]).all()
        assert (store.masks == stores[2].masks[: store.count]).all()
    assert build("pets", data / "oxford-iiit-pet", images=10, split_seed=1).names != stores[0].names


def test_a_published_test_part_is_taken_whole_and_first(data, build):
    few, many = (build("intel", data / "intel", tests=tests, images=20) for tests in (1, 100))
    assert few.tests == many.tests == 12
    assert few.names == many.names
    order = [Entry(name, File("", 0)) for name in few.names]
    assert in_order(order[:12], 0) == order[:12]
    assert in_order(order[12:], 0) == order[12:]


def test_without_a_number_of_tests_a_fifth_is_held_out(data, build):
    assert build("imagenet", data / "imagenet", tests=None, images=10).tests == 12


@st.composite
def sets(draw):
    groups = draw(st.integers(1, 12))
    count = draw(st.integers(4, 40))
    grouped = draw(st.booleans())
    chosen = draw(st.lists(st.integers(0, groups), min_size=count, max_size=count))
    return [Entry(f"{i}.jpg", File(f"{i}.jpg", 1), group=f"g{g}" if grouped else "") for i, g in enumerate(chosen)]


@given(sets(), st.integers(1, 20), st.integers(0, 99))
@settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_sides_are_disjoint_and_nested(entries, tests, seed):
    listing = Listing("x", entries, FolderReader("x"))
    ordered, count = building.order_for_testing(listing, tests, seed)
    assert sorted(ordered) == sorted(entries)
    seen = ordered[:count]
    training = building.order_for_training(listing, seen, seed)
    assert not {entry.name for entry in seen} & {entry.name for entry in training}
    assert not {entry.group for entry in seen} & {entry.group for entry in training} - {""}
    # One more test image keeps the others and only takes training images away.
    more = building.order_for_training(listing, ordered[: count + 1], seed)
    kept = set(more)
    assert more == [entry for entry in training if entry in kept]
    if not any(entry.group for entry in entries):
        assert ordered == seen + training == in_order(entries, seed)
    # Which images are in the listing besides does not change the order of the others.
    assert building.order_for_testing(Listing("x", entries[:-1], FolderReader("x")), tests, seed)[0] == [
        entry for entry in ordered if entry != entries[-1]
    ] or any(entry.group for entry in entries)


def test_processes_and_batches_change_nothing(data, build, small_batches):
    alone = build("pets", data / "oxford-iiit-pet", workers=1)
    parallel_store = build("pets", data / "oxford-iiit-pet", "parallel", workers=2)
    assert same(alone, parallel_store)
    for name in ("images.u8", "masks.u8", "index.jsonl", "digests.u64", "signatures.u8", "manifest.json"):
        assert (alone.folder / name).read_bytes() == (parallel_store.folder / name).read_bytes()


def test_bad_images_are_replaced_in_the_same_way_by_processes(copy, build, small_batches):
    source = copy("imagenet")
    for path in sorted(source.rglob("*.JPEG"))[::7]:
        path.write_bytes(b"")
    fields = {"bad_images": "skip", "images": 30}
    assert same(
        build("imagenet", source, workers=1, **fields), build("imagenet", source, "parallel", workers=2, **fields)
    )


def test_squashing_keeps_the_aspect_aside(data, build):
    store = build("imagenet", data / "imagenet", pixels=24)
    name = store.names[0]
    with Image.open(data / "imagenet" / "train" / name) as image:
        assert store.aspect[0] == np.float32(image.width / image.height)
        expected = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
    assert np.abs(store.images[0].astype(int) - expected).max() <= 1


def test_trimaps_are_squashed_with_their_images(data, build):
    store = build("pets", data / "oxford-iiit-pet", images=5, pixels=24)
    for name, mask in zip(store.names, store.masks, strict=True):
        trimap = Image.open(data / "oxford-iiit-pet" / "annotations" / "trimaps" / f"{name}.png")
        assert (np.asarray(trimap.resize((24, 24), Image.Resampling.NEAREST)) - 1 == mask).all()


def test_a_killed_build_leaves_no_store_and_is_done_anew(tmp_path, build):
    generate("imagenet", Procedural(imagenet=600), tmp_path)
    process = start(tmp_path / "stores", tmp_path / "imagenet", workers=2)
    folder = Path(process.stdout.readline().strip())
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in folder.parent.glob(".*tmp/images.u8")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not folder.exists()
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    again = start(tmp_path / "stores", tmp_path / "imagenet")
    assert again.communicate(timeout=60)[1] == ""
    assert same(Store.open(folder), build("imagenet", tmp_path / "imagenet", "once", pixels=64))
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".{folder.name}.lock", folder.name]


def test_two_builders_make_one_store(data, tmp_path):
    both = [start(tmp_path / "s", data / "imagenet") for _ in range(2)]
    for process in both:
        said, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert Store.open(Path(said.strip())).count == 60


def test_a_builder_that_waits_says_so_and_finds_the_store(data, spec, caplog):
    import threading

    made = spec("imagenet", data / "imagenet")
    caplog.set_level("INFO")
    with building.locked(made.folder.with_name(f".{made.folder.name}.lock")):
        thread = threading.Thread(target=building.build, args=(made,))
        thread.start()
        deadline = time.monotonic() + 20
        while "waiting for the process that holds" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not made.folder.exists()
    thread.join(20)
    building.build(made)
    assert "is there already" in caplog.text


def test_what_is_there_is_not_made_again(data, spec, monkeypatch):
    made = spec("imagenet", data / "imagenet")
    building.build(made)
    monkeypatch.setattr(building, "list_images", lambda spec: pytest.fail("listed again"))
    building.build(made)


def test_a_store_without_its_manifest_is_made_again(data, spec):
    made = spec("imagenet", data / "imagenet")
    building.build(made)
    made.manifest.unlink()
    (made.folder / "images.u8").write_bytes(b"cut")
    building.build(made)
    Store.open(made.folder).verify()


def test_a_folder_that_is_no_store_is_left_alone(data, spec):
    made = spec("imagenet", data / "imagenet")
    made.folder.mkdir(parents=True)
    (made.folder / "thesis.tex").write_bytes(b"precious")
    with pytest.raises(VinyError, match=r"is in the way of a store and is none \(thesis\.tex\)"):
        building.build(made)
    assert (made.folder / "thesis.tex").read_bytes() == b"precious"


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    class NoLock:
        def __init__(self, path):
            raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(building, "FileLock", NoLock)
    with pytest.raises(VinyError, match=r"cannot lock .*support flock"), building.locked(tmp_path / "x"):
        pass


class DeadlyReader(FolderReader):
    """Ends the process that reads, as the kernel does when memory runs out."""

    def read(self, file):
        os._exit(9)


def test_a_process_that_dies_ends_the_build_with_a_message(data, small_batches):
    decoder = parallel.Decoder(DeadlyReader(str(data)), None, None, 16)
    entries = [Entry(str(i), File(str(i), 1)) for i in range(40)]
    with (
        pytest.raises(VinyError, match=r"ended unexpectedly.*fewer cores or more memory"),
        parallel.decoding(decoder, 40, 2) as decode,
    ):
        list(decode(entries))


def test_a_file_that_cannot_be_read_ends_the_build_even_if_bad_images_are_left_out(copy, build, monkeypatch):
    source = copy("imagenet")
    monkeypatch.setattr(FolderReader, "place", lambda self, file: f"{source}/gone/{file.path}")
    with pytest.raises(VinyError, match=r"gone/.* cannot be read \(No such file"):
        build("imagenet", source, bad_images="skip")


def test_a_full_disk_is_noticed_before_decoding(data, spec, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(VinyError, match=r"60 images of 16 pixels need 0\.0 GB in .*, but 0\.0 GB are free"):
        building.build(spec("imagenet", data / "imagenet"))
    assert not spec("imagenet", data / "imagenet").folder.exists()


def test_names_that_are_not_utf_8_are_read(build, tmp_path):
    for number in range(6):
        photo(tmp_path / "data" / f"{number}.jpg", number)
    raw = os.fsencode(tmp_path / "data") + b"/\xff.jpg"
    shutil.copy(tmp_path / "data" / "0.jpg", raw)
    store = build("own", tmp_path / "data", tests=1)
    assert "\udcff.jpg" in store.names
    store.verify()


def test_opening_and_decoding_do_without_torch():
    code = (
        "import sys, viny.datasets.store; assert not {'PIL', 'torch'} & set(sys.modules)\n"
        "import viny.datasets.build, viny.datasets.procedural; assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(viny.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
