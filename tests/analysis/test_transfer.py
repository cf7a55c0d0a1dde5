"""The transfer law, data against updates, and whether the loss of pre-training tells anything."""

import re

import numpy as np
import pandas as pd
import pytest
from simulated import study

from viny.analysis import heldout, style
from viny.analysis.crossed import crossed, crossed_table
from viny.analysis.heldout import ALL, WITHIN, loss_against_miou, loss_table
from viny.analysis.outlook import heldout_loss
from viny.analysis.published import published_cells
from viny.analysis.transfer import transfer_law, transfer_table

LABELS = [250, 500, 1000, 2000, 4000, 8000]


def worth(p: int, t: str, d: int) -> float:
    """D_T = 0.3 D_F^0.3 N^0.6."""
    return 40 + 6 * np.log((d + (0.3 * d**0.3 * p**0.6 if p else 0)) / 250)


def test_an_exact_transfer_law_is_found():
    row = transfer_law(study(worth, [0, 20_000, 80_000], LABELS, noise=1e-4)).iloc[0]
    assert row["determined"]
    assert (row["alpha"], row["beta"]) == pytest.approx((0.3, 0.6), abs=0.03)
    assert row["k"] == pytest.approx(0.3, rel=0.3)


def test_its_intervals_cover():
    random, inside = np.random.default_rng(0), []
    for _ in range(12):
        cells = study(worth, [0, 20_000, 80_000], LABELS, noise=0.3, encoder_noise=0.2, random=random)
        row = transfer_law(cells).iloc[0]
        inside += [row["alpha_low"] < 0.3 < row["alpha_high"], row["beta_low"] < 0.6 < row["beta_high"]]
    assert np.mean(inside) > 0.85


def test_the_published_transfer_law():
    row = transfer_law(published_cells()).iloc[0]
    assert row["cells"] == 13
    assert (row["alpha"], row["beta"], row["rms"]) == pytest.approx((0.24, 0.62, 0.18), abs=0.005)
    assert "0.24 (" in transfer_table(pd.DataFrame([row]), 0.95).text("md")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (study(worth, [0, 5_000], [125, *LABELS]), "same pre-training size"),
        (study(worth, [0, 20_000, 80_000], LABELS[:2]), "are needed"),
        (study(worth, [20_000, 80_000], LABELS), "two sizes"),
        (study(worth, [0], LABELS), "two sizes"),
        (study(worth, [0, 20_000, 80_000], LABELS[:4], noise=4.0), "open|are needed|same"),
    ],
)
def test_what_does_not_determine_it_is_refused_with_a_reason(cells, reason):
    row = transfer_law(cells).iloc[0]
    assert not row["determined"]
    assert re.search(reason, row["reason"])
    assert np.isnan(row["alpha"])


def budgets(score, seeds: int = 3) -> pd.DataFrame:
    """variants.csv of 250 and 1,000 labels with 400 and 1,600 updates: the study with 100 epochs, and two variants."""
    runs = [("base", 250, 400), ("base", 1000, 1600), ("long", 250, 1600), ("short", 1000, 400), ("other", 250, 400)]
    random = np.random.default_rng(0)
    rows = [
        {"variant": variant, "downstream": labels, "steps": steps, "seed": seed}
        | {"miou_percent": score(labels, steps) + random.normal(0, 0.01)}
        for variant, labels, steps in runs
        for seed in range(seeds)
    ]
    fixed = {"pretrain": 0, "intermediate": "none", "encoder": "", "accuracy_percent": 0.0, "pretrain_steps": np.nan}
    return pd.DataFrame(rows).assign(**fixed)


CHANGES = {
    "long": {"finetune": {"steps": 1600}},
    "short": {"finetune": {"steps": 400}, "grid": {"exclude": [{"downstream": 250}]}},
    "other": {"finetune": {"normalize": False}},
}


def test_data_and_updates_by_hand():
    table = {(250, 400): 40, (250, 1600): 43, (1000, 400): 42, (1000, 1600): 49}
    found = crossed(budgets(lambda d, t: table[d, t]), CHANGES).set_index("what")
    assert found["effect"].to_dict() == pytest.approx({"images": 4, "updates": 5, "interaction": 4}, abs=0.05)
    assert (found["low"] < found["effect"]).all()
    row = found.loc["images"]
    assert row[["images_from", "images_to", "updates_from", "updates_to"]].tolist() == [250, 1000, 400, 1600]
    text = crossed_table(found.reset_index(), 0.95).text("md")
    assert "| 250 → 1,000 labels | 400 → 1,600 | random start |" in text


def test_variants_that_change_something_else_cross_nothing():
    changes = {**CHANGES, "long": {"finetune": {"steps": 1600, "normalize": False}}}
    assert crossed(budgets(lambda d, t: d + t), changes).empty


def losses(score, sizes=(100, 200, 400), seeds: int = 3) -> pd.DataFrame:
    """Cells whose encoders have a loss that falls with size and differs by seed."""
    cells = study(lambda p, t, d: 0, list(sizes), [32], seeds=seeds, noise=0)
    loss = 1 / cells["pretrain"] + 1e-4 * cells["seed"]
    return cells.assign(pretrain_loss=loss, miou_percent=score(loss))


def test_a_loss_that_tells_the_score_does_so_among_and_within_sizes():
    found = loss_against_miou(losses(lambda loss: 50 - 100 * loss)).set_index("among")
    assert found["correlation"].tolist() == [1, 1]
    assert found.loc[ALL, "p"] < 0.001
    assert found.loc[WITHIN, "p"] == pytest.approx(1 / 216, abs=0.003)  # three seeds of three sizes in order by chance
    assert found.loc[ALL, "low"] > 0.5
    against = loss_against_miou(losses(lambda loss: 100 * loss)).set_index("among")
    assert against.loc[ALL, "correlation"] == -1
    assert against.loc[ALL, "p"] > 0.99


def test_a_loss_that_tells_nothing_within_sizes():
    cells = losses(lambda loss: 0 * loss)
    cells["miou_percent"] = cells["pretrain"] + np.array([1, -1, 0] * 3)
    found = loss_against_miou(cells).set_index("among")
    assert found.loc[ALL, "correlation"] > 0.8
    assert abs(found.loc[WITHIN, "correlation"]) < 0.6


def test_few_encoders_and_equal_losses_are_refused():
    few = loss_against_miou(losses(lambda loss: -loss, sizes=(100,)))
    assert few["reason"].str.contains("needs 4").all()
    assert "needs 4" in loss_table(few, 0.95).text("md")
    equal = losses(lambda loss: -loss).assign(pretrain_loss=0.3)
    assert loss_against_miou(equal)["reason"].iloc[0].endswith("needs 4")  # one encoder a size, which seeds share
    assert loss_against_miou(published_cells()).empty


def test_its_figure_has_a_point_for_each_encoder():
    style.apply()
    cells = losses(lambda loss: 50 - 100 * loss)
    [ax] = heldout_loss(heldout.points(cells), loss_against_miou(cells)).axes
    assert sum(len(line.get_xdata()) for line in ax.get_lines()) == 9
    assert "rank correlation 1.00" in ax.get_title()
