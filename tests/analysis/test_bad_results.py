"""Damaged and foreign results: one message with the file, and the files of an earlier analysis stay."""

import math
import re

import pytest
from invented import change, fill, jobs, run, study_of

from viny.analysis.analyze import analyze
from viny.analysis.observed import from_study
from viny.errors import VinyError

GRID = {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32], "seeds": [1], "geometry": False}


@pytest.fixture
def study(tmp_path):
    """A whole study with tables."""
    made = study_of(tmp_path, **GRID)
    fill(made)
    analyze(from_study(made), made.folder, {"cells"})
    return made


DAMAGES = {
    "cut off": lambda text: text[: len(text) // 2],
    "a list": lambda text: "[1, 2]",
    "of a newer version": lambda text: text.replace('"schema": 2', '"schema": 9'),
    "a score that is text": lambda text: text.replace('"miou": 0.4', '"miou": "0.4"').replace('"miou": ', '"miou": "x'),
    "a stage that is a list": lambda text: text.replace('"stage": "finetune"', '"stage": ["finetune"]'),
    "settings that are no section": lambda text: re.sub('"finetune": {[^{}]*}', '"finetune": null', text),
    "of another study": lambda text: text.replace('"study": "toy"', '"study": "older"'),
    "of another cell": lambda text: text.replace('"downstream": 32', '"downstream": 64'),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_result_is_named_and_the_tables_stay(study, name):
    victim = jobs(study, "finetune")[0].metrics
    victim.write_text(DAMAGES[name](victim.read_text()))
    before = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    with pytest.raises(VinyError, match=r"metrics\.json") as error:
        analyze(from_study(study), study.folder)
    assert str(victim) in str(error.value)
    assert {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()} == before


def test_a_class_that_never_occurs_is_an_empty_field(study):
    def without_border(result):
        score = 0.4 + 0.1
        wrong = round(10**9 * (1 - score) / score / 2)
        confusion = [[10**9, wrong, 0], [wrong, 10**9, 0], [0, 0, 0]]
        iou = {"foreground": score, "background": score, "border": None}
        right = 10**9 / (10**9 + wrong)
        result["metrics"] |= {"confusion": confusion, "class_iou": iou, "miou": score, "pixel_accuracy": right}

    change(run(study, 0, "none", 32, 1), without_border)
    cells = from_study(study).cells.set_index("pretrain")
    assert math.isnan(cells.loc[0, "iou_border_percent"])
    assert not math.isnan(cells.loc[256, "iou_border_percent"])


@pytest.mark.parametrize("content", ["{", "3\n", '{"epoch": 1}\n', "\x00"])
def test_a_damaged_history_is_named(study, content):
    path = jobs(study, "finetune")[0].folder / "history.jsonl"
    path.write_text(content)
    with pytest.raises(VinyError, match="is damaged") as error:
        from_study(study)
    assert str(path) in str(error.value)
