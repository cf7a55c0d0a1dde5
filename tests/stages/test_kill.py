"""A stage killed again and again, at any instant, ends with the bits of an undisturbed run.

`VINY_KILLS=120 pytest tests/stages/test_kill.py -k random` kills a hundred times more at random instants.
"""

import errno
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import MAINS, MODEL, Result

from viny import settings
from viny.data.store import Store
from viny.provenance import file_sha256
from viny.stages import geometry
from viny.training import loop, state

KILLS = int(os.environ.get("VINY_KILLS", "15"))
# Long enough to be killed on the way; a position is saved in every step.
LONG = {"steps": 16, "batch_size": 8, "save_every": 0}
SHORT = {"steps": 2, "milestones": [], "save_every": 0}
KINDS = {"pretrain": {}, "cls_intel": {"mixup": 0.5}, "finetune": {}}


def fork(command: Callable[[], int]) -> int:
    """Start `command` in a copy of this process, which has everything imported; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = command()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(code)


def wait(pid: int) -> int:
    """Exit code of a child, negative for the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(stages, kind, output, hook=None, **changes) -> int:
    """Run a stage in a child; `hook` prepares the child."""

    def command():
        if hook:
            hook()
        return MAINS[stage](line)

    stage, line = stages.arguments(kind, output, **KINDS[kind], **changes)
    return wait(fork(command))


def start(stages, kind, output, **changes) -> int:
    """Start a stage in a child; returns its id."""
    stage, line = stages.arguments(kind, output, **KINDS[kind], **changes)
    return fork(lambda: MAINS[stage](line))


def undisturbed(stages, kind, **changes) -> Result:
    """The same run without any kill, in this process: what torch loads late is then loaded for its children, too."""
    output = stages.folder / f"whole-{kind}"
    assert stages.main(kind, output, **KINDS[kind], **changes) == 0
    return Result(output)


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_instants(stages, kind):
    chance = random.Random(kind)
    undisturbed(stages, kind, **LONG)
    began = time.monotonic()
    assert run(stages, kind, stages.folder / "timed", **LONG) == 0
    duration = time.monotonic() - began
    whole = Result(stages.folder / "timed")
    kills = resumed = runs = 0
    while kills < KILLS / len(KINDS):
        output = stages.folder / "killed" / str(runs)
        code = -signal.SIGKILL
        while code:
            pid = start(stages, kind, output, **LONG)
            if kills < KILLS / len(KINDS):
                time.sleep(chance.uniform(0, duration))
                os.kill(pid, signal.SIGKILL)  # does nothing to a process that has ended and is not waited for yet
            code = wait(pid)
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        result = Result(output)
        assert result.repeatable == whole.repeatable
        resumed += result.document["cost"]["resumes"]
        runs += 1
    assert resumed > 0
    print(f"{kind}: {kills} kills in {runs} runs, resumed {resumed} times")


# Calls between which a process can die and leave something half done.
POINTS = ((os, "replace"), (os, "rename"), (os, "link"), (os, "unlink"), (os, "fsync"), (os, "mkdir"), (os, "rmdir"))


class Fuse:
    """Kills the process before or after the n-th call of one of POINTS; without n it counts them in a file."""

    def __init__(self, number: int | None, after: bool = False, counter: Path | None = None):
        self.number, self.after, self.counter, self.calls = number, after, counter, 0

    def __call__(self):
        for module, name in POINTS:
            setattr(module, name, self._around(getattr(module, name)))

    def _around(self, call):
        def wrapped(*args, **kwargs):
            self.calls += 1
            mine = self.calls == self.number
            if mine and not self.after:
                die()
            if self.counter:
                self.counter.write_text(str(self.calls))
            try:
                return call(*args, **kwargs)
            finally:
                if mine:
                    die()

        return wrapped


@pytest.mark.parametrize("kind", ["finetune"])
def test_kills_at_every_point_of_saving_and_finishing(stages, kind):
    counter = stages.folder / "calls"
    output = stages.folder / "counted"
    assert run(stages, kind, output, Fuse(None, counter=counter), **SHORT) == 0
    whole, points = Result(output), int(counter.read_text())
    assert points > 25
    print(f"{kind}: {points} points")
    chosen = [(number, after) for number in range(1, points + 1) for after in (False, True)]
    if len(chosen) > KILLS:
        chosen = random.Random(0).sample(chosen, max(KILLS // 2, 8))
    for number, after in chosen:
        output = stages.folder / f"{number}-{after}"
        assert run(stages, kind, output, Fuse(number, after), **SHORT) == -signal.SIGKILL
        assert run(stages, kind, output, **SHORT) == 0
        assert Result(output).repeatable == whole.repeatable, (number, after)
        shutil.rmtree(output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_at_once_and_tells_the_exit_code(stages, number, capfd):
    """Without any saved position before, as after a cluster's warning in the first minute."""
    whole = undisturbed(stages, "finetune", steps=9)
    output = stages.folder / "stopped"

    def stop_in_the_fourth_step():
        steps = iter(range(1, 100))
        advance = loop.console.Progress.advance

        def watched(*args, **kwargs):
            if next(steps) == 4:
                os.kill(os.getpid(), number)
            return advance(*args, **kwargs)

        loop.console.Progress.advance = watched

    assert run(stages, "finetune", output, stop_in_the_fourth_step, steps=9) == 128 + number
    assert not output.exists()
    said = capfd.readouterr().err
    assert f"{number.name}; the state is saved, the same command carries on" in said
    assert run(stages, "finetune", output, steps=9) == 0
    assert "resuming at epoch 2, step 4" in capfd.readouterr().err
    assert Result(output).repeatable == whole.repeatable
    assert Result(output).document["cost"]["resumes"] == 1


def test_ctrl_c_outside_of_training_ends_without_a_traceback(stages, capfd):
    def interrupt():
        Store.verify = lambda self: os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    assert run(stages, "finetune", stages.folder / "out", interrupt) == 130
    assert capfd.readouterr().err == "viny: interrupted\n"


def stop_at(step: int) -> Callable[[], None]:
    """Prepares a process to be killed in a step, after the positions before it have been saved."""

    def prepare():
        steps = iter(range(1, 1000))
        advance = loop.console.Progress.advance

        def watched(*args, **kwargs):
            if next(steps) == step:
                die()
            return advance(*args, **kwargs)

        loop.console.Progress.advance = watched

    return prepare


@pytest.mark.parametrize("damage", ["a bit", "half", "empty", "foreign", "both"])
def test_a_damaged_state_falls_back_to_the_one_before_with_a_warning(stages, damage, capfd):
    whole = undisturbed(stages, "finetune", **LONG)
    output = stages.folder / "out"
    assert run(stages, "finetune", output, stop_at(6), **LONG) == -signal.SIGKILL
    [folder] = (stages.folder / "out.state").glob("finetune-*")
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
    assert run(stages, "finetune", output, **LONG) == 0
    said = capfd.readouterr().err
    assert f"warning: the saved state {folder / 'state.pt'} is damaged" in said
    assert ("resuming at epoch 2, step 4" in said) == (damage != "both")
    assert Result(output).repeatable == whole.repeatable


def test_a_run_finished_before_the_kill_is_not_trained_again(stages, capfd):
    output = stages.folder / "out"

    def die_while_exporting():
        state.RunState._place = die

    assert run(stages, "finetune", output, die_while_exporting, **SHORT) == -signal.SIGKILL
    assert not output.exists() or not list(output.iterdir())
    capfd.readouterr()
    assert run(stages, "finetune", output, forbid_training, **SHORT) == 0
    assert "finished before; its results are back" in capfd.readouterr().err
    assert Result(output).repeatable == undisturbed(stages, "finetune", **SHORT).repeatable


def forbid_training():
    from viny.stages import run as stage_run

    stage_run.train = None


def test_results_taken_away_or_damaged_are_put_back_without_training(stages):
    whole = undisturbed(stages, "finetune", **SHORT)
    before = whole.repeatable
    whole.model.unlink()
    (whole.folder / "examples.npz").unlink()
    (whole.folder / "examples.npz").write_bytes(b"half")
    assert run(stages, "finetune", whole.folder, forbid_training, **SHORT) == 0
    assert Result(whole.folder).repeatable == before


def test_results_kept_but_damaged_are_trained_again(stages, capfd):
    whole = undisturbed(stages, "finetune", **SHORT)
    before = whole.repeatable
    whole.model.write_bytes(b"damaged in place, and with it the copy that is kept")
    assert run(stages, "finetune", whole.folder, **SHORT) == 0
    assert "damaged; the run is done again" in capfd.readouterr().err
    assert Result(whole.folder).repeatable == before


def test_of_two_processes_on_one_run_one_trains_and_the_other_takes_its_results(stages, capfd):
    whole = undisturbed(stages, "finetune", **LONG)
    capfd.readouterr()
    output = stages.folder / "out"
    both = [start(stages, "finetune", output, **LONG) for _ in range(2)]
    assert [wait(pid) for pid in both] == [0, 0]
    said = capfd.readouterr().err
    assert said.count("finetune: done, ") == 1
    assert said.count("another process is working on this run") <= 1
    assert said.count("finished before") == 1
    assert Result(output).repeatable == whole.repeatable


def test_the_process_that_waits_takes_over_when_the_first_is_killed(stages, capfd):
    whole = undisturbed(stages, "finetune", **LONG)
    output = stages.folder / "out"
    stage, line = stages.arguments("finetune", output, **LONG)

    def slowly():
        save = state.RunState.save
        state.RunState.save = lambda self, position: (save(self, position), time.sleep(0.2))[0]
        return MAINS[stage](line)

    first = fork(slowly)
    deadline = time.monotonic() + 20
    while not list(stages.folder.glob("out.state/*/previous.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    second = start(stages, "finetune", output, **LONG)
    while "another process" not in (said := capfd.readouterr().err) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert "another process is working on this run" in said
    os.kill(first, signal.SIGKILL)
    assert wait(first) == -signal.SIGKILL
    assert wait(second) == 0
    assert "resuming at" in capfd.readouterr().err
    assert Result(output).repeatable == whole.repeatable


def without_locks():
    """A file system such as Lustre without the mount option `flock`."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    state.fcntl.lockf = refuse


@pytest.mark.parametrize("changes", [LONG, {**SHORT, "seeding": "split_only"}], ids=["long", "drawn seed"])
def test_two_processes_on_one_run_without_locks_leave_the_same_whole_result(stages, changes, capfd):
    output = stages.folder / "out"
    stage, line = stages.arguments("finetune", output, **changes)

    def command():
        without_locks()
        return MAINS[stage](line)

    both = [fork(command) for _ in range(2)]
    assert [wait(pid) for pid in both] == [0, 0]
    said = capfd.readouterr().err
    assert said.count("warning: no locks in ") == 2
    result = Result(output)
    seed = result.document["provenance"]["seed"]
    assert run(stages, "finetune", stages.folder / "whole", **{**changes, "seed": seed, "seeding": "everything"}) == 0
    whole = Result(stages.folder / "whole")
    assert result.model.read_bytes() == whole.model.read_bytes()
    assert result.metrics == whole.metrics
    assert {path.name for path in output.iterdir()} == {path.name for path in whole.folder.iterdir()}
    sums = {name: file_sha256(output / name) for name in result.document["outputs"]}
    assert sums == result.document["outputs"], "files of one of the two, not of both"


def test_two_processes_without_locks_killed_at_random_instants(stages):
    chance = random.Random(0)
    began = time.monotonic()
    whole = undisturbed(stages, "finetune", **LONG)
    duration = time.monotonic() - began
    output = stages.folder / "out"
    stage, line = stages.arguments("finetune", output, **LONG)

    def command():
        without_locks()
        return MAINS[stage](line)

    for _ in range(3):
        victim, other = fork(command), fork(command)
        time.sleep(chance.uniform(0, duration))
        os.kill(victim, signal.SIGKILL)
        assert wait(victim) in (0, -signal.SIGKILL)
        assert wait(other) == 0
        assert Result(output).repeatable == whole.repeatable
        shutil.rmtree(output)
        shutil.rmtree(f"{output}.state")


def test_a_killed_measurement_of_geometry_leaves_nothing_half(stages, encoder):
    flags = {"test_images": 10, "images": 16, "probe_epochs": 1, "seed": 1, "encoder": encoder} | MODEL
    line = [word for key, value in flags.items() for word in (settings.flag(key), settings.text(value))]
    line += ["--store", str(stages.stores / "pets" / "all.json")]

    def measure(name: str, hook=lambda: None) -> int:
        places = ["--output", str(stages.folder / name), "--state-dir", str(stages.folder / f"{name}.state")]

        def command():
            hook()
            return geometry.main([*line, *places])

        return wait(fork(command))

    def measured(name: str) -> tuple:
        folder = stages.folder / name
        return Result(folder).metrics, (folder / "similarity.npz").read_bytes(), len(list(folder.iterdir()))

    counter = stages.folder / "calls"
    assert measure("whole", Fuse(None, counter=counter)) == 0
    points = range(1, int(counter.read_text()) + 1)
    for number in random.Random(0).sample(points, min(max(KILLS // 2, 8), len(points))):
        name = f"killed-{number}"
        assert measure(name, Fuse(number)) == -signal.SIGKILL
        if (stages.folder / name / "metrics.json").exists():  # the last file to be put in place
            assert measured(name) == measured("whole")
        assert measure(name) == 0
        assert measured(name) == measured("whole")


def test_a_seed_left_to_chance_stays_when_the_run_is_killed(stages):
    output = stages.folder / "out"
    chance = {"seeding": "split_only"}
    assert run(stages, "finetune", output, stop_at(3), **LONG, **chance) == -signal.SIGKILL
    [kept] = stages.folder.glob("out.state/*/seed.json")
    seed = json.loads(kept.read_text())
    assert run(stages, "finetune", output, stop_at(9), **LONG, **chance) == -signal.SIGKILL
    assert run(stages, "finetune", output, **LONG, **chance) == 0
    assert Result(output).document["provenance"]["seed"] == seed
    assert run(stages, "finetune", stages.folder / "whole", **LONG, seed=seed) == 0
    assert Result(output).model.read_bytes() == Result(stages.folder / "whole").model.read_bytes()


def test_a_finished_run_leaves_no_position_behind(stages):
    whole = undisturbed(stages, "finetune", **LONG)
    [folder] = stages.folder.glob("whole-finetune.state/*")
    assert {path.name for path in folder.iterdir()} == {"run.json", "lock", "done"}
    assert {path.name for path in whole.folder.iterdir()} == {
        "model.safetensors", "metrics.json", "history.jsonl", "examples.npz",
    }  # fmt: skip


def test_other_settings_are_another_run(stages, capfd):
    output = stages.folder / "out"
    assert run(stages, "finetune", output, stop_at(6), **LONG) == -signal.SIGKILL
    capfd.readouterr()
    assert run(stages, "finetune", output, **LONG, contrast=0.1) == 0
    assert "resuming" not in capfd.readouterr().err
    assert run(stages, "finetune", output, **LONG) == 0
    assert "resuming" in capfd.readouterr().err
