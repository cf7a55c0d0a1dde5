"""Building stores: nested prefixes, growing in place, interruption, two builders, refusals."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from packing import same

import viny
from viny.data import files, parallel
from viny.data.files import locked
from viny.data.ingest import main
from viny.data.procedural import generate
from viny.data.sources.base import Entry, FolderReader
from viny.data.store import Store
from viny.errors import VinyError

# Many small chunks and processes, so that a build of few images takes the way of a large one.
MANY_CHUNKS = """
import sys
from viny.data import ingest, parallel
if __name__ == "__main__":
    parallel.CHUNK, parallel.BATCH, parallel.PER_WORKER = 8, 4, 8
    sys.exit(ingest.main(sys.argv[1:]))
"""


@pytest.fixture
def small_chunks(monkeypatch):
    for name, value in {"CHUNK": 8, "BATCH": 4, "PER_WORKER": 8}.items():
        monkeypatch.setattr(parallel, name, value)


def flags(source: Path, manifest: Path, count: int | str, *more: str) -> list[str]:
    fixed = ["--dataset", "imagenet", "--source", str(source), "--pixels", "64", "--manifest", str(manifest)]
    return [*fixed, "--count", str(count), *more]


def start(*arguments: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(viny.__file__).parents[1])}
    command = [sys.executable, "-c", MANY_CHUNKS, *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("images.u8", "index.jsonl", "state.json")}


def test_a_shorter_store_is_a_prefix_of_a_longer_one(data, build):
    long, short = build("imagenet", data / "imagenet"), build("imagenet", data / "imagenet", 25, "short")
    assert short.names == long.names[:25]
    assert (short.images == long.images[:25]).all()
    assert short.checksum != long.checksum
    other = build("imagenet", data / "imagenet", 25, "other", order_seed=1)
    assert other.names != short.names


def test_a_store_grows_in_place_and_older_manifests_stay_good(data, build, tmp_path):
    short = build("pets", data / "oxford-iiit-pet", 10)
    before = (tmp_path / "store" / "first=10.json").read_bytes()
    longer = build("pets", data / "oxford-iiit-pet", 30)
    whole = build("pets", data / "oxford-iiit-pet")
    assert (short.count, longer.count, whole.count) == (10, 30, 74)
    assert same(short, Store.open(tmp_path / "store" / "first=10.json"))
    assert same(whole, build("pets", data / "oxford-iiit-pet", folder="at-once"))
    build("pets", data / "oxford-iiit-pet", 10)
    assert (tmp_path / "store" / "first=10.json").read_bytes() == before


def test_manifests_do_not_depend_on_place_time_or_way(data, copy, build, tmp_path, small_chunks):
    build("imagenet", data / "imagenet", 20)
    build("imagenet", copy("imagenet"), folder="elsewhere", workers=2)
    build("imagenet", data / "imagenet" / "train", 20, folder="elsewhere")
    assert (tmp_path / "store/first=20.json").read_bytes() == (tmp_path / "elsewhere/first=20.json").read_bytes()


def test_processes_and_chunks_change_nothing(data, build, monkeypatch):
    alone = build("pets", data / "oxford-iiit-pet")
    monkeypatch.setattr(parallel, "CHUNK", 16)
    monkeypatch.setattr(parallel, "BATCH", 3)
    monkeypatch.setattr(parallel, "PER_WORKER", 8)
    assert same(alone, build("pets", data / "oxford-iiit-pet", folder="parallel", workers=2))


def test_squashing_keeps_the_aspect_aside(data, build):
    from PIL import Image

    store = build("imagenet", data / "imagenet", pixels=24)
    name = store.names[0]
    with Image.open(data / "imagenet" / "train" / name) as image:
        assert store.aspect[0] == np.float32(image.width / image.height)
        expected = np.asarray(image.resize((24, 24), Image.Resampling.BICUBIC))
    assert np.abs(store.images[0].astype(int) - expected).max() <= 1


def test_trimaps_are_squashed_with_their_images(data, build):
    from PIL import Image

    store = build("pets", data / "oxford-iiit-pet", 5, pixels=24)
    for name, mask in zip(store.names, store.masks, strict=True):
        trimap = Image.open(data / "oxford-iiit-pet" / "annotations" / "trimaps" / f"{name}.png")
        assert (np.asarray(trimap.resize((24, 24), Image.Resampling.NEAREST)) - 1 == mask).all()


def test_a_killed_build_is_continued_to_the_same_bytes(tmp_path):
    generate("imagenet", 400, 48, 0, tmp_path)
    once, killed = tmp_path / "once", tmp_path / "killed"
    assert main(flags(tmp_path / "imagenet", once / "all.json", "all")) == 0

    process = start(*flags(tmp_path / "imagenet", killed / "all.json", "all", "--workers", "2"))
    rows, deadline = 0, time.monotonic() + 30
    while not rows and time.monotonic() < deadline:
        try:
            rows = json.loads((killed / "state.json").read_bytes())["rows"]
        except FileNotFoundError:
            time.sleep(0.001)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = workers.read_text().split() if workers.exists() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    rows = json.loads((killed / "state.json").read_bytes())["rows"]
    assert 0 < rows < 400
    assert not (killed / "all.json").exists()
    with pytest.raises(VinyError, match="no store manifest"):
        Store.open(killed / "all.json")
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)

    with (killed / "images.u8").open("ab") as file:  # what was decoded, but not yet valid
        file.write(b"x" * 100_000)
    assert main(flags(tmp_path / "imagenet", killed / "all.json", "all")) == 0
    assert content(killed) == content(once)
    assert (killed / "all.json").read_bytes() == (once / "all.json").read_bytes()


def test_two_builders_take_turns(data, tmp_path, build):
    both = [start(*flags(data / "imagenet", tmp_path / "s" / f"first={n}.json", n)) for n in (30, 50)]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert same(Store.open(tmp_path / "s" / "first=50.json"), build("imagenet", data / "imagenet", 50, pixels=64))
    assert Store.open(tmp_path / "s" / "first=30.json").count == 30


def test_a_builder_that_waits_says_so(data, tmp_path):
    with locked(tmp_path / "s", "a test"):
        process = start(*flags(data / "imagenet", tmp_path / "s" / "first=5.json", 5))
        assert "waiting for another process" in process.stderr.readline()
        assert not (tmp_path / "s" / "first=5.json").exists()
    process.communicate(timeout=60)
    assert process.returncode == 0


class DeadlyReader(FolderReader):
    """Ends the process that reads, as the kernel does when memory runs out."""

    def image(self, entry):
        os._exit(9)


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with (
        pytest.raises(VinyError, match=r"cannot lock .*: Function not implemented; "),
        locked(tmp_path, "a test"),
    ):
        pass


def test_a_process_that_dies_ends_the_build_with_a_message(data, tmp_path, small_chunks):
    (tmp_path / "images.u8").touch()
    decoder = parallel.Decoder(DeadlyReader(str(data)), tmp_path, 16, False)
    with pytest.raises(VinyError, match="fewer --workers"):
        list(parallel.decode_chunks(decoder, [Entry(str(i), 0, 1) for i in range(40)], 0, 2, lambda units: None))


def test_a_file_that_cannot_be_read_ends_the_build_even_if_bad_images_are_left_out(copy, build, monkeypatch):
    source = copy("imagenet")
    monkeypatch.setattr(FolderReader, "place", lambda self, entry: f"{source}/gone/{entry.name}")
    with pytest.raises(VinyError, match=r"gone/.* cannot be read \(No such file"):
        build("imagenet", source, skip_bad=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pixels": 20}, r"another kind \(pixels: 16, not 20\).*delete the folder"),
        ({"order_seed": 5}, r"another kind \(order_seed: 0, not 5\).*delete the folder"),
    ],
)
def test_a_store_of_another_kind_is_refused(data, build, settings, message):
    build("imagenet", data / "imagenet", 10)
    with pytest.raises(VinyError, match=message):
        build("imagenet", data / "imagenet", 12, **settings)


def test_another_data_set_in_the_same_folder_is_refused(data, build):
    store = build("imagenet", data / "imagenet", 10)
    with pytest.raises(VinyError, match=r"dataset: imagenet, not intel-train"):
        build("intel-train", data / "intel", 12)
    store.verify()


def test_other_images_of_the_same_data_set_are_refused(data, build, tmp_path):
    build("imagenet", data / "imagenet", 10)
    generate("imagenet", 60, 24, 1, tmp_path / "other")
    with pytest.raises(VinyError, match=r"was made from another source.*point to the former source, or delete"):
        build("imagenet", tmp_path / "other" / "imagenet", 20)


def test_images_that_come_later_may_change(copy, build):
    source = copy("imagenet")
    first = build("imagenet", source, 10)
    next(path for path in source.rglob("*.JPEG") if f"{path.parent.name}/{path.name}" not in first.names).unlink()
    assert build("imagenet", source).names[:10] == first.names


def test_a_folder_that_is_no_store_is_left_alone(data, build, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "images.u8").write_bytes(b"precious")
    with pytest.raises(VinyError, match="is not a whole store"):
        build("imagenet", data / "imagenet", 10)
    assert (tmp_path / "store" / "images.u8").read_bytes() == b"precious"


def test_too_many_images_are_refused_before_decoding(data, build, tmp_path):
    with pytest.raises(VinyError, match=r"61 images of imagenet are needed, but .* has 60"):
        build("imagenet", data / "imagenet", 61)
    assert (tmp_path / "store" / "images.u8").stat().st_size == 0


def test_a_full_disk_is_noticed_before_decoding(data, build, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(VinyError, match=r"need 0\.0 GB .* 0.0 GB are free"):
        build("imagenet", data / "imagenet", 10)


def test_the_command_reports_and_fails_as_a_command_should(data, tmp_path, capsys):
    good = flags(data / "imagenet", tmp_path / "s" / "first=7.json", 7, "--workers", "1")
    good += ["--log", str(tmp_path / "log")]
    assert main(good) == 0
    assert "first=7.json: 7 images, 0 left out" in (tmp_path / "log").read_text()
    assert main(flags(tmp_path / "nothing", tmp_path / "s" / "first=7.json", 7)) == 1
    assert "viny: error: no ImageNet at" in capsys.readouterr().err
    assert main([*good, "--download"]) == 1
    assert "--download is for pets" in capsys.readouterr().err
    for count in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            main(flags(data / "imagenet", tmp_path / "s" / "first=7.json", count))


def test_download_arrives_whole_or_not_at_all(data, tmp_path, monkeypatch, capsys):
    import shutil

    import torchvision.datasets

    target = tmp_path / "root" / "oxford-iiit-pet"
    arguments = ["--dataset", "pets", "--source", str(target), "--count", "all", "--pixels", "16", "--download"]
    arguments += ["--manifest", str(tmp_path / "s" / "all.json")]

    def broken(root, download):
        (Path(root) / "oxford-iiit-pet" / "images").mkdir(parents=True)
        raise OSError("connection lost")

    def whole(root, download):
        shutil.copytree(data / "oxford-iiit-pet", Path(root) / "oxford-iiit-pet")

    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", broken)
    assert main(arguments) == 1
    assert "could not be downloaded (connection lost)" in capsys.readouterr().err
    assert list((tmp_path / "root").iterdir()) == []
    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", whole)
    assert main(arguments) == 0
    assert Store.open(tmp_path / "s" / "all.json").count == 74
    monkeypatch.setattr(torchvision.datasets, "OxfordIIITPet", broken)
    assert main(arguments) == 0


def test_opening_and_decoding_do_without_torch():
    code = (
        "import sys, viny.data.store; assert not {'PIL', 'torch'} & set(sys.modules)\n"
        "import viny.data.ingest, viny.data.procedural; assert 'torch' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(viny.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
