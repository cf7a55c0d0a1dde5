"""A job killed again and again, at any instant, ends with the bits of an undisturbed run.

`VINY_KILLS=120 pytest tests/run/test_kill.py -k random` kills a hundred times more at random instants.
"""

import errno
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from processes import at_step, die, run, start, wait
from tiny import Done, Jobs

from viny import job as viny_job
from viny import run as viny_run
from viny.datasets.store import Store
from viny.files import file_sha256
from viny.training import state

KILLS = int(os.environ.get("VINY_KILLS", "15"))
# Long enough to be killed on the way; a position is saved in every step.
LONG = {"steps": 16, "batch_size": 8}
SHORT = {"steps": 2, "milestones": []}
SAVING = ("--save-every", "0")
KINDS = {"pretrain": {}, "cls_intel": {"mixup": 0.5}, "finetune": {}}


def line(jobs: Jobs, results: str, kind: str = "finetune", **changes) -> list[str]:
    return [*jobs.arguments(kind, results, **changes), *SAVING]


def done(jobs: Jobs, results: str, kind: str = "finetune", **changes) -> Done:
    return Done(jobs.job(kind, results, **changes))


def undisturbed(jobs: Jobs, kind: str = "finetune", **changes) -> Done:
    """The same run without any kill, in this process: what torch loads late is then loaded for its children, too."""
    assert viny_run.main(line(jobs, "whole", kind, **changes)) == 0
    return done(jobs, "whole", kind, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_instants(jobs, kind):
    chance, changes = random.Random(kind), LONG | KINDS[kind]
    undisturbed(jobs, kind, **changes)
    began = time.monotonic()
    assert run(line(jobs, "timed", kind, **changes)) == 0
    duration = time.monotonic() - began
    whole = done(jobs, "timed", kind, **changes)
    kills = resumed = runs = 0
    while kills < KILLS / len(KINDS):
        code = -signal.SIGKILL
        while code:
            pid = start(line(jobs, f"killed{runs}", kind, **changes))
            if kills < KILLS / len(KINDS):
                time.sleep(chance.uniform(0, duration))
                os.kill(pid, signal.SIGKILL)  # does nothing to a process that has ended and is not waited for yet
            code = wait(pid)
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        result = done(jobs, f"killed{runs}", kind, **changes)
        assert result.repeatable == whole.repeatable
        resumed += result.document["cost"]["resumes"]
        runs += 1
    assert resumed > 0
    print(f"{kind}: {kills} kills in {runs} runs, resumed {resumed} times")


# Calls between which a process can die and leave something half done.
POINTS = ("replace", "rename", "link", "unlink", "fsync", "mkdir", "rmdir", "utime")


class Fuse:
    """Kills the process before or after the n-th call of one of POINTS; without n it counts them in a file.

    With `error` the n-th call fails instead, as on a disk that breaks down.
    """

    def __init__(self, number: int | None, after: bool = False, counter: Path | None = None, error: int | None = None):
        self.number, self.after, self.counter, self.error, self.calls = number, after, counter, error, 0

    def __call__(self):
        for name in POINTS:
            setattr(os, name, self._around(getattr(os, name)))

    def _around(self, call):
        def wrapped(*args, **kwargs):
            self.calls += 1
            mine = self.calls == self.number
            if mine and self.error:
                raise OSError(self.error, os.strerror(self.error), *map(str, args[:1]))
            if mine and not self.after:
                self.die()
            if self.counter:
                self.counter.write_text(str(self.calls))
            try:
                return call(*args, **kwargs)
            finally:
                if mine:
                    self.die()

        return wrapped

    def die(self):
        """End without a word."""
        die()


class PowerFailure(Fuse):
    """Ends the process before the n-th call and takes away what was written below a folder and not waited for."""

    def __init__(self, folder: Path, number: int):
        super().__init__(number)
        self.folder, self.safe, self.began = folder, set(), time.time_ns()

    def __call__(self):
        os.fsync = self._noted(os.fsync)
        super().__call__()

    def _noted(self, fsync):
        def wrapped(descriptor):
            fsync(descriptor)
            self.safe.add(os.fstat(descriptor).st_ino)

        return wrapped

    def die(self):
        files = ((path, path.lstat()) for path in self.folder.rglob("*") if path.is_file())
        for path, status in files:
            if status.st_mtime_ns > self.began and status.st_ino not in self.safe:
                os.truncate(path, self.number % 2 * status.st_size // 2)
        die()


def test_what_a_power_failure_takes_away_is_made_again(jobs):
    again, counter = line(jobs, "results", **SHORT), jobs.folder / "calls"
    assert run(again, Fuse(None, counter=counter)) == 0
    whole, points = done(jobs, "results", **SHORT).repeatable, int(counter.read_text())
    for number in random.Random(2).sample(range(1, points + 1), min(KILLS // 3, points)):
        shutil.rmtree(jobs.folder / "results")
        assert run(again, PowerFailure(jobs.folder / "results", number)) == -signal.SIGKILL
        assert run(again) == 0
        assert done(jobs, "results", **SHORT).repeatable == whole, number


@pytest.mark.parametrize("kind", ["finetune", "geometry"])
def test_kills_and_errors_at_every_point_of_saving_and_finishing(jobs, kind):
    changes = SHORT if kind == "finetune" else {}
    if kind == "geometry":
        assert viny_run.main(line(jobs, "results", "pretrain")) == 0
    folder, counter = jobs.job(kind, **changes).folder, jobs.folder / "calls"
    again = line(jobs, "results", kind, **changes)

    def measured() -> dict:
        return done(jobs, "results", kind, **changes).repeatable

    def clear():
        shutil.rmtree(folder)
        for path in jobs.job(kind).state.glob(f"{kind}-*"):
            shutil.rmtree(path)

    assert run(again) == 0  # makes the folders above, once for all
    clear()
    assert run(again, Fuse(None, counter=counter)) == 0
    whole, points = measured(), int(counter.read_text())
    clear()
    assert points > 15
    print(f"{kind}: {points} points")
    chosen = [(number, after) for number in range(1, points + 1) for after in (False, True)]
    for number in random.Random(1).sample(range(1, points + 1), min(KILLS, points)):
        assert run(again, Fuse(number, error=errno.EIO)) in (0, 1)
        assert run(again) == 0
        assert measured() == whole, number
        clear()
    for number, after in random.Random(0).sample(chosen, min(KILLS, len(chosen))):
        assert run(again, Fuse(number, after)) == -signal.SIGKILL
        if (folder / "metrics.json").exists():  # the last file to be put in place
            assert {name for name in whole if name != "history.jsonl"} <= {path.name for path in folder.iterdir()}
        assert run(again) == 0
        assert measured() == whole, (number, after)
        clear()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_at_once_and_tells_the_exit_code(jobs, number, capfd):
    """Without any saved position before, as after a cluster's warning in the first minute."""
    whole = undisturbed(jobs, steps=9)
    again = jobs.arguments("finetune", steps=9)
    assert run(again, at_step(4, lambda: os.kill(os.getpid(), number))) == 128 + number
    assert not done(jobs, "results", steps=9).folder.exists()
    assert f"{number.name}; the state is saved, the same command carries on" in capfd.readouterr().err
    assert run(again) == 0
    assert "resuming at epoch 2, step 4" in capfd.readouterr().err
    result = done(jobs, "results", steps=9)
    assert result.repeatable == whole.repeatable
    assert result.document["cost"]["resumes"] == 1


def test_ctrl_c_outside_of_training_ends_without_a_traceback(jobs, capfd):
    def interrupt():
        Store.verify = lambda self, rows: os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    assert run(line(jobs, "results"), interrupt) == 130
    assert "Traceback" not in (said := capfd.readouterr().err)
    assert "interrupted" in said


@pytest.mark.parametrize("damage", ["a bit", "half", "empty", "foreign", "both"])
def test_a_damaged_state_falls_back_to_the_one_before_with_a_warning(jobs, damage, capfd):
    whole = undisturbed(jobs, **LONG)
    again = line(jobs, "results", **LONG)
    assert run(again, at_step(6)) == -signal.SIGKILL
    [folder] = jobs.job("finetune", **LONG).state.glob("finetune-*")
    for name in ("state.pt", "previous.pt")[: 2 if damage == "both" else 1]:
        content = bytearray((folder / name).read_bytes())
        match damage:
            case "a bit":
                content[len(content) // 2] ^= 4
            case "half":
                del content[len(content) // 2 :]
            case "empty":
                content.clear()
            case _:
                content[:] = b"something else entirely"
        (folder / name).write_bytes(content)
    capfd.readouterr()
    assert run(again) == 0
    said = capfd.readouterr().err
    assert f"warning: the saved state {folder / 'state.pt'} cannot be used" in said
    assert ("resuming at epoch 2, step 4" in said) == (damage != "both")
    assert done(jobs, "results", **LONG).repeatable == whole.repeatable


def forbid_training():
    viny_job.train = None


def test_a_run_finished_before_the_kill_is_not_trained_again(jobs, capfd):
    again = line(jobs, "results", **SHORT)

    def die_while_exporting():
        state.RunState.export = lambda self: die() if (self.folder / "done").exists() else False

    assert run(again, die_while_exporting) == -signal.SIGKILL
    assert not done(jobs, "results", **SHORT).folder.exists()
    capfd.readouterr()
    assert run(again, forbid_training) == 0
    assert "finished before; its results are in" in capfd.readouterr().err
    assert done(jobs, "results", **SHORT).repeatable == undisturbed(jobs, **SHORT).repeatable


def test_results_taken_away_or_damaged_are_put_back_without_training(jobs):
    whole = undisturbed(jobs, **SHORT)
    before = whole.repeatable
    whole.job.checkpoint.unlink()
    (whole.folder / "examples.npz").unlink()
    (whole.folder / "examples.npz").write_bytes(b"half")
    assert run(line(jobs, "whole", **SHORT), forbid_training) == 0
    assert done(jobs, "whole", **SHORT).repeatable == before


def test_results_kept_but_damaged_are_trained_again(jobs, capfd):
    whole = undisturbed(jobs, **SHORT)
    before = whole.repeatable
    whole.job.checkpoint.write_bytes(b"damaged in place, and with it the copy that is kept")
    assert run(line(jobs, "whole", **SHORT)) == 0
    assert "damaged; the run is done again" in capfd.readouterr().err
    assert done(jobs, "whole", **SHORT).repeatable == before


def test_of_two_processes_on_one_run_one_trains_and_the_other_takes_its_results(jobs, capfd):
    whole = undisturbed(jobs, **LONG)
    capfd.readouterr()
    again = line(jobs, "results", **LONG)
    both = [start(again) for _ in range(2)]
    assert [wait(pid) for pid in both] == [0, 0]
    said = capfd.readouterr().err
    assert said.count(": done, ") == 1
    assert said.count("another process is working on this run") <= 1
    assert said.count("finished before") == 1
    assert done(jobs, "results", **LONG).repeatable == whole.repeatable


def test_the_process_that_waits_takes_over_when_the_first_is_killed(jobs, capfd):
    whole = undisturbed(jobs, **LONG)
    again, job = line(jobs, "results", **LONG), jobs.job("finetune", **LONG)

    def slowly():
        save = state.RunState.save
        state.RunState.save = lambda self, position: (save(self, position), time.sleep(0.2))[0]

    first = start(again, slowly)
    deadline = time.monotonic() + 20
    while not list(job.state.glob("*/previous.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    second = start(again)
    while "another process" not in (said := capfd.readouterr().err) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "another process is working on this run" in said
    os.kill(first, signal.SIGKILL)
    assert wait(first) == -signal.SIGKILL
    assert wait(second) == 0
    assert "resuming at" in capfd.readouterr().err
    assert done(jobs, "results", **LONG).repeatable == whole.repeatable


def without_locks():
    """A file system such as Lustre without the mount option `flock`."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    state.fcntl.lockf = refuse


@pytest.mark.parametrize("changes", [LONG, {**SHORT, "seeding": "split_only"}], ids=["long", "drawn seed"])
def test_two_processes_on_one_run_without_locks_leave_the_same_whole_result(jobs, changes, capfd):
    again = line(jobs, "results", **changes)
    both = [start(again, without_locks) for _ in range(2)]
    assert [wait(pid) for pid in both] == [0, 0]
    assert capfd.readouterr().err.count("warning: no locks in ") == 2
    result = done(jobs, "results", **changes)
    seed = result.document["provenance"]["seed"]
    same_seed = {**changes, "seeding": "everything", "grid": {"seeds": [seed]}, "seed": seed}
    assert run(line(jobs, "whole", **same_seed)) == 0
    whole = done(jobs, "whole", **same_seed)
    assert result.weights == whole.weights
    assert result.metrics == whole.metrics
    assert {path.name for path in result.folder.iterdir()} == {path.name for path in whole.folder.iterdir()}
    sums = {name: file_sha256(result.folder / name) for name in result.document["outputs"]}
    assert sums == result.document["outputs"], "files of one of the two, not of both"


def test_two_processes_without_locks_killed_at_random_instants(jobs):
    chance = random.Random(0)
    whole = undisturbed(jobs, **LONG)
    began = time.monotonic()
    assert run(line(jobs, "timed", **LONG)) == 0
    duration = time.monotonic() - began
    for number in range(3):
        again = line(jobs, str(number), **LONG)
        victim, other = start(again, without_locks), start(again, without_locks)
        time.sleep(chance.uniform(0, duration))
        os.kill(victim, signal.SIGKILL)
        assert wait(victim) in (0, -signal.SIGKILL)
        assert wait(other) == 0
        assert run(again) == 0  # the other may have finished before the kill: what that left behind goes now
        assert done(jobs, str(number), **LONG).repeatable == whole.repeatable


def test_a_seed_left_to_chance_stays_when_the_run_is_killed(jobs):
    chance = {**LONG, "seeding": "split_only"}
    again, job = line(jobs, "results", **chance), jobs.job("finetune", **chance)
    assert run(again, at_step(3)) == -signal.SIGKILL
    seeds = []
    for step in (9, None):
        [folder] = job.state.glob("*")
        seeds.append(state._read(folder / "state.pt")["seed"])
        assert run(again, at_step(step) if step else lambda: None) == (-signal.SIGKILL if step else 0)
    result = Done(job)
    assert {*seeds, result.document["provenance"]["seed"]} == {seeds[0]}
    same_seed = {**LONG, "grid": {"seeds": [seeds[0]]}, "seed": seeds[0]}
    assert run(line(jobs, "whole", **same_seed)) == 0
    assert result.weights == done(jobs, "whole", **same_seed).weights


def test_a_finished_run_leaves_no_position_behind(jobs):
    whole = undisturbed(jobs, **LONG)
    [folder] = whole.job.state.iterdir()
    assert {path.name for path in folder.iterdir()} == {"run.json", "lock", "done"}
    assert {path.name for path in whole.folder.iterdir()} == {*whole.document["outputs"], "metrics.json"}


def test_other_settings_are_another_run(jobs, capfd):
    again, other = line(jobs, "results", **LONG), line(jobs, "results", **LONG, contrast=0.1)
    (jobs.folder / "other.json").write_text((jobs.folder / "results.json").read_text())
    other[2] = str(jobs.folder / "other.json")
    line(jobs, "results", **LONG)
    assert run(again, at_step(6)) == -signal.SIGKILL
    capfd.readouterr()
    assert run(other) == 0
    assert "resuming" not in capfd.readouterr().err
    assert run(again) == 0
    assert "resuming" in capfd.readouterr().err
