"""Contrasts by hand and against statsmodels."""

import numpy as np
import pytest
from scipy import stats
from simulated import drop, study
from statsmodels.stats.multitest import multipletests

from viny.analysis.contrasts import (
    MISSING,
    NO_ERROR,
    PAIRED,
    UNPAIRED,
    contrasts,
    difference,
    holm,
    measure,
    polynomial,
)
from viny.analysis.published import published_cells

A, B = (0, "none", 250), (0, "none", 500)


def test_a_lone_pair_of_cells_is_tested_by_the_paired_t_test():
    """Nothing else is known there, so nothing can be pooled: the differences stand for themselves."""
    cells = study(lambda p, t, d: d / 100, [0], [250, 500], seeds=5, encoder_noise=1.0, tasks=("none", "reef"))
    pair = {(0, "reef", 250): (0, "none", 250)}
    row = contrasts(measure(cells).against(pair), [{(0, "reef", 250): 1.0}]).iloc[0]
    one, other = (
        cells.loc[(cells["downstream"] == 250) & (cells["intermediate"] == task), "miou_percent"].to_numpy()
        for task in ("reef", "none")
    )
    expected = stats.ttest_rel(one, other)
    low, high = expected.confidence_interval()
    assert (row["method"], row["n"]) == (PAIRED, 5)
    assert (row["effect"], row["df"]) == (pytest.approx((one - other).mean()), pytest.approx(4))
    assert (row["p"], row["low"], row["high"]) == pytest.approx((expected.pvalue, low, high))


def test_only_common_seeds_are_paired_and_others_go_by_means_and_errors():
    cells = study(lambda *_: 50, [0], [250, 500], seeds=4)
    three = contrasts(measure(drop(cells, downstream=250, seed=1)), [difference(B, A)]).iloc[0]
    assert (three["method"], three["n"]) == (PAIRED, 3)
    apart = drop(drop(drop(drop(cells, downstream=250, seed=1), downstream=250, seed=2), downstream=500, seed=3),
                 downstream=500, seed=4)  # fmt: skip
    row = contrasts(measure(apart), [difference(B, A)]).iloc[0]
    x, y = (apart.loc[apart["downstream"] == d, "miou_percent"].dropna() for d in (250, 500))
    assert (row["method"], row["effect"]) == (UNPAIRED, pytest.approx(y.mean() - x.mean()))
    assert np.isfinite(row["p"])


def test_p_says_whether_the_interval_leaves_out_zero():
    cells = study(lambda p, t, d: 50 + 0.02 * p, [0, 10, 20, 30], [250, 500], noise=0.2)
    wanted = [difference((p, "none", d), (0, "none", d)) for p in (10, 20, 30) for d in (250, 500)]
    for confidence in (0.8, 0.95):
        table = contrasts(measure(cells), wanted, confidence)
        outside = (table["low"] > 0) | (table["high"] < 0)
        assert (outside == (table["p"] < 1 - confidence)).all()


def test_what_encoders_do_to_both_cells_is_gone_in_differences():
    cells = study(lambda p, t, d: 50 - 2 * (t != "none"), [0, 1], [1, 2, 3], noise=0.1, tasks=("none", "reef"))
    shift = cells.groupby(["pretrain", "seed"]).ngroup() * 7.0
    moved = cells.assign(miou_percent=cells["miou_percent"] + shift)
    pairs = {(p, "reef", d): (p, "none", d) for p in (0, 1) for d in (1, 2, 3)}
    still, shaken = (contrasts(measure(each).against(pairs), [{key: 1.0} for key in pairs]) for each in (cells, moved))
    np.testing.assert_allclose(shaken[["effect", "se", "df"]], still[["effect", "se", "df"]])


def test_what_cannot_be_tested_says_so():
    cells = study(lambda *_: 50, [0], [250, 500], seeds=1)
    row = contrasts(measure(cells), [difference(B, A)]).iloc[0]
    assert row["method"] == NO_ERROR
    assert np.isfinite(row["effect"])
    assert np.isnan(row["p"])
    row = contrasts(measure(drop(cells, downstream=500)), [difference(B, A)]).iloc[0]
    assert row["method"] == MISSING
    assert np.isnan(row["effect"])


def test_identical_runs_do_not_break_the_test():
    cells = study(lambda p, t, d: d, [0], [250, 500], noise=0.0)
    row = contrasts(measure(cells), [difference(B, A)]).iloc[0]
    assert row["se"] == 0
    assert row["p"] == 0


def test_unknown_correlation_never_makes_an_error_smaller():
    """Where cells of an encoder may be off together, averages over its cells are less certain."""
    cells = published_cells()
    own, shared = measure(cells), measure(cells, shared=True)
    labels = (250, 500, 1_000, 2_000, 4_000, 6_000)
    over = {(p, "none", d): sign / 6 for p, sign in ((200_000, 1), (100_000, -1)) for d in labels}
    wanted = [over, difference((45_000, "none", 250), (0, "none", 250)), difference(B, A)]
    wide, narrow = (contrasts(measured, wanted)["se"] for measured in (own, shared))
    assert wide[0] > 1.5 * narrow[0]
    np.testing.assert_allclose(wide[1:], narrow[1:])


def test_draws_have_the_errors_and_the_correlation_of_the_means():
    cells = study(lambda *_: 50, [0, 1], [1, 2], seeds=40, noise=0.3, encoder_noise=0.6)
    measured = measure(cells)
    keys = [(0, "none", 1), (0, "none", 2), (1, "none", 1)]
    drawn = measured.draw(keys, 20_000, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[0], measured.table.loc[keys, "mean"])
    np.testing.assert_allclose(drawn[1:].std(axis=0), measured.table.loc[keys, "se_moderated"], rtol=0.1)
    together, apart = np.corrcoef(drawn[1:].T)[0, 1:]
    assert together == pytest.approx(0.8, abs=0.08)
    assert abs(apart) < 0.03


def test_holm_is_holm_and_leaves_out_what_was_not_tested():
    p = np.random.default_rng(0).uniform(0, 0.1, 12)
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


@pytest.mark.parametrize("degree", [1, 2])
def test_polynomial_contrast_is_the_leading_coefficient(degree):
    x = np.array([250, 500, 1000, 2000, 6000.0])
    y = np.random.default_rng(1).normal(size=5)
    weights = polynomial(list("abcde"), x, degree)
    assert sum(weights[key] * value for key, value in zip("abcde", y, strict=True)) == pytest.approx(
        np.polyfit(x, y, degree)[0]
    )
