"""What pre-training is worth in labels, and what compute buys."""

import numpy as np
import pandas as pd
import pytest
from simulated import drop, study

from viny.analysis import effective_data as module
from viny.analysis.effective_data import effective_data, interpolate, invert, returns
from viny.analysis.published import published_cells

LABELS = [250, 500, 1000, 2000, 4000, 8000]


def four_times(p: int, t: str, d: int) -> float:
    """Pre-training is worth exactly four times the labels."""
    return 30 + 4 * np.log2(d * (4 if p else 1) / 250)


def test_a_known_horizontal_distance_is_found_and_covered():
    random = np.random.default_rng(0)
    covered = []
    for _ in range(60):
        cells = study(four_times, [0, 9], LABELS, noise=0.5, random=random)
        table = effective_data(cells, draws=400).set_index("downstream").loc[[500, 1000]]
        covered += ((table["multiplier_low"] < 4) & (table["multiplier_high"] > 4)).tolist()
    assert np.mean(covered) == pytest.approx(0.95, abs=0.06)
    exact = effective_data(study(four_times, [0, 9], LABELS, noise=1e-6)).set_index("downstream")
    np.testing.assert_allclose(exact.loc[[250, 500, 1000], "multiplier"], 4, rtol=1e-3)
    np.testing.assert_allclose(exact.loc[[250, 500, 1000], "extra"], [750, 1500, 3000], rtol=1e-3)


def test_beyond_the_curve_is_a_bound_and_no_number():
    table = effective_data(study(four_times, [0, 9], LABELS, noise=0.01)).set_index("downstream")
    assert table.loc[8000, "bound"] == ">"
    assert table.loc[8000, "text"] == "> 8,000"
    assert table.loc[8000, "equivalent_high"] == np.inf
    assert table.loc[8000, "multiplier"] == 1


def test_worse_than_the_fewest_labels_is_a_bound_below():
    cells = study(lambda p, t, d: 30 + 4 * np.log2(d / 250) - 9 * (p > 0), [0, 9], LABELS, noise=0.01)
    row = effective_data(cells).iloc[0]
    assert (row["bound"], row["text"], row["equivalent"]) == ("<", "< 250", 250)
    assert row["equivalent_low"] == 0


def test_interpolation_passes_through_rising_points_and_smooths_falling_ones():
    n = np.array([100, 200, 400.0])
    fine, values = interpolate(n, np.array([[10.0, 20, 30], [10, 9, 30]]))
    assert (np.diff(values, axis=1) >= 0).all()
    np.testing.assert_allclose(invert(fine, values[:1], np.array([20.0])), 200, rtol=1e-3)
    np.testing.assert_allclose(values[1, 0], 9.5)
    assert invert(fine, values[:1], np.array([30.1]))[0] == np.inf
    assert invert(fine, values[:1], np.array([9.9]))[0] == 0


def test_published_worth_of_200k_images():
    table = effective_data(published_cells())
    table = table[(table["pretrain"] == 200_000) & (table["intermediate"] == "none")].set_index("downstream")
    assert 2000 < table.loc[250, "equivalent"] < 2200  # 57.14 is just above 56.87, reached with 2,000 labels
    assert 2000 < table.loc[1000, "equivalent"] < 4000  # 62.37 lies between 56.87 and 62.99
    assert table.loc[6000, "text"] == "> 6,000"  # 68.76 is above everything reached without pre-training
    assert table.loc[250, "equivalent_low"] < table.loc[250, "equivalent"] < table.loc[250, "equivalent_high"]


def test_draws_repeat():
    first, second = effective_data(published_cells()), effective_data(published_cells())
    pd.testing.assert_frame_equal(first, second)


def test_missing_and_single_runs():
    cells = study(four_times, [0, 9], LABELS)
    table = effective_data(drop(cells, pretrain=9, downstream=500)).set_index("downstream")
    assert np.isnan(table.loc[500, "equivalent"])
    assert table.loc[500, "text"] == "–"
    assert np.isfinite(table.loc[250, "equivalent"])
    single = effective_data(study(four_times, [0, 9], LABELS, seeds=1, noise=0.01)).iloc[0]
    assert single["multiplier"] == pytest.approx(4, rel=0.02)
    assert np.isnan(single["multiplier_low"])
    without_curve = effective_data(drop(cells, pretrain=0))
    assert without_curve["equivalent"].isna().all()


def test_returns_of_published_pretraining_by_hand():
    table = returns(published_cells())
    last = table.query("stage == 'pretrain' and intermediate == 'none' and pretrain == 200000 and downstream == 250")
    row = last.iloc[0]
    assert row["gain"] == pytest.approx(57.14 - 55.91)
    assert row["extra_passes"] == 10_000_000
    assert row["gain_per_million_passes"] == pytest.approx(0.123)
    assert row["share_of_passes"] == 0.5
    assert row["share_of_gain"] == pytest.approx((57.14 - 55.91) / (57.14 - 43.73))
    assert np.isnan(row["gain_per_hour"])  # times were not published


def test_returns_count_the_intermediate_task_and_the_seconds():
    cells = study(lambda p, t, d: 50 - 3 * (t != "none"), [5], [10, 20], tasks=("none", "x"), noise=0)
    costs = {
        "pretrain_passes": 500,
        "image_passes": cells["downstream"],
        "train_seconds": 60.0,
        "pretrain_seconds": 30.0,
    }
    task = cells["intermediate"] == "x"
    cells = cells.assign(**costs, intermediate_passes=np.where(task, 1_000, 0), intermediate_seconds=task * 1_800.0)
    table = returns(cells).set_index(["stage", "intermediate", "downstream"])
    row = table.loc[("intermediate", "x", 10)]
    assert (row["gain"], row["extra_passes"], row["extra_seconds"]) == pytest.approx((-3, 1_000, 1_800))
    assert row["gain_per_hour"] == pytest.approx(-6)
    assert table.loc[("downstream", "none", 20), "extra_passes"] == 10


def test_command_writes_its_files(tmp_path):
    published_cells().to_csv(tmp_path / "cells.csv", index=False)
    assert module.main(["--cells", str(tmp_path / "cells.csv"), "--output", str(tmp_path)]) == 0
    assert len(pd.read_csv(tmp_path / "effective_data.csv")) == 36
    assert len(pd.read_csv(tmp_path / "returns.csv")) == 18 + 30 + 35
