"""The table of scores, of results that are there, partly there or in a file, in terminals of all widths."""

import io
import json
import shutil

import pytest
from fabricate import jobs, remove

from viny import cli
from viny.commands import scores, terminal


@pytest.fixture(autouse=True)
def readable(done) -> None:
    """The invented images and curves are none that could be opened; a table of scores needs none."""
    shutil.rmtree(done.config.stores)
    for curve in done.folder.rglob("history.jsonl"):
        curve.write_text("")


@pytest.fixture
def printed(configfile, capsys):
    """The lines that a command line with the toy study prints."""

    def lines(*words: str, named: str = configfile) -> list[str]:
        assert cli.main(["scores", named, *words]) == 0
        return capsys.readouterr().out.splitlines()

    return lines


def test_a_row_for_each_encoder_and_task_and_a_column_for_each_number_of_labels(done, printed):
    heading, _, columns, *rows = printed()
    assert heading == "toy: mIoU (%) by number of labels, mean and standard error of 16 runs"
    assert columns.split() == ["start", "task", "32", "128"]
    assert [row[:24].split() for row in rows] == [
        ["random", "start", "none"],
        ["random", "start", "CLS-Intel"],
        ["256", "images", "none"],
        ["256", "images", "CLS-Intel"],
    ]
    assert rows[0].split()[-3:] == ["52.4", "±", "0.0"]


def test_missing_runs_and_cells_are_shown(done, printed):
    first, second, third = jobs(done, "finetune")[:3]
    for job in (first, second, third):  # both runs of a cell, and one of another
        remove(job)
    heading, _, _, row, *_, note = printed()
    assert heading.endswith("of 13 of 16 runs")
    assert row.split() == ["random", "start", "none", "-", "52.4", "(1", "of", "2)"]
    assert note == "-: no run of this cell is there yet"


def test_a_study_without_results_is_a_table_too(done, printed):
    shutil.rmtree(done.folder)
    assert "0 of 16 runs" in printed()[0]


def test_accuracy_and_standard_deviation(done, printed):
    heading, *_ = printed("--metric", "accuracy", "--spread", "sd")
    assert heading == "toy: pixel accuracy (%) by number of labels, mean and standard deviation of 16 runs"


def test_all_columns_as_csv_and_json(done, printed):
    remove(jobs(done, "finetune")[0])
    remove(jobs(done, "finetune")[1])
    header, first, second, *_ = printed("--csv")
    assert header == ",".join(scores.COLUMNS)
    assert first == "0,,none,32,0,2,,,,,,"
    assert second.startswith("0,,none,128,2,2,52.38")
    [line] = printed("--json")
    document = json.loads(line)
    assert len(document["cells"]) == 8
    assert document["cells"][0]["miou_percent"] is None
    assert document["cells"][1]["miou_sd"] == pytest.approx(0)


def test_the_same_from_a_table_of_cells(done, printed, tmp_path):
    assert cli.main(["analyze", "--config", "study=toy", "--configfile", "toy.yaml", "--only", "cells"]) == 0
    assert printed(named=str(done.folder / "cells.csv")) == printed()


@pytest.mark.parametrize(
    ("width", "last"),
    [
        (80, ["256 images    CLS-Intel  52.4 ± 0.0  52.4 ± 0.0"]),
        (45, ["256 images    CLS-Intel     128  52.4 ± 0.0"]),
        (30, ["256 images, CLS-Intel", "  labels: 128, mIoU: 52.4 ±", "  0.0"]),
    ],
)
def test_the_table_fits_into_the_terminal(done, printed, monkeypatch, width, last):
    monkeypatch.setattr(terminal, "_PIPED", width)
    lines = [line.rstrip() for line in printed()]
    assert lines[-len(last) :] == last
    assert max(map(len, lines)) <= width


def test_a_terminal_without_such_a_sign_shows_another(done, configfile, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    assert cli.main(["scores", configfile]) == 0
    out.flush()
    assert b"52.4 +- 0.0" in out.buffer.getvalue()
