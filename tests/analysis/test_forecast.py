"""Forecasts: exact laws are continued exactly, the better law is taken, intervals cover, seals stay as they are."""

import json

import numpy as np
import pytest
from invented import fill, study_of
from simulated import drop, study

from benchmarks.forecasts import coverage
from viny import cli
from viny.analysis import published
from viny.analysis.contrasts import measure
from viny.analysis.forecast import (
    FROM_SMALL,
    OPEN,
    against_results,
    every_forecast,
    fit,
    forecast,
    from_small_sizes,
    laws,
)
from viny.analysis.observed import from_study
from viny.analysis.page import QUESTIONS
from viny.analysis.parts import Parts
from viny.analysis.published import published_cells
from viny.analysis.seals import read_seals
from viny.errors import VinyError

LABELS = [250, 500, 1000, 2000, 4000]


def growing(p: int, t: str, d: int) -> float:
    return 30 + 3 * np.log(d / 250) + (p > 0)


def saturating(p: int, t: str, d: int) -> float:
    return 70 - 300 * d**-0.5 + (p > 0)


@pytest.mark.parametrize(
    ("law", "truth"), [("log", lambda n: 20 + 4 * np.log(n)), ("power", lambda n: 70 - 400 * n**-0.5)]
)
def test_an_exact_law_is_continued_exactly(law, truth):
    n, at = np.array(LABELS, float), np.array([3000.0, 20_000])
    value, weights, reach = fit(law, n, truth(n), at)
    assert value == pytest.approx(truth(at), abs=0.3)
    assert weights.sum(axis=1) == pytest.approx([1, 1])  # equally higher scores make equally higher forecasts
    assert abs(reach[1]) > abs(reach[0])  # further away the law may be further off


@pytest.mark.parametrize(("truth", "law"), [(growing, "log"), (saturating, "power")])
def test_the_law_that_extrapolates_better_is_taken(truth, law):
    cells = study(truth, [0, 9], LABELS, noise=0.02)
    found = laws(measure(cells))["downstream"]
    assert found.name == law
    assert found.checked == 4  # from 1,000 labels to 4,000
    row = forecast(drop(cells, pretrain=9, downstream=4000)).set_index(["pretrain", "downstream"]).loc[9, 4000]
    assert row["low"] < truth(9, "none", 4000) < row["high"]
    assert row["factor"] == 2


def test_cells_between_known_ones_and_further_sizes_are_forecast_too():
    cells = study(growing, [0, 9], LABELS, noise=0.02)
    found = forecast(drop(cells, pretrain=0, downstream=1000), more=[(9, "none", 8000), (9, "none", 250)])
    assert found[["pretrain", "downstream"]].values.tolist() == [[0, 1000], [9, 8000]]  # 250 has a result
    assert found["predicted"].tolist() == pytest.approx([growing(0, "", 1000), growing(9, "", 8000)], abs=0.1)


def test_pretraining_sizes_are_forecast_along_their_axis():
    cells = study(lambda p, t, d: 20 + 2 * np.log(p + 1) + d, [0, 10, 100, 1000, 10_000], [1], noise=0.01)
    row = forecast(drop(cells, pretrain=10_000)).iloc[0]
    assert (row["axis"], row["pretrain"], row["known_to"]) == ("pretrain", 10_000, 1000)
    assert row["predicted"] == pytest.approx(20 + 2 * np.log(10_001) + 1, abs=0.2)


def test_an_error_of_the_law_widens_intervals():
    bent = study(lambda p, t, d: 30 + 3 * np.log(d) - 0.5 * np.log(d) ** 3 / 50, [0, 9, 99], LABELS, noise=0.01)
    row = forecast(bent, more=[(0, "none", 16_000)]).iloc[0]
    assert row["law_error"] > 5 * row["noise"]


def test_too_little_is_no_forecast():
    assert forecast(study(growing, [0], LABELS[:2]), more=[(0, "none", 9000)]).empty  # nothing to check a law with
    assert laws(measure(study(growing, [0], LABELS, seeds=1))) == {}  # nothing to tell noise from


def test_the_published_large_sizes_from_the_small_ones():
    cells = published_cells()
    found = against_results(from_small_sizes(cells), cells)
    most = found[found["downstream"] == 6000]
    assert len(most) == 7
    assert np.sqrt((most["error"] ** 2).mean()) < 0.40
    assert (found["known_to"] == 2000).all()
    assert (found["error_in_intervals"].abs() <= 1).mean() >= 0.9


def test_intervals_cover():
    found = [coverage(shape, 3, 3, 2000, 10, start=7) for shape in ("a + b ln n", "a - b n^-0.4")]
    assert np.mean([each["forecast"] for each in found]) > 0.88
    assert np.mean([each["labels"] for each in found]) > 0.8


def test_the_published_page_has_the_answers_and_says_what_has_none(tmp_path):
    parts = Parts(published.tables(), tmp_path)
    assert {"goal", "forecast", "transfer", "unanswered"} <= parts.tables.keys()
    assert {"forecast", "isoquants"} <= parts.figures.keys()
    [[question, why]] = parts.tables["unanswered"].rows
    assert question == QUESTIONS["heldout_loss"]
    assert "recorded" in why


def test_made_says_which_forecasts_were_made_when():
    cells = drop(study(growing, [0, 9], LABELS, noise=0.1), pretrain=9, downstream=4000)
    found = every_forecast(cells, read_seals(None, "simulated")).set_index(["made", "pretrain", "downstream"])
    assert np.isnan(found.loc[(OPEN, 9, 4000), "measured"])
    assert found.loc[(FROM_SMALL, 0, 4000), "measured"] == pytest.approx(growing(0, "", 4000), abs=0.3)


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """A study whose largest numbers of labels have no result, forecast and sealed."""
    monkeypatch.chdir(tmp_path)
    axes = {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32, 64, 128, 256]}
    made = study_of(tmp_path / "results", geometry=False, **axes)
    fill(made)
    hidden = list(made.folder.rglob("downstream=256/*/metrics.json"))
    kept = {path: path.read_text() for path in hidden}
    for path in hidden:
        path.unlink()
    (tmp_path / "toy.json").write_text(made.config.model_dump_json())
    assert cli.main(["forecast", "toy.json"]) == 0
    return made, kept


def test_a_seal_stands_beside_the_results_later(sealed):
    made, kept = sealed
    [path] = (made.folder / "forecasts").iterdir()
    document = json.loads(path.read_text())
    assert len(document["cells"]) == 6
    assert len(document["fingerprint"]) == len(document["checksum"]) == 64
    assert read_seals(made.folder, "another study").empty
    for path, text in kept.items():
        path.write_text(text)
    parts = Parts(from_study(made), made.folder)
    rows = parts.statistics["forecast"].set_index("made").loc[document["time"]]
    assert rows["downstream"].tolist() == [256, 256]
    assert (rows["error_in_intervals"].abs() <= 1).all()  # the invented scores grow by the same amount per doubling
    assert document["time"] in parts.tables["forecast"].text("md")
    assert "forecast" in parts.figures
    assert len(parts.figures["forecast"]().axes) == 2


def test_a_seal_is_not_written_over_and_a_changed_one_is_noticed(sealed, monkeypatch):
    made, _ = sealed
    [path] = (made.folder / "forecasts").iterdir()
    document = json.loads(path.read_text())
    document["forecasts"][0]["low"] -= 5
    path.write_text(json.dumps(document))
    with pytest.raises(VinyError, match="not as it was sealed"):
        read_seals(made.folder, "toy")
    path.write_text("not JSON")
    assert cli.main(["forecast", "toy.json"]) in (0, 1)  # in another file, or refused within the same second
    assert path.read_text() == "not JSON"


def test_nothing_to_forecast_is_said(tmp_path, capsys):
    cells = study(growing, [0], LABELS)
    cells.to_csv(tmp_path / "cells.csv", index=False)
    assert cli.main(["forecast", str(tmp_path / "cells.csv")]) == 1
    assert "name further sizes" in capsys.readouterr().err
    assert cli.main(["forecast", str(tmp_path / "cells.csv"), "--labels", "9000"]) == 0
    study(growing, [0], LABELS[:2]).to_csv(tmp_path / "cells.csv", index=False)
    assert cli.main(["forecast", str(tmp_path / "cells.csv"), "--labels", "9000"]) == 1
    assert "three sizes" in capsys.readouterr().err
