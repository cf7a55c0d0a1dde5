"""What a user does wrong to a stage: one clear message, an exit code, no traceback, nothing overwritten.

Mistakes in configs are in `tests/test_config.py` and `tests/test_config_files.py`, those in data sets in `tests/data`.
"""
# ruff: noqa: E501, one line a mistake reads best

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from test_kill import fork, stop_at, wait
from tiny import MAINS, Result

from viny.models.encoder import build_encoder
from viny.models.files import load_encoder, save_encoder


class Place:
    """Where a test breaks things.

    Attributes:
        stores: a copy of the stores, to be broken. encoder: a good encoder file, likewise.
        output: where results go; something precious lies there.
    """

    def __init__(self, folder: Path, stores: Path, encoder: Path):
        self.folder, self.output = folder, folder / "results" / "out"
        self.stores = Path(shutil.copytree(stores, folder / "stores"))
        self.encoder = Path(shutil.copy(encoder, folder / "encoder.safetensors"))
        self.output.mkdir(parents=True)
        (self.output / "metrics.json").write_text('{"precious": 1}')
        self.pets = self.stores / "pets" / "all.json"

    def manifest(self, **changes) -> Path:
        """The manifest of the pets with other entries (None: without)."""
        described = json.loads(self.pets.read_text()) | changes
        self.pets.write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
        return self.pets

    def file(self, name: str, content: bytes) -> Path:
        """A file with some content."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def damaged(self, name: str, change) -> dict:
        """A file of the pets' store, changed."""
        path = self.pets.parent / name
        path.write_bytes(change(path.read_bytes()))
        return {}

    def lines(self, change) -> dict:
        """The index of the pets' store with a changed first line."""
        path = self.pets.parent / "index.jsonl"
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([json.dumps(change(json.loads(first))), *rest]) + "\n")
        return {}

    def other_encoder(self, **sizes) -> Path:
        """An encoder of other sizes."""
        model = load_encoder(self.encoder).model_section | sizes
        save_encoder(build_encoder(**model), self.folder / "other.safetensors")
        return self.folder / "other.safetensors"

    def pickled(self) -> Path:
        """A PyTorch checkpoint with another ending."""
        torch.save({"cls_token": torch.zeros(1)}, self.folder / "renamed.safetensors")
        return self.folder / "renamed.safetensors"

    def foreign(self) -> Path:
        """Safetensors of another program."""
        save_file({"weight": np.zeros(3, np.float32)}, self.folder / "foreign.safetensors")
        return self.folder / "foreign.safetensors"

    def content(self) -> dict[Path, bytes]:
        """All files but the state of runs."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and ".state" not in str(path))
        return {path: path.read_bytes() for path in found}


def flip(data: bytes) -> bytes:
    """One bit in the middle."""
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


# name: (kind of run, what to change, message)
MISTAKES = {
    "no manifest": ("finetune", lambda p: {"store": p.folder / "nowhere.json"}, "no store manifest .*nowhere.json; make"),
    "manifest is a folder": ("finetune", lambda p: {"store": p.folder}, "Is a directory .*"),
    "manifest below a file": ("finetune", lambda p: {"store": p.encoder / "all.json"}, "no store manifest .*; make"),
    "manifest cut off": ("finetune", lambda p: p.damaged("all.json", lambda d: d[:99]), "all.json is damaged .*ingest again"),
    "manifest is an image": ("finetune", lambda p: p.damaged("all.json", lambda d: b"\xff\xd8\xff"), "all.json is damaged"),
    "manifest is a list": ("finetune", lambda p: p.damaged("all.json", lambda d: b"[1]"), "not the manifest of a store"),
    "manifest of another format": ("finetune", lambda p: {"store": p.manifest(format=2)}, "format 2, this version reads 1"),
    "manifest without a count": ("finetune", lambda p: {"store": p.manifest(count=None)}, "not the manifest of a store"),
    "count is text": ("finetune", lambda p: {"store": p.manifest(count="many")}, "damaged .count is 'many'.; delete"),
    "count is negative": ("finetune", lambda p: {"store": p.manifest(count=-1)}, "damaged .count is -1.; delete"),
    "count is another": ("finetune", lambda p: {"store": p.manifest(count=9)}, "do not fit: one of them is damaged; delete"),
    "lines is text": ("finetune", lambda p: {"store": p.manifest(lines="1")}, "damaged .lines is '1'.; delete"),
    "pixels is text": ("finetune", lambda p: {"store": p.manifest(pixels="16")}, "damaged .pixels is '16'.; delete"),
    "pixels is another": ("finetune", lambda p: {"store": p.manifest(pixels=8)}, "8 pixels, but model.image_size is 16"),
    "pixels is too large": ("finetune", lambda p: {"store": p.manifest(pixels=160)}, "bytes where .* are expected; delete"),
    "index cut off": ("finetune", lambda p: p.damaged("index.jsonl", lambda d: d[:999]), "index.jsonl is damaged .*; delete"),
    "index is noise": ("finetune", lambda p: p.damaged("index.jsonl", lambda d: b"\0\1\xff\n" * 99), "index.jsonl is damaged"),
    "index of numbers": ("finetune", lambda p: p.damaged("index.jsonl", lambda d: b"1\n" * 74), "a line is no JSON object"),
    "index without a checksum": ("finetune", lambda p: p.lines(lambda line: {"name": "x"}), "index.jsonl is damaged .*crc32"),
    "checksum is text": ("finetune", lambda p: p.lines(lambda line: line | {"crc32": "x"}), "index.jsonl is damaged"),
    "a flipped bit in the images": ("finetune", lambda p: p.damaged("images.u8", flip), r"damaged in the rows \d+ .*delete"),
    "a flipped bit in the masks": ("spatial_pets", lambda p: p.damaged("masks.u8", flip), r"damaged in the rows \d+ .*delete"),
    "images cut off": ("finetune", lambda p: p.damaged("images.u8", lambda d: d[:-1]), "images.u8 has .* bytes where"),
    "store without trimaps": ("finetune", lambda p: {"store": "intel-train", "images": 8}, "intel-train without trimaps; name"),
    "patches without trimaps": ("spatial_pets", lambda p: {"store": "intel-train"}, "intel-train without trimaps; name"),
    "store in other pixels": ("finetune", lambda p: {"store": "imagenet"}, "20 pixels, but model.image_size is 16"),
    "too few pets": ("finetune", lambda p: {"images": 55}, "vouches for 74 images, but the run needs 75"),
    "too few photographs": ("pretrain", lambda p: {"images": 39}, "vouches for 48 images, but the run needs 49"),
    "too few scenes": ("cls_intel", lambda p: {"images": 31}, "vouches for 30 images, but the run needs 31"),
    "all pets are tested": ("cls_pets", lambda p: {"test_images": 74}, "vouches for 74 images, but the run needs 75"),
    "no test images": ("cls_intel", lambda p: {"test_store": None}, "needs --test-store, or --test-images"),
    "tested on other classes": ("cls_intel", lambda p: {"test_store": "pets"}, "has other classes than"),
    "no encoder": ("finetune", lambda p: {"encoder": p.folder / "gone"}, "--encoder: there is no file .*gone"),
    "encoder is a folder": ("finetune", lambda p: {"encoder": p.folder}, "--encoder: there is no file"),
    "encoder is empty": ("finetune", lambda p: {"encoder": p.file("e", b"")}, "e: not a readable safetensors file"),
    "encoder is text": ("finetune", lambda p: {"encoder": p.file("e", b"a" * 99)}, "e: not a readable safetensors file"),
    "encoder cut off": (
        "finetune",
        lambda p: {"encoder": p.file("e", p.encoder.read_bytes()[:-9])},
        "e: not a readable safetensors file .*delete it and make it again",
    ),
    "encoder is a pickle": ("finetune", lambda p: {"encoder": p.pickled()}, "renamed.safetensors: not a readable safetensors"),
    "encoder of another program": ("finetune", lambda p: {"encoder": p.foreign()}, "without viny's description of the model"),
    "encoder of another depth": ("finetune", lambda p: {"encoder": p.other_encoder(depth=2)}, "other sizes .*: depth 2, not 1"),
    "encoder of other patches": (
        "cls_intel",
        lambda p: {"encoder": p.other_encoder(patch_size=8, mlp_width=8)},
        "other sizes .*: patch_size 8, not 4; mlp_width 8, not 32",
    ),
    "sizes that do not fit": ("finetune", lambda p: {"patch_size": 5}, "image_size 16 is not a multiple of patch_size 5"),
    "a share of more than all": ("pretrain", lambda p: {"mask_ratio": 3}, "--mask-ratio: 3.0 is too large, at most 1"),
    "a rate that is no number": ("finetune", lambda p: {"learning_rate": "nan"}, "--learning-rate: nan is not a finite"),
    "an endless rate": ("finetune", lambda p: {"learning_rate": "inf"}, "--learning-rate: inf is not a finite"),
    "no epochs": ("finetune", lambda p: {"epochs": 0}, "--epochs: 0 is too small, at least 1"),
    "more numbers than exist": ("finetune", lambda p: {"epochs": 10**30}, "--epochs: a number of 100 bits is too large"),
    "output is a file": ("finetune", lambda p: {"output": p.encoder}, "cannot write .*encoder.safetensors: "),
    "output below a file": ("finetune", lambda p: {"output": p.encoder / "x"}, "cannot write .*encoder.safetensors"),
    "state below a file": ("finetune", lambda p: {"state_dir": p.encoder / "x"}, r"Not a directory \(.*encoder.safetensors"),
    "log is a folder": ("finetune", lambda p: {"log": p.folder}, "Is a directory"),
    "log below a file": ("finetune", lambda p: {"log": p.encoder / "x.log"}, "Not a directory|File exists"),
}  # fmt: skip

# What argparse finds; exit code 2.
WRONG_FLAGS = {
    "no images": ("finetune", {"images": 0}, "argument --images: '0' is not a positive number"),
    "less than no images": ("pretrain", {"images": -5}, "argument --images: "),
    "images in words": ("finetune", {"images": "many"}, "argument --images: 'many' is not a positive number"),
    "no tested images": ("cls_pets", {"test_images": 0}, "argument --test-images: '0' is not a positive number"),
    "seed in words": ("finetune", {"seed": "one"}, "argument --seed: invalid int value: 'one'"),
    "coordinates without values": ("finetune", {"coordinates": "pretrain"}, "is not of the form key=value,key=value"),
    "coordinates of another world": ("finetune", {"coordinates": "x=1"}, "'x' is not one of study, variant, pretrain"),
    "coordinates that are no numbers": ("finetune", {"coordinates": "pretrain=lots"}, "pretrain in .* is not a number"),
    "unknown optimizer": ("finetune", {"optimizer": "sgd"}, "argument --optimizer: invalid choice: 'sgd'"),
    "unknown flag": ("finetune", {"epohcs": 3}, "unrecognized arguments: --epohcs 3"),
    "unknown task": ("cls_pets", {"task": "cls_dogs"}, "argument --task: invalid choice: 'cls_dogs'"),
    "a setting of another stage": ("finetune", {"mask_ratio": 0.5}, "unrecognized arguments: --mask-ratio 0.5"),
    "no store": ("finetune", {"store": None}, "the following arguments are required: --store"),
    "no output": ("finetune", {"output": None}, "the following arguments are required: --output"),
}


@pytest.fixture
def place(tmp_path, stores, encoder) -> Place:
    return Place(tmp_path, stores, encoder)


def start(stages, place: Place, kind: str, **changes) -> int:
    """Run a stage on the place's stores; returns its exit code."""
    stages.stores = place.stores
    fixed = {"output": place.output, "state_dir": place.folder / ".state"}
    return stages.main(kind, place.output, **(fixed | {"steps": 1, "milestones": []} | changes))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(name, stages, place, capsys):
    kind, mistake, message = MISTAKES[name]
    changes = mistake(place)
    before = place.content()
    assert start(stages, place, kind, **changes) == 1
    said = capsys.readouterr().err
    assert said.count("viny: error: ") == 1
    assert re.search(f"viny: error: .*({message})", said), said
    assert "Traceback" not in said
    assert place.content() == before


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_a_wrong_flag_is_named(name, stages, place, capsys):
    kind, changes, message = WRONG_FLAGS[name]
    before = place.content()
    with pytest.raises(SystemExit) as ended:
        start(stages, place, kind, **changes)
    assert ended.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert place.content() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(stages, place, capsys):
    assert start(stages, place, "finetune", device="cuda") == 1
    assert "cuda" in capsys.readouterr().err.lower()


def test_a_damaged_seed_of_a_run_is_named(stages, place, capsys):
    output = place.folder / "new"
    assert start(stages, place, "finetune", seeding="split_only", output=output) == 0
    [kept] = place.folder.glob(".state/*/seed.json")
    shutil.rmtree(kept.parent / "done")
    kept.write_text("")
    assert start(stages, place, "finetune", seeding="split_only", output=output) == 1
    assert f"seed.json is damaged; delete the folder {kept.parent}" in capsys.readouterr().err


def as_child(stages, place, before, **changes) -> int:
    """Run a stage in a child that `before` has prepared."""
    stage, line = stages.arguments("finetune", place.output, **({"state_dir": place.folder / ".state"} | changes))

    def command():
        before()
        return MAINS[stage](line)

    return wait(fork(command))


@pytest.fixture
def full_disk():
    """A file system of 1 MB, nearly full."""
    folder = Path(tempfile.mkdtemp(prefix="full-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


@pytest.mark.parametrize("room", [0, 1, 2, 4, 8, 16, 24], ids=lambda room: f"{4 * room} KB left")
def test_a_full_disk_is_named_and_once_there_is_room_the_run_carries_on(stages, stores, full_disk, room, capsys):
    whole = stages.run("finetune", save_every=0)
    filler = full_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(full_disk).free - 4096 * room))
    log = full_disk / "log"
    capsys.readouterr()
    changes = {"save_every": 0, "state_dir": full_disk / "state", "log": log}
    assert stages.main("finetune", full_disk / "out", **changes) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert str(full_disk) in said
    assert "Traceback" not in said
    assert not (full_disk / "out" / "metrics.json").exists()
    filler.unlink()
    assert stages.main("finetune", full_disk / "out", **changes) == 0
    assert Result(full_disk / "out").repeatable == whole.repeatable


@pytest.mark.parametrize("locked", ["output", "state"])
def test_a_read_only_file_system_is_named(stages, full_disk, locked, capsys):
    places = {"output": stages.folder / "out", "state_dir": stages.folder / "state"}
    places["output" if locked == "output" else "state_dir"] = full_disk / "results" / "out"
    precious = full_disk / "results" / "precious"
    precious.parent.mkdir()
    precious.write_text("1")
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    assert stages.main("finetune", places.pop("output"), **places) == 1
    said = capsys.readouterr().err
    assert said.count("viny: error: ") == 1
    assert f"{os.strerror(errno.EROFS)}" in said
    assert str(full_disk) in said
    assert "Traceback" not in said
    assert [path.name for path in precious.parent.iterdir()] == ["precious"]


@pytest.mark.parametrize("hours", [-30_000, 30_000])
def test_a_clock_that_was_wrong_changes_nothing(stages, hours, capfd):
    whole = stages.run("finetune", save_every=0)
    output = stages.folder / "out"
    arguments = {"save_every": 0, "state_dir": stages.folder / "state"}
    stage, line = stages.arguments("finetune", output, **arguments)

    def command():
        stop_at(6)()
        return MAINS[stage](line)

    assert wait(fork(command)) == -signal.SIGKILL
    then = time.time() + 3600 * hours
    for path in (stages.folder / "state").rglob("*"):
        os.utime(path, (then, then))
    capfd.readouterr()
    assert stages.main("finetune", output, **arguments) == 0
    assert "resuming at epoch 2, step 5" in capfd.readouterr().err
    assert Result(output).repeatable == whole.repeatable


def test_a_log_that_cannot_be_written_ends_nothing(stages):
    stages.run("finetune", log="/dev/full")


def test_a_model_too_large_for_the_memory_is_named(stages, place, capfd):
    def limit():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))

    assert as_child(stages, place, limit, width=4096, mlp_width=65536) == 1
    said = capfd.readouterr().err
    assert "finetune: the device has not enough memory" in said
    assert "lower finetune.batch_size, or take a smaller `model`" in said


def test_a_limit_on_the_size_of_files_is_named(stages, place, capfd):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert as_child(stages, place, limit, save_every=0) == 1
    assert f"cannot write {place.folder}" in (said := capfd.readouterr().err)
    assert os.strerror(errno.EFBIG) in said
    assert (place.output / "metrics.json").read_text() == '{"precious": 1}'


@pytest.mark.skipif(os.getuid() != 0, reason="takes the rights away from root")
@pytest.mark.parametrize("locked", ["output", "state", "log", "store", "encoder"])
def test_missing_permission_is_named(stages, place, locked, capfd):
    """As a user without rights, in a folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="rights-"))
    try:
        shutil.copytree(place.stores, folder / "stores")
        shutil.copy(place.encoder, folder / "encoder.safetensors")
        stages.stores = folder / "stores"
        paths = {"output": folder / "output" / "out", "state": folder / "state", "log": folder / "log" / "x.log",
                 "store": folder / "stores" / "pets" / "index.jsonl", "encoder": folder / "encoder.safetensors"}  # fmt: skip
        for name in ("output", "state", "log"):
            (folder / name).mkdir()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        victim = {"output": folder / "output", "log": folder / "log"}.get(locked, paths[locked])
        victim.chmod(0o555 if victim.is_dir() else 0o000)
        changes = {"state_dir": paths["state"], "log": paths["log"], "encoder": paths["encoder"]}
        stage, line = stages.arguments("finetune", paths["output"], **changes)

        def command():
            os.setgid(65534)
            os.setuid(65534)
            return MAINS[stage](line)

        assert wait(fork(command)) == 1
        said = capfd.readouterr().err
        assert "viny: error: " in said
        assert "Permission denied" in said
        assert str(victim) in said
        assert "Traceback" not in said
    finally:
        shutil.rmtree(folder)
