"""What to buy: labels for a goal, their cost, what a budget reaches, and how many seeds a difference needs."""

import numpy as np
import pandas as pd
import pytest
from simulated import study
from statsmodels.stats.power import TTestIndPower

from viny import cli
from viny.analysis import power, style
from viny.analysis.buy import answer, bought_for, budget_answer, cost_of, isoquants, labels_needed
from viny.analysis.outlook import isoquants as draw
from viny.analysis.published import published_cells
from viny.config import load
from viny.config.sections import Prices
from viny.grid import Study
from viny.survey import analysis_key

LABELS = [250, 500, 1000, 2000, 4000]


def truth(p: int, t: str, d: int) -> float:
    """Pre-training on 1,000 images is worth four times the labels, on 4,000 sixteen times."""
    return 30 + 5 * np.log(d / 250 * {0: 1, 1000: 4, 4000: 16}[p])


@pytest.fixture(scope="module")
def cells() -> pd.DataFrame:
    """With 1 hour of pre-training for each 1,000 images, and 1 hour of fine-tuning for each 1,000 labels."""
    made = study(truth, [0, 1000, 4000], LABELS, noise=0.05)
    seconds = {"pretrain_seconds": made["pretrain"] * 3.6, "train_seconds": made["downstream"] * 3.6}
    return made.assign(intermediate_seconds=0.0, **seconds)


def test_labels_for_a_goal_with_intervals_that_hold_the_truth(cells):
    goal = truth(0, "", 6000)
    found = labels_needed(cells, goal).set_index("pretrain")
    assert found["labels"].tolist() == pytest.approx([6000, 1500, 375], rel=0.03)
    assert (found["labels_low"] < [6000, 1500, 375]).all()
    assert (found["labels_high"] > [6000, 1500, 375]).all()


def test_beyond_and_below_what_the_data_say(cells):
    far = labels_needed(cells, truth(0, "", 40_000)).set_index("pretrain")
    assert far["bound"].tolist() == [">", "", ""]
    assert far.loc[0, "labels"] == far.loc[0, "checked_to"] == 16_000  # forecasts were checked up to a factor of 4
    near = labels_needed(cells, truth(4000, "", 100)).set_index("pretrain")
    assert near.loc[4000, ["bound", "labels", "labels_low"]].tolist() == ["<", 250, 0]


def test_the_cheapest_mixture_depends_on_prices(cells):
    goal = truth(0, "", 2000)
    dear_labels = cost_of(cells, goal, Prices(label=1.0, device_hour=1.0))
    assert dear_labels["pretrain"].tolist() == [4000, 1000, 0]
    assert dear_labels.loc[2, "cost"] == pytest.approx(2000 + 2, rel=0.03)
    assert (dear_labels["cost_low"] < dear_labels["cost"]).all()
    dear_time = cost_of(cells, goal, Prices(label=0.001, device_hour=100.0))
    assert dear_time["pretrain"].iloc[0] == 1000  # 1 hour and 500 labels, against 2 or 4 hours
    assert dear_time.loc[0, "hours"] == pytest.approx(1.5, rel=0.03)
    dear_images = cost_of(cells, goal, Prices(label=1.0, image=10.0))
    assert dear_images["pretrain"].iloc[0] == 0


def test_what_a_budget_reaches(cells):
    found = bought_for(cells, 1000, Prices(label=1.0)).set_index("pretrain")
    assert found["labels"].tolist() == [1000, 1000, 1000]
    assert found.index[0] == 4000
    assert found.loc[0, "miou_percent"] == pytest.approx(truth(0, "", 1000), abs=0.2)
    poor = bought_for(cells, 100, Prices(label=1.0, device_hour=50))
    assert poor["miou_percent"].isna().all()
    assert "too little" in budget_answer(cells, 100, Prices(label=1.0))[0]
    rich = bought_for(cells, 1e9, Prices(label=1.0))
    assert (rich["bound"] == ">").all()
    assert (rich["labels"] == 16_000).all()


def test_the_answer_about_the_published_study_has_five_lines():
    lines = answer(published_cells(), 70, Prices())
    assert len(lines) == 5
    assert lines[1].startswith("fewest labels: 200k images 8,030 (")
    assert "random start 12,100" in lines[2]
    assert "not recorded" in answer(published_cells(), 70, Prices(device_hour=2.5))[-1]
    assert "beyond what these data say" in answer(published_cells(), 99, Prices())[1]
    assert "no answer" in answer(study(truth, [0], LABELS[:2]), 40, Prices())[0]


def test_isoquants_have_a_row_per_level_and_encoder(cells):
    found = isoquants(cells, 45.0)
    assert 45.0 in set(found["goal"])
    assert (found.groupby("goal").size() == 3).all()
    style.apply()
    [ax] = draw(found).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1k", "4k"]
    [ax] = draw(found[found["pretrain"] < 4000]).axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1k"]


def test_ask(tmp_path, capsys):
    assert cli.main(["ask", "--published", "--miou", "70", "--prices", "label=0.4"]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 5
    assert "cheapest: 200k images with 8,030 labels, 3,210" in out
    assert cli.main(["ask", "--published", "--budget", "3000", "--prices", "label=0.4"]) == 0
    assert "best: 200k images with 7,500 labels" in capsys.readouterr().out
    assert cli.main(["ask", "--published", "--prices", "labels=0.4"]) == 2
    assert "label=N" in capsys.readouterr().err
    study(truth, [0], LABELS).to_csv(tmp_path / "cells.csv", index=False)
    assert cli.main(["ask", str(tmp_path / "cells.csv")]) == 2
    assert "--miou" in capsys.readouterr().err


def test_prices_and_goals_train_nothing_again_and_renew_the_analysis():
    plain = Study(load({"study": "s"}))
    asking = Study(load({"study": "s", "goal": {"miou": 70}, "budget": 5000, "prices": {"label": 0.4}}))
    assert [job.key for job in plain.jobs.values()] == [job.key for job in asking.jobs.values()]
    assert analysis_key(plain) != analysis_key(asking)


@pytest.mark.parametrize("seeds", [2, 3, 5, 14])
def test_power_is_that_of_statsmodels(seeds):
    assert power.power(0.9, 0.45, seeds) == pytest.approx(TTestIndPower().power(2.0, seeds, 0.05), abs=1e-6)


def test_seeds_for_a_difference():
    assert power.seeds_needed(0.5, 0.45) == 14
    assert power.seeds_needed(1.39, 0.45) == 3
    assert power.seeds_needed(1e-4, 0.45) is None
    assert power.seeds_needed(1000, 0.45) == 2


def test_errors_of_the_study_decide_where_there_are_some():
    cells = study(truth, [0], LABELS, seeds=20, noise=2.0)
    assert power.run_sd(cells) == pytest.approx(2.0, rel=0.15)
    assert "of these results" in power.advice(cells, 1.0, 3)
    assert power.advice(study(truth, [0], LABELS, seeds=1), 0.5, 1).startswith("14 seeds")
