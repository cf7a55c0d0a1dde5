"""`import viny`: light, and with the tables of a study in one call."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import viny
from viny.analysis import published
from viny.analysis.analyze import analyze
from viny.analysis.observed import from_study
from viny.api import Results
from viny.errors import VinyError

TABLES = ("cells", "summary", "effects", "histories", "costs")
DOCUMENTED = Path(__file__).parents[2] / "docs/results.md"


@pytest.fixture
def found(toy) -> Results:
    """The tables of a complete study."""
    analyze(from_study(toy), toy.folder, {"cells", "statistics"})
    return viny.results(toy.folder)


def test_importing_is_light():
    code = "import sys, viny; assert {'encoder', 'results', 'segmenter'} <= set(viny.__all__); "
    code += "print([name for name in ('torch', 'numpy', 'pandas', 'pydantic', 'rich') if name in sys.modules])"
    path = str(Path(viny.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout == "[]\n"


def test_tables_need_no_torch(toy):
    analyze(from_study(toy), toy.folder, {"cells", "statistics"})
    code = (
        "import sys; sys.modules |= dict.fromkeys(['torch', 'timm', 'plotly', 'tensorboard', 'mlflow']); import viny; "
    )
    code += f"print(len(viny.results({str(toy.folder)!r}).cells))"
    path = str(Path(viny.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": path}
    )
    assert (done.stdout, done.stderr) == ("36\n", "")


def test_results_are_the_tables_of_the_study(found, toy):
    assert found.name == "toy"
    assert len(found.cells) == 36
    assert set(found.cells["status"]) == {"done"}
    pd.testing.assert_frame_equal(
        found.cells[["pretrain", "intermediate", "downstream", "seed", "miou_percent"]],
        from_study(toy).cells[["pretrain", "intermediate", "downstream", "seed", "miou_percent"]],
        check_dtype=False,
    )
    assert len(found.summary) == 12
    effect = found.effects.query("family == 'pretrain' and pretrain == 1024 and intermediate == 'none'")
    assert (effect["low"] < effect["effect"]).all()
    assert (effect["effect"] < effect["high"]).all()
    assert set(found.histories["stage"]) <= {"pretrain", "intermediate", "finetune"}
    assert set(found.costs["stage"]) == {"pretrain", "intermediate", "finetune", "geometry"}
    assert found.settings["study"] == "toy"


def test_sizes_are_whole_numbers_where_stages_have_none(found):
    for frame in (found.histories, found.costs):
        assert str(frame["downstream"].dtype) == "Int64"
        assert frame.loc[frame["stage"] == "pretrain", "downstream"].isna().all()


def test_every_column_is_documented(found):
    text = DOCUMENTED.read_text()
    known = set(re.findall(r"`([\w<>]+)`", text))
    for name in TABLES:
        columns = {re.sub("^iou_.*_percent$", "iou_<class>_percent", each) for each in getattr(found, name)}
        assert columns <= known, name


def test_the_published_numbers_in_the_same_form(tmp_path):
    analyze(published.tables(), tmp_path, {"cells", "statistics"})
    found = viny.results(tmp_path)
    assert found.name == "published"
    assert len(found.effects) > 100
    assert found.histories.empty


def test_a_folder_without_tables_says_how_to_get_them(tmp_path):
    with pytest.raises(VinyError, match=r"holds no cells\.csv: name the folder of a study's results"):
        viny.results(tmp_path)
    (tmp_path / "cells.csv").write_text("study\n")
    with pytest.raises(VinyError, match=r"lacks the column\(s\) pretrain"):
        viny.results(str(tmp_path))


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="module 'viny' has no attribute 'result_'"):
        _ = viny.result_
