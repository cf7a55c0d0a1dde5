"""Every state of a job is recognized, from files alone, and shown."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from fabricate import DEVICE, change, fill, jobs, make_study, remove, write_log, write_store
from rich.console import Console

from viny import cli
from viny.commands import estimates, status, statusview
from viny.grid import Job, StoreSpec, Study
from viny.survey import analysis_key

SEEN = {
    "epoch": 3, "epochs": 10, "samples_seen": 250, "samples": 1000, "images_per_second": 50.0, "seconds_left": 15.0
}  # fmt: skip


def begin(job: Job, pid: int | None = None, age: float = 0.0, key: str | None = None, **changes) -> Path:
    """The state folder of a job that has begun; its process, this one by default, published progress a while ago."""
    folder = job.state / f"{job.stage}-{key or job.key}"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"job": job.name, "run": key or job.key}))
    (folder / "state.pt").touch()
    pid = pid or os.getpid()
    started = psutil.Process(pid).create_time()
    writer = {"host": socket.gethostname(), "pid": pid, "started": started, "time": time.time() - age}
    (folder / "progress.json").write_text(json.dumps(SEEN | writer | changes))
    return folder


def analyzed(study: Study) -> None:
    """The analysis of a study."""
    for name in ("cells.csv", "overview.html"):
        (study.folder / name).touch()
    (study.folder / "settings.json").write_text(json.dumps({"key": analysis_key(study)}))


def state_of(study: Study, job: Job | StoreSpec | None) -> status.Status:
    """The status of a job, a store or (None) the analysis."""
    name = "analysis" if job is None else job.name
    if isinstance(job, StoreSpec):
        name = f"stores/{job.place}"
    return next(found for found in status.look(study).statuses if found.name == name)


def shown(study: Study, width: int = 100) -> list[str]:
    """The lines of the picture."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(statusview.picture(status.look(study)))
    return console.file.getvalue().splitlines()


def test_done_and_waiting(done):
    job = jobs(done, "finetune")[0]
    analyzed(done)
    assert {found.state for found in status.look(done).statuses} == {"done"}
    remove(job)
    assert state_of(done, job).state == "waiting"


def test_a_run_is_running_until_its_process_dies(study):
    job = jobs(study, "pretrain")[0]
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    begin(job, process.pid, age=5)
    found = state_of(study, job)
    assert found.state == "running"
    assert found.progress["seconds_left"] == pytest.approx(10, abs=1)
    process.kill()
    process.communicate()
    assert state_of(study, job).state == "interrupted"


def test_a_number_that_another_process_has_now_is_no_sign_of_life(study):
    job = jobs(study, "pretrain")[0]
    begin(job, started=1.0)
    assert state_of(study, job).state == "interrupted"


@pytest.mark.parametrize(("age", "state"), [(5, "running"), (3600, "interrupted")])
def test_on_another_machine_fresh_progress_decides(study, age, state):
    job = jobs(study, "finetune")[0]
    begin(job, age=age, host="elsewhere")
    assert state_of(study, job).state == state


def test_results_kept_aside_are_not_taken_for_a_run(study):
    job = jobs(study, "finetune")[0]
    folder = begin(job)
    (folder / "progress.json").unlink()
    (folder / "done").mkdir()
    found = state_of(study, job)
    assert found.state == "interrupted"


@pytest.mark.parametrize("progress", ["", "[]", "{", '{"host": 3, "pid": "x", "started": null, "time": "now"}'])
def test_damaged_progress_is_no_traceback(study, progress):
    job = jobs(study, "finetune")[0]
    (begin(job) / "progress.json").write_text(progress)
    assert state_of(study, job).state == "interrupted"


def test_a_position_of_other_settings_is_not_carried_on(study):
    job = jobs(study, "finetune")[0]
    begin(job, started=1.0, key="before")
    assert state_of(study, job).state == "waiting"


def test_a_running_variant_is_not_taken_for_the_study_itself(config):
    study = make_study(config | {"variants": {"raw": {"finetune": {"normalize": False}}}})
    cell = jobs(study, "finetune", "raw")[0]
    begin(cell)
    assert [found.name for found in status.look(study).having("running")] == [cell.name]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (["INFO decoding", "ERROR the loss is nan", "  lower it"], "the loss is nan"),
        (["INFO x", "ERROR unexpected error, please report it", "Traceback (most recent call last):", "  File", "    y",
          "RuntimeError: boom"], "RuntimeError: boom"),
    ],
)  # fmt: skip
def test_an_error_at_the_end_of_the_log_is_a_failure(study, log, message):
    job = jobs(study, "finetune")[0]
    begin(job, started=1.0)
    write_log(job.log, *log)
    found = state_of(study, job)
    assert (found.state, found.message) == ("failed", message)


def test_an_error_of_an_attempt_before_the_result_says_nothing(done):
    job = jobs(done, "finetune")[0]
    write_log(job.log, "ERROR the first attempt")
    assert state_of(done, job).state == "done"


def test_at_the_end_the_failed_jobs_are_named_with_their_logs(study, caplog):
    for job in jobs(study, "finetune")[:2]:
        write_log(job.log, f"ERROR {job.name}: the loss is nan")
    status.say_end(study)
    one, other = jobs(study, "finetune")[:2]
    [said] = caplog.messages
    assert said.startswith("2 jobs failed, 0 of 22 runs done")
    assert said.splitlines()[1:] == [f"  {one.name} ({one.log})", f"  {other.name} ({other.log})"]


def test_at_the_end_of_a_run_that_was_stopped_what_is_done_is_said(done, caplog):
    remove(jobs(done, "finetune")[0])
    with caplog.at_level("INFO", "viny"):
        status.say_end(done)
    assert caplog.messages == ["stopped with 21 of 22 runs done; the same command carries on"]


@pytest.mark.parametrize("height", [12, 24, 50])
def test_on_a_screen_of_any_height_what_failed_and_runs_is_seen_first(study, height, monkeypatch):
    """More jobs than lines, each with something else to say; what does not fit is counted."""
    failing, running = jobs(study, "finetune")[:12], [*jobs(study, "pretrain"), *jobs(study, "finetune")[12:]]
    for number, job in enumerate(failing):
        write_log(job.log, f"ERROR reason {number}")
    for number, job in enumerate(running):
        begin(job, seconds_left=100.0 * number)
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True, color_system=None)
    monkeypatch.setattr(statusview.terminal, "console", lambda: console)
    with statusview.screen(True) as show:
        show(status.look(study))
        drawn = [line.rstrip() for line in console.file.getvalue().splitlines()][:height]
    assert "toy: 0 of 22 runs done" in drawn[0]
    assert "failed" in drawn
    assert "    reason 0" in drawn
    assert "running" in drawn
    assert f"  {running[0].name}" in drawn


def test_a_run_that_starts_again_after_a_failure_is_running(study):
    job = jobs(study, "finetune")[0]
    write_log(job.log, "ERROR the first attempt")
    begin(job)
    assert state_of(study, job).state == "running"


def test_what_has_changed_since_is_said(done, config):
    config["finetune"]["epochs"] = 5
    study = make_study(config)
    found = status.look(study)
    assert found.counts["outdated"] == len(jobs(study, "finetune"))
    assert found.exit_code == 3
    lines = shown(study)
    assert "    finetune.epochs was 4, is 5" in lines
    assert any(line.endswith(f"and {len(jobs(study, 'finetune')) - 1} more") for line in lines)


def test_results_of_the_earlier_format_are_outdated(study):
    fill(study, version=1)
    found = status.look(study)
    assert found.counts == {"outdated": len(study.jobs)}
    assert {each.message for each in found.having("outdated")} == {"it was made by an earlier version of viny"}


def test_what_nothing_needs_any_more_is_left_out(done):
    analyzed(done)
    encoder = jobs(done, "pretrain")[0]
    remove(encoder)
    for store in done.stores:
        store.manifest.unlink()
    found = status.look(done)
    assert (found.counts["done"], found.exit_code) == (len(done.jobs) - 1, 0)
    cell = next(job for job in jobs(done, "finetune") if job.upstream is encoder)
    remove(cell)
    for waiting in (None, encoder, cell, cell.store, encoder.store):
        assert state_of(done, waiting).state == "waiting"
    assert len(status.look(done).having("waiting")) == 5


def test_an_encoder_of_earlier_code_that_nothing_starts_from_again_is_left_out(done):
    analyzed(done)
    encoder = jobs(done, "pretrain")[0]
    change(encoder, lambda document: document["provenance"].update(key="earlier", code="earlier"))
    assert status.look(done).exit_code == 0
    remove(next(job for job in jobs(done, "finetune") if job.upstream is encoder))
    assert state_of(done, encoder).state == "outdated"


def test_deleted_weights_that_are_needed_again_are_waited_for(done):
    encoder = jobs(done, "pretrain")[0]
    encoder.checkpoint.unlink()
    assert state_of(done, encoder).state == "done"
    remove(next(job for job in jobs(done, "finetune") if job.upstream is encoder))
    assert "its weights are gone" in state_of(done, encoder).message


def test_a_failed_decoding_is_shown(study, configfile, capsys):
    store = study.stores[0]
    write_log(store.log, "ERROR there is no folder data/imagenet")
    assert cli.main(["status", "--configfile", configfile]) == 1
    said = capsys.readouterr().out
    assert "there is no folder data/imagenet" in said
    assert str(store.log) in said


def test_a_store_that_is_decoded_says_how_far_it_is(study):
    store = study.stores[0]
    write_log(store.log, "INFO decoding pets: 12%")
    found = state_of(study, store)
    assert (found.state, found.message) == ("running", "decoding pets: 12%")
    os.utime(store.log, (0, 0))
    assert state_of(study, store).state == "waiting"


def test_the_analysis_counts_as_well(done, configfile):
    assert state_of(done, None).state == "waiting"
    assert cli.main(["status", "--configfile", configfile]) == 3
    write_log(Path("logs/toy/analyze.log"), "ERROR cells.csv cannot be written")
    assert state_of(done, None).state == "failed"
    assert cli.main(["status", "--configfile", configfile]) == 1
    analyzed(done)
    assert cli.main(["status", "--configfile", configfile]) == 0
    (done.folder / "settings.json").write_text('{"key": "other"}')
    assert state_of(done, None).state == "outdated"
    assert cli.main(["status", "--configfile", configfile]) == 3


def test_jobs_are_counted_by_stage_and_variant(config):
    study = make_study(config | {"variants": {"raw": {"finetune": {"normalize": False}}}})
    fill(study)
    remove(jobs(study, "finetune")[0])
    remove(jobs(study, "finetune", "raw")[0])
    lines = [line.split() for line in shown(study)]
    assert lines[2] == ["done", "waiting"]
    assert ["images", "3"] in lines
    assert ["finetune", "15", "1"] in lines
    assert ["variant", "raw", "15", "1"] in lines


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_is_wider_than_the_screen(config, width):
    config["grid"] |= {"downstream": [32, 64, 128, 250, 500, 1000, 2000, 4000], "seeds": [1, 2, 3]}
    study = make_study(config)
    fill(study)
    remove(jobs(study, "finetune")[0])
    write_log(jobs(study, "finetune")[0].log, "ERROR the loss is nan " * 20)
    lines = shown(study, width)
    assert max(map(len, lines)) <= width


def test_time_left_of_the_whole_study(done, monkeypatch):
    monkeypatch.setattr(estimates, "this_device", lambda compute: (DEVICE, 1))
    cells = [job for job in jobs(done, "finetune") if job.coordinates["downstream"] == 128]
    remove(cells[0])
    remove(cells[1])
    assert status.look(done).seconds_left == pytest.approx(2 * (2.0 + 4 * 128 / 100 + 0.5))
    begin(cells[0])
    assert status.look(done).seconds_left == pytest.approx(15.0 + 2.0 + 4 * 128 / 100 + 0.5, abs=1)


def test_json_names_every_job(done, configfile, capsys):
    remove(jobs(done, "finetune")[0])
    assert cli.main(["status", "--configfile", configfile, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"done": len(done.jobs) - 1, "waiting": 1}
    waiting = [job for job in document["jobs"] if job["state"] == "waiting"]
    assert [job["stage"] for job in waiting] == ["finetune", "analysis"]
    assert waiting[0]["coordinates"]["seed"] == 1


def test_watching_ends_when_all_is_done(done, configfile):
    analyzed(done)
    assert cli.main(["status", "--configfile", configfile, "--watch", "60"]) == 0


def test_watching_ends_when_something_failed_and_nothing_runs(study, configfile, monkeypatch, capsys):
    job, other = jobs(study, "finetune")[:2]
    write_log(job.log, "ERROR the loss is nan")
    folder = begin(other)
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        (folder / "progress.json").write_text("{}")

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert cli.main(["status", "--configfile", configfile, "--watch", "7"]) == 1
    assert looks == [7]
    said = capsys.readouterr().out.splitlines()
    assert "    the loss is nan" in said


def test_watching_ends_when_snakemake_is_gone_and_nothing_runs(study, configfile, monkeypatch, capsys):
    note = Path(".snakemake/drivers/x.json")
    note.parent.mkdir(parents=True)
    monkeypatch.setattr(status.time, "sleep", lambda seconds: note.write_text(json.dumps(driver | {"started": 1.0})))
    driver = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    note.write_text(json.dumps(driver))
    assert cli.main(["status", "--configfile", configfile, "--watch"]) == 3
    assert "no Snakemake works on it any more; start it again" in capsys.readouterr().err


def test_watching_is_interrupted_with_the_state_as_exit_code(study, configfile, monkeypatch):
    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", sleep)
    assert cli.main(["status", "--configfile", configfile, "--watch"]) == 3


@pytest.mark.parametrize("seconds", ["-1", "0", "0.5", "nan", "soon"])
def test_an_interval_that_is_none_is_wrong_usage(study, configfile, seconds, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--configfile", configfile, "--watch", seconds])
    assert ended.value.code == 2
    assert "is not a positive whole number" in capsys.readouterr().err


def test_looking_changes_nothing(study):
    for store in study.stores:
        write_store(store)
    begin(jobs(study, "finetune")[0])
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*")}
    status.look(study)
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*")} == before


def test_a_damaged_result_is_outdated_and_no_traceback(done):
    job = jobs(done, "finetune")[0]
    change(job, lambda document: document.update(provenance=3))
    assert "damaged" in state_of(done, job).message
