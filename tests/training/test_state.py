"""States are whole or absent; results of a finished run come back; stale states go."""

import json
import multiprocessing
import time

import pytest
import torch

from viny.training.state import RunState, prune_states


def make(tmp_path, identity=1):
    return RunState(tmp_path / "states", "toy", {"run": identity}, tmp_path / "out")


def finish(state, text="weights"):
    with state.finishing() as folder:
        (folder / "model.txt").write_text(text)
        (folder / "metrics.json").write_text(json.dumps({"provenance": {"run_key": state.key}}))


def test_the_last_whole_state_is_loaded(tmp_path, capsys):
    state = make(tmp_path)
    with state.lock():
        assert state.load() is None
        for step in (1, 2):
            state.save({"step": step, "weights": torch.full((3,), float(step))})
        assert state.load()["step"] == 2
        path = state.folder / "state.pt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert state.load()["step"] == 1
        assert "damaged" in capsys.readouterr().err
        path.write_bytes(b"")
        assert state.load()["step"] == 1


def test_other_runs_have_other_states(tmp_path):
    assert make(tmp_path, 1).folder != make(tmp_path, 2).folder


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


def test_damaged_kept_results_are_not_exported(tmp_path, capsys):
    state = make(tmp_path)
    with state.lock():
        finish(state)
        (state.folder / "done" / "model.txt").write_text("other")
        assert not state.export()
    assert "damaged" in capsys.readouterr().err


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


def test_a_number_made_once_stays(tmp_path):
    state = make(tmp_path)
    with state.lock():
        assert state.once("seed", lambda: 5) == 5
        assert make(tmp_path).once("seed", lambda: 6) == 5


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
    unfinished, superseded, held = make(tmp_path, 1), make(tmp_path, 2), make(tmp_path, 3)
    unfinished.output = superseded.output = tmp_path / "never"
    unfinished._description["output"] = str(tmp_path / "never")
    for state in (unfinished, superseded):
        with state.lock():
            state.save({"step": 1})
    finished = make(tmp_path, 4)
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
