"""What pre-training is worth in labels, and what compute buys."""

import numpy as np
import pandas as pd
import pytest
from simulated import drop, study

from viny.analysis.effective_data import effective_data, interpolate, invert
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
        times = table[["equivalent_low", "equivalent_high"]].div(table.index, axis=0)
        covered += ((times["equivalent_low"] < 4) & (times["equivalent_high"] > 4)).tolist()
    assert np.mean(covered) == pytest.approx(0.95, abs=0.06)
    exact = effective_data(study(four_times, [0, 9], LABELS, noise=1e-6)).set_index("downstream")
    np.testing.assert_allclose(exact.loc[[250, 500, 1000], "equivalent"], [1000, 2000, 4000], rtol=1e-3)


def test_beyond_the_curve_is_a_bound_and_no_number():
    table = effective_data(study(four_times, [0, 9], LABELS, noise=0.01)).set_index("downstream")
    assert table.loc[8000, "bound"] == ">"
    assert table.loc[8000, "equivalent_high"] == np.inf
    assert table.loc[8000, "equivalent"] == 8000


def test_worse_than_the_fewest_labels_is_a_bound_below():
    cells = study(lambda p, t, d: 30 + 4 * np.log2(d / 250) - 9 * (p > 0), [0, 9], LABELS, noise=0.01)
    row = effective_data(cells).iloc[0]
    assert (row["bound"], row["equivalent"]) == ("<", 250)
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
    assert table.loc[6000, "bound"] == ">"  # 68.76 is above everything reached without pre-training
    assert table.loc[250, "equivalent_low"] < table.loc[250, "equivalent"] < table.loc[250, "equivalent_high"]


def test_draws_repeat():
    first, second = effective_data(published_cells()), effective_data(published_cells())
    pd.testing.assert_frame_equal(first, second)


def test_missing_and_single_runs():
    cells = study(four_times, [0, 9], LABELS)
    table = effective_data(drop(cells, pretrain=9, downstream=500)).set_index("downstream")
    assert np.isnan(table.loc[500, "equivalent"])
    assert np.isfinite(table.loc[250, "equivalent"])
    single = effective_data(study(four_times, [0, 9], LABELS, seeds=1, noise=0.01)).iloc[0]
    assert single["equivalent"] == pytest.approx(1000, rel=0.02)
    assert np.isnan(single["equivalent_low"])
    without_curve = effective_data(drop(cells, pretrain=0))
    assert without_curve["equivalent"].isna().all()
