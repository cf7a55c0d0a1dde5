"""Every GPU is used, none by more runs than it has places, and a place is free again once its run has died."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from viny.training import gpu_slots
from viny.training.gpu_slots import VISIBLE, acquire, take_gpu

HOLD = """
import sys, time
from pathlib import Path
from viny.training.gpu_slots import acquire
slot = acquire(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), every=0.05)
print(slot.gpu, flush=True)
time.sleep(float(sys.argv[4]))
"""


@pytest.fixture(autouse=True)
def _free(monkeypatch):
    monkeypatch.setenv(VISIBLE, "")  # so that it is put back afterwards
    monkeypatch.delenv(VISIBLE)
    monkeypatch.setattr(gpu_slots, "_held", [])


def hold(folder, gpus=2, places=1, seconds=60.0):
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(gpus), str(places), str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_all_gpus_are_filled_evenly(tmp_path):
    slots = [acquire(3, 2, tmp_path) for _ in range(6)]
    assert Counter(slot.gpu for slot in slots[:3]) == {0: 1, 1: 1, 2: 1}
    assert Counter(slot.gpu for slot in slots) == {0: 2, 1: 2, 2: 2}
    assert len({(slot.gpu, slot.place) for slot in slots}) == 6


def test_next_run_goes_where_most_places_are_free(tmp_path):
    slots = [acquire(2, 3, tmp_path) for _ in range(6)]
    for slot in slots:
        if slot.gpu == 1 and slot.place > 0:
            slot.release()
    assert acquire(2, 3, tmp_path).gpu == 1


def test_runs_started_at_once_do_not_collide(tmp_path):
    processes = [hold(tmp_path, gpus=2, places=2) for _ in range(4)]
    try:
        assert Counter(process.stdout.readline().strip() for process in processes) == {"0": 2, "1": 2}
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_killed_run_gives_its_place_back_to_one_that_waits(tmp_path):
    first = hold(tmp_path, gpus=1)
    assert first.stdout.readline() == "0\n"
    second = hold(tmp_path, gpus=1, seconds=0)
    try:
        assert "waiting for a free place" in second.stderr.readline()
        assert second.poll() is None
        first.send_signal(signal.SIGKILL)
        out, _ = second.communicate(timeout=20)
        assert out == "0\n"
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_the_process_sees_only_its_gpu(tmp_path):
    taken = acquire(2, 1, tmp_path)
    take_gpu("auto", 1, count=lambda: 2, folder=tmp_path)
    assert os.environ[VISIBLE] == str(1 - taken.gpu)


@pytest.mark.parametrize(
    ("device", "visible", "gpus"), [("cpu", None, 2), ("cuda", "3", 2), ("cuda", "", 2), ("auto", None, 0)]
)
def test_nothing_is_taken_where_it_is_decided_already(tmp_path, monkeypatch, device, visible, gpus):
    if visible is not None:
        monkeypatch.setenv(VISIBLE, visible)
    take_gpu(device, 1, count=lambda: gpus, folder=tmp_path / "slots")
    assert os.environ.get(VISIBLE) == visible
    assert not (tmp_path / "slots").exists()
