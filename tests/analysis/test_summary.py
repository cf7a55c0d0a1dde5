"""Means and standard errors of cells; nothing is dropped."""

import numpy as np
import pytest
from scipy import stats
from simulated import drop, study

from viny.analysis.published import published_cells
from viny.analysis.summary import grid, summarize
from viny.errors import VinyError


def test_mean_and_standard_error_over_seeds():
    cells = study(lambda *_: 50, [0], [250], seeds=4)
    row = summarize(cells).iloc[0]
    assert row["n"] == 4
    assert row["miou_percent"] == pytest.approx(cells["miou_percent"].mean())
    assert row["miou_se"] == pytest.approx(stats.sem(cells["miou_percent"]))
    assert row["accuracy_se"] == pytest.approx(stats.sem(cells["accuracy_percent"]))


def test_missing_cells_and_seeds_stay_visible():
    cells = study(lambda *_: 50, [0, 10], [250, 500], seeds=3)
    cells = drop(drop(cells, pretrain=0, downstream=250), pretrain=10, downstream=500, seed=2)
    cells = drop(drop(cells, pretrain=10, downstream=250, seed=1), pretrain=10, downstream=250, seed=3)
    table = summarize(cells).set_index(["pretrain", "downstream"])
    assert table["n"].to_dict() == {(0, 250): 0, (0, 500): 3, (10, 250): 1, (10, 500): 2}
    assert np.isnan(table.loc[(0, 250), "miou_percent"])
    assert np.isnan(table.loc[(10, 250), "miou_se"])
    assert np.isfinite(table.loc[(10, 250), "miou_percent"])


def test_published_form_passes_through():
    cells = published_cells()
    cells.loc[0, ["miou_percent", "miou_pm"]] = np.nan
    table = summarize(cells)
    assert list(table["n"]) == [0] + [3] * 41
    assert table.loc[1, "miou_se"] == pytest.approx(0.21 / np.sqrt(3))


def test_order_is_that_of_the_grid_with_none_first():
    cells = study(lambda *_: 50, [100, 0], [500, 250], tasks=("cls_intel", "none"))
    assert grid(cells) == ([0, 100], ["none", "cls_intel"], [250, 500])
    rows = summarize(cells)[["pretrain", "intermediate", "downstream"]].to_numpy().tolist()
    assert rows[:3] == [[0, "none", 250], [0, "none", 500], [0, "cls_intel", 250]]


def test_two_results_for_one_cell_are_refused():
    cells = study(lambda *_: 50, [0], [250])
    cells["seed"] = 1
    with pytest.raises(VinyError, match=r"twice.*pretrain=0.*seed=1"):
        summarize(cells)
