"""Contrasts against scipy and statsmodels, moderation against simulated variances."""

import numpy as np
import pytest
from scipy import stats
from simulated import drop, study
from statsmodels.stats.multitest import multipletests

from viny.analysis.contrasts import (
    MISSING,
    NO_ERROR,
    PAIRED,
    WELCH,
    contrasts,
    dependent,
    difference,
    holm,
    measure,
    moderate,
    polynomial,
)
from viny.analysis.published import published_cells

A, B = (0, "none", 250), (0, "none", 500)


def test_paired_by_seed_is_the_paired_t_test():
    cells = study(lambda p, t, d: d / 100, [0], [250, 500], seeds=5, encoder_noise=1.0)
    row = contrasts(measure(cells), [difference(B, A)]).iloc[0]
    x, y = (cells.loc[cells["downstream"] == d, "miou_percent"].to_numpy() for d in (250, 500))
    expected = stats.ttest_rel(y, x)
    low, high = expected.confidence_interval()
    assert row["method"] == PAIRED
    assert row["n"] == 5
    assert row["effect"] == pytest.approx((y - x).mean())
    assert (row["p"], row["low"], row["high"]) == pytest.approx((expected.pvalue, low, high))


def test_only_common_seeds_are_paired_and_others_go_by_welch():
    cells = study(lambda *_: 50, [0], [250, 500], seeds=4)
    three = contrasts(measure(drop(cells, downstream=250, seed=1)), [difference(B, A)]).iloc[0]
    assert (three["method"], three["n"]) == (PAIRED, 3)
    apart = drop(drop(drop(drop(cells, downstream=250, seed=1), downstream=250, seed=2), downstream=500, seed=3),
                 downstream=500, seed=4)  # fmt: skip
    row = contrasts(measure(apart), [difference(B, A)]).iloc[0]
    x, y = (apart.loc[apart["downstream"] == d, "miou_percent"].dropna() for d in (250, 500))
    assert row["method"] == WELCH
    assert row["p"] == pytest.approx(stats.ttest_ind(y, x, equal_var=False).pvalue)


def test_published_summaries_go_by_welch():
    a, b = (0, "none", 250), (45_000, "none", 250)
    row = contrasts(measure(published_cells()), [difference(b, a)]).iloc[0]
    expected = stats.ttest_ind_from_stats(52.73, 0.25 * 3**0.5, 3, 43.73, 1.02 * 3**0.5, 3, equal_var=False)
    assert row["method"] == WELCH
    assert (row["effect"], row["p"]) == pytest.approx((9.0, expected.pvalue))


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


def test_moderation_finds_the_prior_of_simulated_variances():
    random = np.random.default_rng(0)
    true = 0.25 * 6 / random.chisquare(6, 4000)  # scaled inverse chi-square: prior 0.25 with 6 degrees of freedom
    sample = true * random.chisquare(2, 4000) / 2
    shrunk, df = moderate(sample, np.full(4000, 2.0), range(4000))
    assert df[0] - 2 == pytest.approx(6, rel=0.2)
    prior = (shrunk[0] * df[0] - 2 * sample[0]) / (df[0] - 2)
    assert prior == pytest.approx(0.25, rel=0.05)
    assert np.abs(np.log(shrunk / true)).mean() < 0.6 * np.abs(np.log(sample / true)).mean()


def test_moderation_of_equal_or_few_variances():
    shrunk, df = moderate(np.full(6, 0.5), np.full(6, 2.0), range(6))
    np.testing.assert_allclose(shrunk, 0.5)
    assert (df == 12).all()
    few = np.array([0.1, 0.2, 0.4, np.nan])
    shrunk, df = moderate(few, np.array([2.0, 2, 2, 0]), range(4))
    np.testing.assert_array_equal(shrunk, few)
    assert list(df[:3]) == [2, 2, 2]


def test_degrees_of_freedom_are_those_of_the_encoders():
    random = np.random.default_rng(3)
    variances = np.exp(random.normal(0, 0.1, 12))
    _, df = moderate(variances, np.full(12, 2.0), ["a", "b", "c"] * 4)
    assert (df == 6).all()


def test_moderated_tests_keep_their_level_when_cells_share_an_encoder():
    """18 comparisons of 3 sizes with none; the noise is almost all the encoder's, so each size is one draw of it."""
    random = np.random.default_rng(4)
    sizes, labels = [0, 1, 2, 3], [1, 2, 3, 4, 5, 6]
    wanted = [difference((p, "none", d), (0, "none", d)) for p in sizes[1:] for d in labels]
    p = []
    for _ in range(150):
        cells = study(lambda *_: 50, sizes, labels, noise=0.1, encoder_noise=1.0, random=random)
        p.append(contrasts(measure(cells), wanted)["p_moderated"].to_numpy())
    p = np.array(p)
    assert 0.02 < (p < 0.05).mean() < 0.09
    assert np.mean([holm(row).min() < 0.05 for row in p]) < 0.08


def test_dependent_error_adds_up_within_an_encoder():
    measured = measure(published_cells())
    se = measured.table["se_moderated"]
    cells = [(45_000, "none", 250), (45_000, "none", 500)]
    assert dependent(measured, dict.fromkeys(cells, 0.5))[0] == pytest.approx(se.loc[cells].mean())
    apart = [(45_000, "none", 250), (100_000, "none", 250)]
    assert dependent(measured, dict.fromkeys(apart, 0.5))[0] == pytest.approx(np.hypot(*se.loc[apart]) / 2)
