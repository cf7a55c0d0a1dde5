"""Intervals, effects in cells and effects across the grid, against known answers."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from simulated import drop, study
from statsmodels.stats.anova import AnovaRM

from viny.analysis import statistics
from viny.analysis.published import published_cells
from viny.analysis.statistics import cell_intervals, effects, overall


def published_harm(pm_is: str) -> pd.DataFrame:
    table = effects(published_cells(pm_is))
    return table[table["family"] == "intermediate"].set_index(["pretrain", "downstream"])


def test_published_intermediate_effects_if_plus_minus_were_a_standard_deviation():
    table = published_harm("sd")
    assert (table["effect"] < 0).all()
    assert (table["p"] < 0.05).sum() == 14
    not_significant = {(45_000, 2000): 0.06, (45_000, 4000): 0.10, (45_000, 6000): 0.07, (100_000, 6000): 0.49}
    for place, p in not_significant.items():
        assert table.loc[place, "p"] == pytest.approx(p, abs=0.006)
    assert table.loc[(100_000, 6000), "effect"] == pytest.approx(-0.21)


def test_published_intermediate_effects_with_standard_errors():
    table = published_harm("se")
    assert (table["p"] < 0.05).sum() == 12
    assert (table["p_moderated"] < 0.05).sum() == 15
    assert (table["p_holm"] >= table["p"]).all()


def test_families_hold_what_the_published_grid_declares():
    sizes = effects(published_cells()).groupby("family").size().to_dict()
    assert sizes == {"pretrain": 18, "pretrain_step": 18 + 12, "intermediate": 18, "downstream_step": 35}


def test_interval_of_a_cell_is_student_t_and_covers():
    random = np.random.default_rng(0)
    cells = study(lambda *_: 50, [0], list(range(1, 2001)), noise=1.0, random=random)
    table = cell_intervals(cells)
    covered = ((table["miou_low"] < 50) & (table["miou_high"] > 50)).mean()
    assert covered == pytest.approx(0.95, abs=0.015)
    scores = cells.loc[cells["downstream"] == 1, "miou_percent"]
    low, high = stats.t.interval(0.95, 2, scores.mean(), stats.sem(scores))
    assert table.loc[0, ["miou_low", "miou_high"]].tolist() == pytest.approx([low, high])
    assert table.loc[0, "interval"] == "t, 2 df"


def test_missing_cells_stay_in_effects():
    cells = drop(study(lambda *_: 50, [0, 10], [1, 2]), pretrain=10, downstream=2)
    table = effects(cells)
    assert len(table) == 2 + 2 + 2
    lost = table[(table["method"] == "missing")]
    assert len(lost) == 3
    assert lost["effect"].isna().all()
    assert lost["p_holm"].isna().all()


def test_overall_is_the_repeated_measures_analysis_of_variance():
    cells = study(lambda p, t, d: 50 + 0.3 * (t != "none"), [5, 9], [1, 2, 3], seeds=4, tasks=("none", "x"),
                  encoder_noise=0.5)  # fmt: skip
    row = overall(cells).set_index("stage").loc["intermediate:x"]
    f = AnovaRM(cells, "miou_percent", "seed", within=["intermediate"], aggregate_func="mean").fit().anova_table
    assert row["p"] == pytest.approx(f["Pr > F"].iloc[0])
    assert (row["estimate"] / row["se"]) ** 2 == pytest.approx(f["F Value"].iloc[0])
    assert row["clusters"] == 4


def test_sign_flips_of_encoders_by_hand():
    cells = study(lambda p, t, d: 50 - 2 * (t != "none"), [5, 9], [1, 2], seeds=2, tasks=("none", "x"))
    wide = cells.pivot_table(index=["pretrain", "seed"], columns="intermediate", values="miou_percent")
    clusters = (wide["x"] - wide["none"]).to_numpy()
    flipped = [abs(np.dot(signs, clusters)) for signs in itertools.product([1, -1], repeat=4)]
    row = overall(cells).set_index("stage").loc["intermediate:x"]
    assert row["p_permutation"] == np.mean(np.array(flipped) >= abs(clusters.sum()) - 1e-9)
    assert row["smallest_p"] == 2 / 16


def test_pretraining_exchanges_whole_sizes_within_a_seed():
    cells = study(lambda p, t, d: 40 + 10 * (p > 0), [0, 1, 2, 3], [1, 2], seeds=3)
    row = overall(cells).set_index("stage").loc["pretrain"]
    assert row["smallest_p"] == pytest.approx(1 / 4**3)
    assert row["p_permutation"] == pytest.approx(1 / 4**3)
    shared = overall(cells, share_encoder=True).set_index("stage").loc["pretrain"]
    assert shared["smallest_p"] == pytest.approx(1 / 4)
    assert "one encoder a size" in shared["note"]
    assert "cannot reach 0.05" in shared["note"]


def test_overall_tests_keep_their_level_when_cells_share_an_encoder():
    random = np.random.default_rng(5)
    p, permuted = [], []
    for _ in range(150):
        cells = study(lambda *_: 50, [0, 1, 2], [1, 2, 3], tasks=("none", "x"), encoder_noise=1.0, random=random)
        table = overall(cells).set_index("stage").loc[["pretrain", "intermediate:x"]]
        p.append(table["p"])
        permuted.append(table["p_permutation"])
    assert 0.015 < (np.array(p) < 0.05).mean() < 0.085
    assert (np.array(permuted) <= 0.05).mean() < 0.085


def test_overall_interval_covers_the_true_effect():
    random = np.random.default_rng(6)
    covered = []
    for _ in range(150):
        cells = study(lambda p, t, d: 3.0 * (p > 0), [0, 1], [1, 2], noise=0.3, encoder_noise=0.5, random=random)
        row = overall(cells).iloc[0]
        covered.append(row["low"] < 3 < row["high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.05)


def test_overall_uses_what_most_seeds_have():
    cells = drop(study(lambda p, t, d: 40 + p, [0, 1], [1, 2]), pretrain=1, downstream=2, seed=3)
    row = overall(cells).set_index("stage").loc["pretrain"]
    assert row["cells"] * row["clusters"] == 4  # one comparison in 3 seeds would be less than two in 2
    lost = drop(cells, pretrain=1, downstream=2)
    row = overall(lost).set_index("stage").loc["pretrain"]
    assert (row["cells"], row["clusters"]) == (1, 3)
    assert "1 of 2 comparisons" in row["note"]


def test_published_overall_effects():
    table = overall(published_cells()).set_index("stage")
    harm = effects(published_cells()).query("family == 'intermediate'")["effect"]
    row = table.loc["intermediate:cls_intel"]
    assert row["estimate"] == pytest.approx(harm.mean())
    assert row["se"] < row["se_dependent"]
    assert np.isnan(row["p_permutation"])
    assert row["pooled_low"] < row["estimate"] < row["pooled_high"]


def test_random_effects_pooling_of_equal_weights_is_the_t_interval_of_the_effects():
    tests = pd.DataFrame({"effect": [1.0, 2.0, 4.0, 5.0], "se_moderated": 0.2})
    found = statistics.random_effects(tests)
    low, high = stats.t.interval(0.95, 3, 3.0, stats.sem(tests["effect"]))
    assert found["pooled_random_effects"] == pytest.approx(3.0)
    assert (found["pooled_low"], found["pooled_high"]) == pytest.approx((low, high), rel=1e-4)
    assert np.isnan(statistics.random_effects(tests[:1])["tau"])


def test_command_writes_its_files(tmp_path):
    published_cells().to_csv(tmp_path / "cells.csv", index=False)
    assert statistics.main(["--cells", str(tmp_path / "cells.csv"), "--output", str(tmp_path)]) == 0
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 42
    assert len(pd.read_csv(tmp_path / "effects.csv")) == 101
    assert len(pd.read_csv(tmp_path / "overall.csv")) == 3
