"""Every GPU is used, none by more runs than it has slots, and a slot is free again once its run has died."""

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter

import pytest
import torch

from viny.config.sections import Compute
from viny.training.gpu_slots import VISIBLE, acquire, one_gpu

HOLD = """
import sys, time
from pathlib import Path
from viny import logs
from viny.training.gpu_slots import acquire
logs.setup()
slot = acquire(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), every=0.05)
print(slot[0], flush=True)
time.sleep(float(sys.argv[4]))
"""


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch, tmp_path):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def hold(folder, gpus=2, slots=1, seconds=60.0):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(gpus), str(slots), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_gpus_are_filled_evenly(tmp_path):
    gpus = [acquire(3, 2, tmp_path) for _ in range(6)]
    assert [gpu for gpu, _ in gpus] == [0, 1, 2, 0, 1, 2]
    gpus[4][1].close()
    assert acquire(3, 2, tmp_path)[0] == 1


def test_runs_started_at_once_do_not_collide(tmp_path):
    processes = [hold(tmp_path, gpus=2, slots=2) for _ in range(4)]
    try:
        assert Counter(process.stdout.readline().strip() for process in processes) == {"0": 2, "1": 2}
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_killed_run_gives_its_slot_back_to_one_that_waits(tmp_path):
    first = hold(tmp_path, gpus=1)
    assert first.stdout.readline() == "0\n"
    second = hold(tmp_path, gpus=1, seconds=0)
    try:
        assert "waiting for a free slot" in second.stderr.readline()
        assert second.poll() is None
        first.send_signal(signal.SIGKILL)
        out, _ = second.communicate(timeout=20)
        assert out == "0\n"
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_the_process_sees_only_its_gpu(tmp_path):
    folder = tmp_path / f"viny-gpus-{os.getuid()}"
    taken = acquire(2, 1, folder)
    with one_gpu(Compute()):
        assert os.environ[VISIBLE] == "1"
    assert VISIBLE not in os.environ
    assert acquire(2, 1, folder)[0] == 1
    taken[1].close()


@pytest.mark.parametrize(
    ("device", "visible", "gpus"), [("cpu", None, 2), ("cuda", "3", 2), ("cuda", "", 2), ("auto", None, 0)]
)
def test_nothing_is_taken_where_it_is_decided_already(tmp_path, monkeypatch, device, visible, gpus):
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with one_gpu(Compute(device=device)):
        assert os.environ.get(VISIBLE) == visible
    assert not list(tmp_path.iterdir())
