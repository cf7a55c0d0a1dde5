"""Every state of a job is recognized, from files alone, and shown."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fabricate import fill, remove, write_log

from viny import cli
from viny.operations import progress, status, terminal
from viny.operations.progress import lock_held
from viny.study import Study

PROGRESS = {
    "epoch": 3, "epochs": 10, "images": 250, "image_passes": 1000, "images_per_second": 50.0, "seconds_left": 15.0
}  # fmt: skip


@pytest.fixture(autouse=True)
def locks_are_seen(monkeypatch):
    """Whatever file system the tests run on."""
    monkeypatch.setattr(progress, "locks_tell", lambda folder: True)


def begin(study: Study, job, age: float = 0.0, **changes) -> Path:
    """The state folder of a job that has begun, its progress written `age` seconds ago."""
    folder = study.state / f"{job.stage}-{abs(hash(job))}"
    folder.mkdir(parents=True)
    identity = {"coordinates": {"study": study.name, **job.coordinates}}
    (folder / "run.json").write_text(json.dumps({"stage": job.stage, "identity": identity}))
    (folder / "lock").touch()
    (folder / "progress.json").write_text(json.dumps(PROGRESS | changes))
    then = time.time() - age
    for name in ("run.json", "progress.json"):
        os.utime(folder / name, (then, then))
    return folder


def state_of(study: Study, job) -> status.JobStatus:
    return next(found for found in status.gather(study) if found.job == job)


@pytest.fixture
def holder():
    """Starts processes that hold the lock of a state folder."""
    started = []

    def hold(folder: Path) -> subprocess.Popen:
        code = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
        code += "print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", code, str(folder / "lock")]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        process.stdout.readline()
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


def test_done_and_waiting(done):
    job = done.jobs("finetune")[0]
    assert {found.state for found in status.gather(done)} == {"done"}
    remove(job)
    assert state_of(done, job).state == "waiting"


def test_a_locked_run_is_running_until_its_process_dies(study, holder):
    job = study.jobs("pretrain")[0]
    folder = begin(study, job, age=5)
    process = holder(folder)
    found = state_of(study, job)
    assert found.state == "running"
    assert found.progress["seconds_left"] == pytest.approx(10, abs=1)
    process.kill()
    process.wait()
    assert state_of(study, job).state == "interrupted"


def test_looking_at_a_lock_does_not_take_it(study, holder):
    folder = begin(study, study.jobs("pretrain")[0])
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not lock_held(folder / "lock")
    process = holder(folder)  # would wait if looking had left a lock
    assert lock_held(folder / "lock")
    assert process.poll() is None
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(("age", "state"), [(5, "running"), (3600, "interrupted")])
def test_where_locks_are_not_seen_fresh_progress_decides(study, monkeypatch, age, state):
    monkeypatch.setattr(progress, "locks_tell", lambda folder: False)
    job = study.jobs("finetune")[0]
    begin(study, job, age)
    assert state_of(study, job).state == state


@pytest.mark.parametrize("locks_tell", [True, False])
def test_results_kept_aside_are_not_taken_for_a_run(study, monkeypatch, locks_tell):
    monkeypatch.setattr(progress, "locks_tell", lambda folder: locks_tell)
    job = study.jobs("finetune")[0]
    folder = begin(study, job)
    (folder / "progress.json").unlink()
    (folder / "done").mkdir()
    found = state_of(study, job)
    assert found.state == "interrupted"
    assert "puts them back" in found.message


def test_the_state_of_another_study_says_nothing(study, config):
    job = study.jobs("finetune")[0]
    folder = begin(study, job)
    run = json.loads((folder / "run.json").read_text())
    run["identity"]["coordinates"]["study"] = "other"
    (folder / "run.json").write_text(json.dumps(run))
    assert state_of(study, job).state == "waiting"


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("decoding\nviny: error: the loss is nan\n  lower it\n", "viny: error: the loss is nan"),
        ("x\nTraceback (most recent call last):\n  File\n    y\nRuntimeError: boom\n", "RuntimeError: boom"),
    ],
)
def test_an_error_at_the_end_of_the_log_is_a_failure(study, log, message):
    job = study.jobs("finetune")[0]
    begin(study, job, age=3600)
    write_log(study, job, log)
    found = state_of(study, job)
    assert (found.state, found.message) == ("failed", message)


def test_an_error_of_an_attempt_before_the_result_says_nothing(done):
    job = done.jobs("finetune")[0]
    write_log(done, job, "viny: error: the first attempt\n")
    assert state_of(done, job).state == "done"


def test_a_run_that_starts_again_after_a_failure_is_running(study, holder):
    job = study.jobs("finetune")[0]
    write_log(study, job, "viny: error: the first attempt\n")
    holder(begin(study, job))
    assert state_of(study, job).state == "running"


def test_a_failed_decoding_is_shown(study, configfile, capsys):
    store = study.stores()[0]
    log = status.store_log(study, store)
    log.parent.mkdir(parents=True)
    log.write_text("viny: error: there is no folder data/imagenet\n")
    assert cli.main(["status", "--configfile", configfile]) == 0
    shown = capsys.readouterr().out
    assert "there is no folder data/imagenet" in shown
    assert str(log) in shown


def test_the_grid_has_a_symbol_for_every_seed(config, tmp_path, monkeypatch, configfile, capsys):
    monkeypatch.chdir(tmp_path)
    config["grid"]["exclude"] = [{"pretrain": 0, "intermediate": "cls_intel"}, {"downstream": 128, "seed": 1}]
    Path(configfile).write_text(json.dumps(config))
    study = Study.from_config(config)
    fill(study)
    remove(study.jobs("finetune")[1])  # pretrain=0 intermediate=none downstream=32 seed=2
    cli.main(["status", "--configfile", configfile])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "           0             ■·    ■" in lines
    assert "         256   ■■        ■■    ■" in lines
    assert sum(line.startswith("           0") for line in lines) == 1  # no row without cells


def test_many_seeds_are_counted(config, tmp_path, monkeypatch, configfile, capsys):
    monkeypatch.chdir(tmp_path)
    config["grid"] |= {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": list(range(12))}
    Path(configfile).write_text(json.dumps(config))
    study = Study.from_config(config)
    fill(study)
    remove(study.jobs("finetune")[3])
    write_log(study, study.jobs("finetune")[3], "viny: error: x\n")
    cli.main(["status", "--configfile", configfile])
    assert "11/12✗" in capsys.readouterr().out


def test_json_names_every_job(done, configfile, capsys):
    remove(done.jobs("finetune")[0])
    cli.main(["status", "--configfile", configfile, "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"done": len(done.stores()) + len(done.jobs()) - 1, "waiting": 1}
    assert {"stage": "finetune", "state": "waiting"}.items() <= next(
        job for job in document["jobs"] if job["state"] == "waiting"
    ).items()


def test_watching_ends_when_all_is_done(done, configfile, capsys):
    assert cli.main(["status", "--configfile", configfile, "--watch", "60"]) == 0


def test_symbols_in_ascii(monkeypatch):
    monkeypatch.setattr(terminal, "_unicode", lambda: False)
    assert "".join(map(terminal.symbol, terminal.SYMBOLS)) == "#>~x."


def test_commands_start_without_heavy_imports():
    code = "import sys; from viny import cli; cli.parser(); import viny.operations.status, viny.operations.statusview;"
    code += "print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == "[]"


def test_a_missing_config_is_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["status"]) == 1
    assert "there is no config file config.yaml" in capsys.readouterr().err


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
