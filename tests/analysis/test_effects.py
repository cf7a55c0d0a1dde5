"""Effects of each stage in each cell."""

from simulated import drop, study

from viny.analysis.effects import effects
from viny.analysis.published import published_cells


def test_published_intermediate_effects():
    table = effects(published_cells())
    table = table[table["family"] == "intermediate"]
    assert (table["effect"] < 0).all()
    assert (table["p"] < 0.05).sum() == 17
    assert (table["p_holm"] >= table["p"]).all()


def test_families_hold_what_the_published_grid_declares():
    sizes = effects(published_cells()).groupby("family").size().to_dict()
    assert sizes == {"pretrain": 18, "pretrain_step": 18 + 12, "intermediate": 18, "downstream_step": 35}


def test_missing_cells_stay_in_effects():
    cells = drop(study(lambda *_: 50, [0, 10], [1, 2]), pretrain=10, downstream=2)
    table = effects(cells)
    assert len(table) == 2 + 2 + 2
    lost = table[(table["method"] == "missing")]
    assert len(lost) == 3
    assert lost["effect"].isna().all()
    assert lost["p_holm"].isna().all()
