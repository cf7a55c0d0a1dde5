"""What goes wrong around a job: one clear message, an exit code, no traceback, nothing overwritten.

Mistakes in study files are in `tests/config`, those in data sets and stores in `tests/datasets`.
"""

import ctypes
import errno
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import at_step, fork, run, wait
from safetensors.numpy import save_file
from test_kill import SAVING
from tiny import Done, Jobs

from viny import cli
from viny import job as viny_job
from viny import run as viny_run
from viny.encoders import build, save_model
from viny.grid import Job

QUICK = {"steps": 1, "milestones": []}


class Place:
    """Where a test breaks things: a copy of the stores, an encoder, and a folder of results with something precious."""

    def __init__(self, folder: Path, stores: Path, encoder: Path):
        self.folder = folder
        self.jobs = Jobs(Path(shutil.copytree(stores, folder / "stores")), folder)
        self.job = self.jobs.job("finetune", pretrain=24, **QUICK)
        self.job.encoder.parent.mkdir(parents=True)
        shutil.copy(encoder, self.job.encoder)
        self.job.folder.mkdir(parents=True)
        self.job.metrics.write_text('{"precious": 1}')
        self.line = self.jobs.arguments("finetune", pretrain=24, **QUICK)

    def content(self) -> dict[Path, bytes]:
        """All files but the state of runs."""
        found = (path for path in self.folder.rglob("*") if path.is_file() and ".state" not in str(path))
        return {path: path.read_bytes() for path in found}

    def damage(self, name: str) -> None:
        """Flip a bit in the middle of a file of the store."""
        path = self.job.store.folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def other_encoder(job: Job, **sizes) -> None:
    save_model(build(job.model.model_copy(update=sizes), torch.Generator()), job.encoder)


def foreign(job: Job) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, job.encoder)


def in_the_way(path: Path) -> None:
    """A file where a folder should be."""
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


# name: (what to change, exit code, message)
MISTAKES = {
    "a flipped bit in the images": (lambda p: p.damage("images.u8"), 1, r"is damaged in the rows \d+"),
    "a flipped bit in the masks": (lambda p: p.damage("masks.u8"), 1, r"is damaged in the rows \d+"),
    "no encoder": (lambda p: p.job.encoder.unlink(), 1, "there is no encoder .*encoder.safetensors"),
    "encoder is text": (lambda p: p.job.encoder.write_bytes(b"a" * 99), 4, "not a readable safetensors file"),
    "encoder of another program": (lambda p: foreign(p.job), 4, "without viny's description of the model"),
    "encoder of another depth": (lambda p: other_encoder(p.job, depth=2), 4, "other sizes .*: depth 2, not 1"),
    "encoder of other patches": (lambda p: other_encoder(p.job, patch_size=8), 4, "other sizes .*: patch_size 8, not"),
    "encoder of other images": (lambda p: other_encoder(p.job, image_size=32), 4, "takes images of 32 pixels"),
    "output below a file": (lambda p: in_the_way(p.job.folder.parent), 1, "cannot write .*Not a directory"),
    "state below a file": (lambda p: in_the_way(p.job.state), 1, "cannot write .*state"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, stores, once) -> Place:
    return Place(tmp_path, stores, once.run("pretrain").job.checkpoint)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message(name, place, capsys):
    mistake, code, message = MISTAKES[name]
    mistake(place)
    before = place.content()
    assert viny_run.main(place.line) == code
    said = capsys.readouterr().err
    assert said.count("viny: error: ") == 1
    assert re.search(f"viny: error: .*({message})", said), said
    assert "Traceback" not in said
    assert place.content() == before


@pytest.mark.parametrize("below", [False, True])
def test_a_log_that_cannot_be_opened_is_named(place, below, capsys):
    log = place.job.encoder / "x.log" if below else place.folder
    before = place.content()
    assert cli.main(["run", *place.line, "--log", str(log)]) == 1
    assert re.search("Is a directory|Not a directory|File exists", capsys.readouterr().err)
    assert place.content() == before


def test_more_images_than_the_store_has_is_final(place, monkeypatch, capsys):
    monkeypatch.setitem(place.job.__dict__, "images", 55)
    assert viny_run.command(lambda: viny_job.run_job(place.job, place.jobs.study().config.compute))() == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named(place, capsys):
    assert viny_run.main([*place.line, "--config", "compute.device=cuda"]) == 1
    assert "torch finds no CUDA device" in capsys.readouterr().err


@pytest.fixture
def full_disk():
    """A file system of 1 MB, nearly full."""
    folder = Path(tempfile.mkdtemp(prefix="full-"))
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("only root can make a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)
    folder.rmdir()


@pytest.mark.parametrize("room", [0, 1, 2, 4, 8, 16, 24], ids=lambda room: f"{4 * room} KB left")
def test_a_full_disk_is_named_and_once_there_is_room_the_run_carries_on(once, stores, full_disk, room, capsys):
    whole, jobs = once.run("finetune"), Jobs(stores, full_disk)
    log = full_disk / "log"
    line = [*jobs.arguments("finetune"), *SAVING, "--log", str(log)]
    filler = full_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(full_disk).free - 4096 * room))
    assert viny_run.main(line) == 1
    said = capsys.readouterr().err + log.read_text()  # what the log does not take is said in the terminal
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert not jobs.job("finetune").metrics.exists()
    filler.unlink()
    assert viny_run.main(line) == 0
    assert Done(jobs.job("finetune")).repeatable == whole.repeatable


def test_a_read_only_file_system_is_named(stores, full_disk, capsys):
    jobs = Jobs(stores, full_disk)
    line = jobs.arguments("finetune")
    subprocess.run(["mount", "-o", "remount,ro", full_disk], check=True)
    assert viny_run.main(line) == 1
    said = capsys.readouterr().err
    assert said.count("viny: error: ") == 1
    assert os.strerror(errno.EROFS) in said
    assert str(full_disk) in said


@pytest.mark.parametrize("hours", [-30_000, 30_000])
def test_a_clock_that_was_wrong_changes_nothing(once, jobs, hours, capfd):
    whole, line = once.run("finetune"), [*jobs.arguments("finetune"), *SAVING]
    assert run(line, at_step(6)) == -signal.SIGKILL
    then = time.time() + 3600 * hours
    for path in jobs.job("finetune").state.rglob("*"):
        os.utime(path, (then, then))
    capfd.readouterr()
    assert viny_run.main(line) == 0
    assert "resuming at epoch 2, step 5" in capfd.readouterr().err
    assert Done(jobs.job("finetune")).repeatable == whole.repeatable


def test_a_log_that_cannot_be_written_ends_nothing(jobs):
    assert viny_run.main([*jobs.arguments("finetune"), "--log", "/dev/full"]) == 0


def test_a_model_too_large_for_the_memory_is_named(jobs, capfd):
    def limit():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))

    assert run(jobs.arguments("finetune", model={"width": 4096, "mlp_width": 65536}), limit) == 1
    said = capfd.readouterr().err
    assert "the device has not enough memory" in said
    assert "lower finetune.batch_size, or take a smaller `model`" in said


def test_a_limit_on_the_size_of_files_is_named(place, capfd):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    assert run([*place.line, *SAVING], limit) == 1
    assert f"cannot write {place.folder}" in (said := capfd.readouterr().err)
    assert os.strerror(errno.EFBIG) in said
    assert place.job.metrics.read_text() == '{"precious": 1}'


@pytest.mark.skipif(os.getuid() != 0, reason="takes the rights away from root")
@pytest.mark.parametrize("locked", ["output", "state", "log", "store", "encoder"])
def test_missing_permission_is_named(stores, once, locked, capfd):
    """As root without its capabilities: what the owner of a file may not do is then refused."""
    folder = Path(tempfile.mkdtemp(prefix="rights-"))
    try:
        place = Place(folder, stores, once.run("pretrain").job.checkpoint)
        log = folder / "logs" / "x.log"
        for made in (log.parent, place.job.state):
            made.mkdir(parents=True)
        victims = {"output": place.job.folder, "state": place.job.state, "log": log.parent,
                   "store": place.job.store.folder / "index.jsonl", "encoder": place.job.encoder}  # fmt: skip
        victim = victims[locked]
        victim.chmod(0o555 if victim.is_dir() else 0o000)

        def command():
            version_3 = 0x20080522
            assert ctypes.CDLL(None).capset(struct.pack("=Ii", version_3, 0), bytes(24)) == 0
            return cli.main(["run", *place.line, "--log", str(log)])

        assert wait(fork(command)) == 1
        said = capfd.readouterr().err if locked == "log" else log.read_text()
        assert "error" in said.lower()
        assert "Permission denied" in said
        assert str(victim) in said
        assert "Traceback" not in said
    finally:
        shutil.rmtree(folder)
