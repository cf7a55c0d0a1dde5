"""States are whole or absent; results of a finished run come back; stale states go."""

import json
import multiprocessing
import os
import random
import socket
import subprocess
import time
import zipfile

import pytest
import torch

from viny.files import tidy
from viny.processes import Writer
from viny.training.state import RunState, prune_states


def make(tmp_path, identity=1, output="out"):
    return RunState(tmp_path / "states", "toy", {"run": identity}, tmp_path / output)


def finish(state, text="weights"):
    with state.finishing() as folder:
        (folder / "model.txt").write_text(text)
        (folder / "metrics.json").write_text(json.dumps({"provenance": {"run_key": state.key}}))


def test_the_last_whole_state_is_loaded(tmp_path, caplog):
    state = make(tmp_path)
    with state.lock():
        assert state.load() is None
        for step in (1, 2):
            state.save({"step": step, "weights": torch.full((3,), float(step))})
        assert state.load()["step"] == 2
        path = state.folder / "state.pt"
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert state.load()["step"] == 1
        assert "cannot be used" in caplog.text
        for other in (b"", b"something else"):
            path.write_bytes(other)
            assert state.load()["step"] == 1


def test_no_flipped_bit_changes_what_is_loaded(tmp_path):
    """Bits of padding and dates may flip; a bit of what was saved is found out."""
    state, chance = make(tmp_path), random.Random(0)
    with state.lock():
        for step in (1, 2):
            state.save({"step": step, "weights": torch.full((2000,), float(step))})
        path = state.folder / "state.pt"
        content = path.read_bytes()
        for place in chance.sample(range(len(content)), 300):
            changed = bytearray(content)
            changed[place] ^= 1 << chance.randrange(8)
            path.write_bytes(changed)
            loaded = state.load()
            assert torch.equal(loaded["weights"], torch.full((2000,), float(loaded["step"])))
        assert zipfile.is_zipfile(path)


def test_other_runs_have_other_states(tmp_path):
    assert make(tmp_path, 1).folder != make(tmp_path, 2).folder


def test_what_is_kept_is_saved_along_with_every_position(tmp_path):
    state = make(tmp_path)
    with state.lock():
        state.kept["seed"] = 5
        state.save({"step": 1})
        assert make(tmp_path).load() == {"seed": 5, "step": 1}


def test_who_looks_on_sees_the_process_at_work(tmp_path):
    state = make(tmp_path)
    with state.lock():
        shown = json.loads((state.folder / "progress.json").read_text())
        assert Writer(**{key: shown[key] for key in ("host", "pid", "started")}).lives
        state.show({"epoch": 2})
        shown = json.loads((state.folder / "progress.json").read_text())
        assert (shown["epoch"], shown["pid"]) == (2, os.getpid())


def test_a_process_lives_until_it_ends_and_its_number_is_not_enough():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    me = Writer.current()
    try:
        assert Writer(me.host, child.pid, time.time()).lives
        assert Writer(me.host, child.pid, time.time() - 3600).lives is False
        assert Writer("elsewhere", child.pid, time.time()).lives is None
    finally:
        child.kill()
        child.join()
    assert Writer(me.host, child.pid, time.time()).lives is False


def test_results_taken_away_come_back_without_training(tmp_path):
    state = make(tmp_path)
    with state.lock():
        assert not state.export()
        state.save({"step": 1})
        finish(state)
        assert not (state.folder / "state.pt").exists()
        (tmp_path / "out" / "model.txt").unlink()
        assert state.export()
    assert (tmp_path / "out" / "model.txt").read_text() == "weights"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.txt", "metrics.json"}


def test_results_are_copied_where_files_cannot_have_two_names(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError

    monkeypatch.setattr(os, "link", no_links)
    state = make(tmp_path)
    with state.lock():
        finish(state)
    assert (tmp_path / "out" / "model.txt").read_text() == "weights"


def test_damaged_kept_results_are_not_exported_and_replaced(tmp_path, caplog):
    state = make(tmp_path)
    with state.lock():
        finish(state)
        (state.folder / "done" / "model.txt").write_text("other")
        assert not state.export()
        assert "damaged" in caplog.text
        finish(state)
    assert (tmp_path / "out" / "model.txt").read_text() == "weights"


def test_the_results_of_the_first_to_finish_count(tmp_path):
    """Two processes finish one run, where no locks keep one of them out."""
    state = make(tmp_path)
    with state.lock():
        with state.finishing() as folder:
            (folder / "model.txt").write_text("second")
            other = multiprocessing.get_context("fork").Process(target=finish, args=(make(tmp_path), "first"))
            other.start()
            other.join()
        assert (tmp_path / "out" / "model.txt").read_text() == "first"
        assert (state.folder / "done" / "model.txt").read_text() == "first"


def test_a_broken_off_finish_leaves_no_finished_run(tmp_path):
    state = make(tmp_path)
    with state.lock():
        with pytest.raises(RuntimeError), state.finishing() as folder:
            (folder / "model.txt").write_text("half")
            raise RuntimeError
        assert not state.export()
        assert not (tmp_path / "out").exists()
        finish(state)
    assert (tmp_path / "out" / "model.txt").read_text() == "weights"


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path):
    state, host = make(tmp_path), socket.gethostname()
    (tmp_path / "out").mkdir()
    with state.lock():
        pass
    for folder in (state.folder, tmp_path / "out"):
        (folder / f".x.{host}-4194305.tmp").write_text("left behind")
        (folder / f".x.{host}-{os.getppid()}.tmp").write_text("being written")
        (folder / ".x.elsewhere-4194305.tmp").write_text("who knows")
    with state.lock():
        finish(state)
    for folder in (state.folder, tmp_path / "out"):
        left = {path.name for path in folder.glob(".x*")}
        assert left == {f".x.{host}-{os.getppid()}.tmp", ".x.elsewhere-4194305.tmp"}


def _count(tmp_path):
    """Add one to a number in a file, slowly: two at once would lose a count."""
    with make(tmp_path).lock():
        path = tmp_path / "number"
        number = int(path.read_text())
        time.sleep(0.05)
        path.write_text(str(number + 1))


def test_one_process_at_a_time(tmp_path):
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_count, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "number").read_text() == "4"


def test_pruning_removes_finished_and_superseded_states_that_nobody_holds(tmp_path):
    unfinished, superseded = make(tmp_path, 1, "never"), make(tmp_path, 2)
    for state in (unfinished, superseded):
        with state.lock():
            state.save({"step": 1})
    finished, held = make(tmp_path, 4), make(tmp_path, 3)
    with finished.lock():
        finish(finished)
    context = multiprocessing.get_context("fork")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=_hold_3, args=(tmp_path, ready, release))
    holder.start()
    ready.wait(10)
    assert prune_states(tmp_path / "states") == 2
    assert unfinished.folder.exists()
    assert held.folder.exists()
    assert not superseded.folder.exists()
    assert not finished.folder.exists()
    release.set()
    holder.join()


def _hold_3(tmp_path, ready, release):
    state = make(tmp_path, 3)
    with state.lock():
        finish(state)
        ready.set()
        release.wait(10)


def test_what_a_process_that_has_ended_left_half_written_goes_even_if_nobody_waits_for_it(tmp_path):
    """As in a container whose first process does not wait for orphans."""
    dead = subprocess.Popen(["true"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
    names = [f".model.safetensors.{socket.gethostname()}-{pid}.tmp" for pid in (dead.pid, os.getpid())]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
    tidy(tmp_path)
    dead.wait()
    assert [path.name for path in tmp_path.iterdir()] == names[1:]
