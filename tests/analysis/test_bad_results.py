"""Results that are damaged, foreign or of another version: one message with the file, and no table from them."""
# ruff: noqa: E501, one line a mistake reads best

import json
import math
import re

import pandas as pd
import pytest
from invented import declaration, fill

from viny.analysis import collect
from viny.study import Study

GRID = {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32], "seeds": [1]}
AGAIN = "delete it and run snakemake again"


def changed(**sections):
    """A change of metrics.json: sections replaced, or (by a dictionary) entries of them."""

    def change(text: str) -> str:
        document = json.loads(text)
        for name, value in sections.items():
            if isinstance(value, dict) and isinstance(document.get(name), dict):
                document[name] |= value
            else:
                document[name] = value
        return json.dumps(document)

    return change


def without(*path):
    """A change of metrics.json: an entry removed."""

    def change(text: str) -> str:
        document = node = json.loads(text)
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]
        return json.dumps(document)

    return change


DAMAGES = {
    "empty": (lambda text: "", f"is damaged .*; {AGAIN}"),
    "cut off": (lambda text: text[: len(text) // 2], f"is damaged .*; {AGAIN}"),
    "noise": (lambda text: "\x00\x01 noise", f"is damaged .*; {AGAIN}"),
    "a list": (lambda text: "[1, 2]", f"lacks stage, .*not a viny result; {AGAIN}"),
    "a number": (lambda text: "3", f"lacks stage, .*not a viny result; {AGAIN}"),
    "foreign": (lambda text: '{"accuracy": 0.9}', f"lacks stage, .*not a viny result; {AGAIN}"),
    "without metrics": (without("metrics"), f"lacks metrics: not a viny result; {AGAIN}"),
    "of an older version": (changed(schema=0), f"has format 0, this version of viny reads 1; {AGAIN}, or use the version"),
    "of a newer version": (changed(schema=2), "has format 2, this version of viny reads 1"),
    "without a version": (without("schema"), "has format None, this version of viny reads 1"),
    "metrics are a list": (changed(metrics=[1]), f"is damaged .metrics is no section.; {AGAIN}"),
    "coordinates are text": (changed(coordinates="here"), f"is damaged .coordinates is no section.; {AGAIN}"),
    "cost is null": (changed(cost=None), f"is damaged .cost is no section.; {AGAIN}"),
    "no score": (without("metrics", "miou"), f"is damaged .metrics: 'miou' is a required property.; {AGAIN}"),
    "a score that is text": (changed(metrics={"miou": "0.5"}), "is damaged .metrics.miou: '0.5' is not of type 'number'"),
    "a score above all": (changed(metrics={"miou": 45.2}), "is damaged .metrics.miou: 45.2 is greater than the maximum"),
    "a negative score": (changed(metrics={"pixel_accuracy": -0.1}), "is damaged .metrics.pixel_accuracy: -0.1 is less"),
    "classes missing": (changed(metrics={"class_iou": {"border": 0.1}}), "is damaged .metrics.class_iou: 'foreground' is a"),
    "a confusion of two classes": (changed(metrics={"confusion": [[1, 2], [3, 4]]}), "is damaged .metrics.confusion"),
    "of another cell": (changed(coordinates={"downstream": 64}), f"belongs to .* it was moved or copied: {AGAIN}"),
    "of another study": (changed(coordinates={"study": "older"}), "was made for the study older, not toy; move the folders"),
    "of another stage": (changed(stage="geometry"), f"belongs to geometry .*: {AGAIN}"),
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    """A whole study with tables."""
    declared = declaration(tmp_path, **GRID)
    made = Study.from_config(declared)
    fill(made)
    assert start(declared, made) == 0
    return declared, made


def start(declared, study) -> int:
    return collect.main(["--config", json.dumps(declared), "--output", str(study.folder)])


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_result_is_named_and_the_tables_stay(study, name, capsys):
    damage, message = DAMAGES[name]
    declared, made = study
    [victim, _] = made.jobs("finetune")
    victim.metrics.write_text(damage(victim.metrics.read_text()))
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert start(declared, made) == 1
    said = capsys.readouterr().err
    assert re.match(f"viny: error: {re.escape(str(victim.metrics))} ({message})", said), said
    assert "Traceback" not in said
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before


def test_a_class_that_never_occurs_is_an_empty_field(study):
    declared, made = study
    [one, other] = made.jobs("finetune")
    one.metrics.write_text(
        changed(metrics={"class_iou": {"foreground": 0.6, "background": 0.5, "border": None}})(one.metrics.read_text())
    )
    assert start(declared, made) == 0
    cells = pd.read_csv(made.folder / "cells.csv").set_index("pretrain")
    assert math.isnan(cells.loc[one.coordinates["pretrain"], "iou_border_percent"])
    assert not math.isnan(cells.loc[other.coordinates["pretrain"], "iou_border_percent"])


@pytest.mark.parametrize("content", ["{", "3\n", '{"epoch": 1}\n', '{"epoch": 1, "loss": "x"}\n', "\x00"])
def test_a_damaged_history_is_named(study, content, capsys):
    declared, made = study
    path = made.jobs("finetune")[0].folder / "history.jsonl"
    path.write_text(content)
    assert start(declared, made) == 1
    assert f"viny: error: {path} is damaged" in capsys.readouterr().err


def test_a_folder_where_a_result_should_be_is_named(study, capsys):
    declared, made = study
    path = made.jobs("finetune")[0].metrics
    path.unlink()
    path.mkdir()
    assert start(declared, made) == 1
    assert f"viny: error: Is a directory ({path})" in capsys.readouterr().err
