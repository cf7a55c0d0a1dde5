"""Saturating laws: found when the data decide, refused with a reason when they do not."""

import numpy as np
import pandas as pd
import pytest
from simulated import drop, study

from viny.analysis.published import published_cells
from viny.analysis.scaling import Curve, curve_points, fit, fit_curves, gain_per_doubling

SIZES = np.array([250, 500, 1000, 2000, 4000, 8000, 16000.0])


def curve(y: np.ndarray, se: float = 0.15, n: np.ndarray = SIZES) -> Curve:
    place = {"axis": "downstream", "pretrain": 0, "intermediate": "none", "downstream": None}
    slope = np.polyfit(np.log2(n), y, 1)[0]
    row = pd.Series({"effect": slope, "low": slope, "high": slope, "df": 1e6})
    return Curve(place, n, np.asarray(y, float), np.full(len(n), se), 0.0, row)


def saturating(p: int, t: str, d: int) -> float:
    return 70 - 300 * d**-0.5 + 2 * (p > 0)


def test_an_exact_law_is_found():
    row = fit(curve(70 - 300 * SIZES**-0.5))
    assert row["determined"]
    assert (row["a"], row["b"], row["c"]) == pytest.approx((70, 300, 0.5), rel=0.02)
    assert row["chi2"] < 0.1
    assert row["reason"] == ""


def test_intervals_cover_the_true_parameters():
    random = np.random.default_rng(0)
    rows = [fit(curve(70 - 300 * SIZES**-0.5 + random.normal(0, 0.15, 7))) for _ in range(300)]
    assert np.mean([row["c_low"] < 0.5 < row["c_high"] for row in rows]) == pytest.approx(0.95, abs=0.035)
    assert np.mean([row["a_low"] < 70 < row["a_high"] for row in rows]) == pytest.approx(0.95, abs=0.035)
    assert np.mean([row["p_fit"] < 0.05 for row in rows]) == pytest.approx(0.05, abs=0.035)


def test_growth_by_the_same_amount_per_doubling_is_not_called_saturation():
    row = fit(curve(30 + 3 * np.log2(SIZES / 250)))
    assert not row["determined"]
    assert row["c_low"] == 0
    assert "not excluded" in row["reason"]
    assert row["per_doubling"] == pytest.approx(3)
    assert row["p_log"] > 0.99
    assert "a" not in row


def test_an_asymptote_that_may_lie_beyond_everything_is_refused():
    row = fit(curve(70 - 300 * SIZES[:4] ** -0.5, se=1.5, n=SIZES[:4]))
    assert not row["determined"]
    assert row["a_high"] == np.inf
    assert "asymptote" in row["reason"]


def test_points_that_follow_no_law_are_refused():
    row = fit(curve([40, 50, 45, 55, 50, 60, 55]))
    assert not row["determined"]
    assert row["p_fit"] < 1e-6
    assert "scatter" in row["reason"]


@pytest.mark.parametrize(("sizes", "seeds", "reason"), [(3, 3, "needs 4"), (5, 1, "single runs")])
def test_too_little_data_is_refused(sizes, seeds, reason):
    cells = study(saturating, [0], [int(n) for n in SIZES[:sizes]], seeds=seeds)
    row = fit_curves(cells).iloc[0]
    assert not row["determined"]
    assert reason in row["reason"]


def test_missing_sizes_are_left_out_of_a_curve():
    cells = study(saturating, [0, 9], [int(n) for n in SIZES], noise=0.05)
    rows = fit_curves(drop(cells, pretrain=9, downstream=1000)).query("axis == 'downstream'")
    assert rows["points"].tolist() == [7, 6]


def test_band_holds_the_true_curve_inside_the_measured_range():
    random, inside = np.random.default_rng(3), []
    for _ in range(20):
        cells = study(saturating, [0], [int(n) for n in SIZES], noise=0.2, random=random)
        points = curve_points(cells, fit_curves(cells))
        if points.empty:  # refused: chance made the points scatter
            continue
        assert points["downstream"].min() == pytest.approx(250)
        assert points["downstream"].max() == pytest.approx(16_000)
        truth = 70 - 300 * points["downstream"] ** -0.5
        inside.append(((points["low"] < truth) & (truth < points["high"]))[points["law"] == "power"].mean())
        assert (points["high"] - points["low"] < 2).all()
    assert len(inside) > 15
    assert np.nanmean(inside) > 0.85


def test_gain_per_doubling_by_hand():
    cells = study(lambda p, t, d: {100: 10, 400: 16}[d] + {0: 0, 10: 1, 80: 4}[p], [0, 10, 80], [100, 400], noise=0)
    table = gain_per_doubling(cells).set_index(["axis", "pretrain", "downstream"])["gain"]
    assert table["downstream", 0, 100] == pytest.approx(3)  # 6 points in two doublings
    assert table["pretrain", 10, 400] == pytest.approx(1)  # 3 points in three doublings
    assert ("pretrain", 0, 100) not in table.index  # from nothing there is no doubling


def test_published_numbers_do_not_determine_a_saturating_law():
    fits = fit_curves(published_cells())
    assert not fits["determined"].any()
    assert (fits["reason"] != "").all()
    assert fits[["a", "b", "c"]].isna().all(axis=None)
    along_labels = fits.query("axis == 'downstream'")
    pretrained = along_labels.query("pretrain > 0")
    assert (pretrained["p_log"] > 0.05).all()
    assert (pretrained["c_low"] == 0).all()
    assert "scatter" in along_labels.query("pretrain == 0")["reason"].iloc[0]
