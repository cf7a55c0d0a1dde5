"""The pooled noise of runs against an analysis of variance, and the errors that follow from it by hand."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm

from viny.analysis.noise import PRIOR, Noise, Pool, of_runs, of_summaries


def scores(encoders: int, labels: int, seeds: int, shared: float = 1.0, own: float = 0.5, random=None) -> np.ndarray:
    """(encoders x labels, seeds) of scores that only noise moves."""
    random = random or np.random.default_rng(0)
    common = np.repeat(random.normal(0, shared, (encoders, seeds)), labels, axis=0)
    return 50 + common + random.normal(0, own, (encoders * labels, seeds))


@pytest.mark.parametrize("missing", [(), [(1, 2)], [(0, 0), (2, 1)]])
def test_mean_squares_are_those_of_an_analysis_of_variance(missing):
    y = scores(1, 4, 3)
    for place in missing:
        y[place] = np.nan
    [noise] = of_runs(y, np.zeros(4, int))
    rows = pd.DataFrame([(d, s, y[d, s]) for d in range(4) for s in range(3)], columns=["cell", "seed", "y"]).dropna()
    table = anova_lm(smf.ols("y ~ C(cell) + C(seed)", rows).fit(), typ=2)
    assert noise.seeds.value == pytest.approx(table["sum_sq"]["C(seed)"] / table["df"]["C(seed)"])
    assert noise.rest.value == pytest.approx(table["sum_sq"]["Residual"] / table["df"]["Residual"])
    assert (noise.seeds.df, noise.rest.df) == (table["df"]["C(seed)"], table["df"]["Residual"])


def test_both_parts_of_the_noise_are_found():
    y = scores(60, 5, 6)
    [noise] = of_runs(y, np.repeat(np.arange(60), 5))
    assert noise.rest.value == pytest.approx(0.25, rel=0.1)
    assert (noise.seeds.value - noise.rest.value) / noise.labels == pytest.approx(1.0, rel=0.2)
    assert noise.correlation == pytest.approx(0.8, abs=0.05)
    assert noise.rest.df > 0.9 * 60 * 4 * 5


def test_unequal_parts_leave_fewer_degrees_of_freedom():
    equal = Pool.of(np.full(10, 3.0), np.full(10, 3.0))
    unequal = Pool.of(np.array([21.0] + [1.0] * 9), np.full(10, 3.0))
    assert (equal.value, unequal.value) == (1.0, 1.0)
    assert equal.df == 30
    assert unequal.df < 10


def test_an_error_is_the_mean_of_what_is_seen_and_what_is_expected():
    noise = Noise(Pool(4.0, 1e9), Pool(4.0, 1e9), labels=2.0)  # no encoder stands out: variance 4 of every run
    one = np.ones(1)
    se, df = noise.error(one, 2 * one, np.zeros(1, int), (9.0, 1))
    assert se**2 == pytest.approx((PRIOR * 4.0 / 2 + 1 * 9.0) / (PRIOR + 1))
    assert df == pytest.approx(PRIOR + 1)


def test_what_encoders_share_cancels_within_one_and_not_between_two():
    noise = Noise(Pool(1.0 + 3 * 8.0, 1e9), Pool(1.0, 1e9), labels=3.0)  # variance 1 of a run, 8 of an encoder
    weights, n = np.array([1.0, -1.0]), np.ones(2)
    for encoders, variance in ((np.array([0, 0]), 2.0), (np.array([0, 1]), 18.0)):
        se, _ = noise.error(weights, n, encoders, (variance, 1e-9))
        assert se**2 == pytest.approx(variance)


def test_the_pool_is_never_worth_more_than_its_runs():
    noise = Noise(Pool(1.0, 2.0), Pool(1.0, 2.0), labels=1.0)
    _, df = noise.error(np.full(50, 0.02), np.full(50, 3.0), np.arange(50), (0.01, 2))
    assert df <= 4


def test_without_repeated_runs_nothing_is_known():
    assert of_runs(np.array([[1.0, np.nan], [np.nan, 2.0]]), np.array([0, 0])) == ()
    assert of_summaries(np.full(3, np.nan), np.ones(3), np.arange(3), shared=False) == ()


def test_summaries_allow_for_cells_that_are_off_together_unless_their_encoder_is_one():
    variances, n, encoders = np.ones(4), np.full(4, 3.0), np.array([0, 0, 1, 1])
    assert len(of_summaries(variances, n, encoders, shared=True)) == 1
    independent, together = of_summaries(variances, n, encoders, shared=False)
    weights = np.array([0.5, 0.5, -0.5, -0.5])
    assert independent.error(weights, n, encoders, variances)[0] ** 2 == pytest.approx(1 / 3)
    assert together.error(weights, n, encoders, variances)[0] ** 2 == pytest.approx(2 / 3)
