"""The published numbers as data, and a study beside them."""

import math

import numpy as np
import pandas as pd
import pytest
from simulated import drop, study

from viny.analysis import published


def cell(frame, pretrain, intermediate, downstream):
    where = (frame["pretrain"] == pretrain) & (frame["intermediate"] == intermediate)
    return frame[where & (frame["downstream"] == downstream)].iloc[0]


def test_has_every_cell_of_tables_1_a2_a3():
    cells = published.published_cells(published.Reading(deviation=False))
    assert cells.groupby(["pretrain", "intermediate"]).size().to_dict() == {
        (0, "none"): 6,
        **{(size, task): 6 for size in (45_000, 100_000, 200_000) for task in ("none", "cls_intel")},
    }
    first, last = cell(cells, 0, "none", 250), cell(cells, 200_000, "cls_intel", 6000)
    assert (first["miou_percent"], first["miou_pm"], first["accuracy_percent"]) == (43.73, 1.02, 70.33)
    assert (last["miou_percent"], last["miou_pm"], last["accuracy_pm"]) == (67.47, 0.15, 0.14)


def test_readings_differ_in_errors_and_in_one_curve():
    default, error = (published.published_cells(published.Reading(deviation=way)) for way in (True, False))
    assert default["miou_pm"].to_numpy() == pytest.approx(error["miou_pm"].to_numpy() / math.sqrt(3))
    figure = published.published_cells(published.Reading(figure=True))
    changed = figure[figure["miou_percent"] != default["miou_percent"]]
    assert set(zip(changed["pretrain"], changed["intermediate"], strict=True)) == {(100_000, "cls_intel")}
    gap = cell(figure, 100_000, "cls_intel", 6000)["miou_percent"] - cell(figure, 100_000, "none", 6000)["miou_percent"]
    assert gap == pytest.approx(-1.31)


def test_images_seen_follow_table_a1():
    last = cell(published.published_cells(), 200_000, "cls_intel", 6000)
    assert last["pretrain_samples"] == 20_000_000
    assert last["intermediate_samples"] == 200 * 14_034
    assert (last["samples_seen"], last["steps"]) == (600_000, 9_400)


def test_geometry_is_table_2_and_its_probe_is_a_training_accuracy():
    table = published.published_geometry().set_index("intermediate")
    assert table.loc["spatial_pets", "probe_accuracy_training_percent"] == 93.3
    assert table.loc["none", "within_image_variance"] == 0.10
    assert table["probe_accuracy_percent"].isna().all()


def test_beside_paper_by_hand():
    cells = pd.DataFrame(
        {
            "pretrain": 0,
            "intermediate": "none",
            "downstream": 250,
            "seed": [1, 2, 3],
            "miou_percent": [40.0, 42.0, 44.0],
            "accuracy_percent": [70.0, 70.0, 70.0],
        }
    )
    row = published.beside_paper(cells).set_index("metric").loc["miou"]
    se = math.hypot(2 / math.sqrt(3), 1.02 / math.sqrt(3))  # the paper's ± is read as a standard deviation
    assert row["difference"] == pytest.approx(42 - 43.73)
    assert row["combined_se"] == pytest.approx(se)
    assert row["difference_in_se"] == pytest.approx((42 - 43.73) / se)


def test_beside_paper_keeps_cells_that_either_side_lacks():
    cells = study(lambda *_: 50, [0, 777], [250, 500], seeds=2)
    table = published.beside_paper(drop(cells, pretrain=0, downstream=500))
    miou = table[table["metric"] == "miou"].set_index(["pretrain", "downstream"])
    assert len(miou) == 4
    assert np.isnan(miou.loc[(777, 250), "published"])
    assert miou.loc[(0, 500), "published"] == 47.41
    assert np.isnan(miou.loc[(0, 500), "ours"])


def test_the_study_is_zero_beside_itself():
    table = published.beside_paper(published.published_cells())
    assert len(table) == 84
    assert (table["difference"] == 0).all()
