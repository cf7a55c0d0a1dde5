"""Lines reach terminal and log; progress tells rate and remaining time."""

from viny import console


def test_lines_go_to_the_log_too(tmp_path, capsys):
    console.open_log(tmp_path / "logs" / "job.log")
    console.say("hello")
    console.open_log(None)
    console.say("not in the log")
    assert (tmp_path / "logs" / "job.log").read_text() == "hello\n"
    assert capsys.readouterr().err == "hello\nnot in the log\n"


def test_progress_counts_the_rate_from_where_this_process_started(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    progress = console.Progress("job", total=1000, done=400)
    clock[0] += 10
    progress.advance(100)
    assert progress.rate == 10
    assert progress.remaining == 50
    assert progress.line("epoch 3") == "job:  50% · 10 images/s · 0:00:50 left · epoch 3"


def test_progress_speaks_at_most_every_so_often_and_at_the_end(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    items = console.progress(range(50), "job", 50, unit="files")
    for _ in items:
        clock[0] += 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert lines[-1] == "job: done, 50 files in 0:00:50 (1/s)"


def test_durations_are_readable():
    assert console.duration(3725.2) == "1:02:05"
