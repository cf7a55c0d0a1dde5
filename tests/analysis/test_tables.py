"""Tables: the paper's numbers exactly, a study's own, and cells that are missing."""

import math

import numpy as np
import pandas as pd
import pytest
from invented import accuracy, fill, jobs, miou, study_of

from viny.analysis import chance, published, tables
from viny.analysis.formats import Table, number, plus_minus
from viny.analysis.observed import from_study


def test_published_tables_are_the_papers_numbers():
    made = tables.score_tables(published.published_cells(published.Reading(deviation=False)))
    assert made["table1_from_scratch"].rows[0] == ["250", "70.33 ± 0.89", "43.73 ± 1.02"]
    assert made["tableA2_pretrained"].rows[-1] == ["", "6,000", "87.93 ± 0.04", "68.76 ± 0.13"]
    assert made["tableA3_intermediate"].rows[6] == ["", "100,000", "250", "75.72 ± 0.49", "50.20 ± 0.29"]
    assert [len(table.rows) for table in made.values()] == [6, 18, 18]
    source = published._data("published_results.csv")
    for name, table in zip(("1", "A2", "A3"), made.values(), strict=True):
        expected = source[source["table"].astype(str) == name]
        for column, theirs in {
            "miou_percent": "miou_percent",
            "miou_se": "miou_pm",
            "accuracy_se": "accuracy_pm",
        }.items():
            assert table.frame[column].tolist() == expected[theirs].tolist()


def test_published_geometry_and_settings():
    geometry = tables.geometry_table(published.published_geometry())
    assert geometry.rows[0] == ["Pre-trained only", "200,000", "0.10", "0.02", "–", "79.5"]
    assert geometry.rows[3] == ["Spatial-Pets", "200,000", "0.32", "0.06", "–", "93.3"]
    settings = tables.settings_table(published.tables().settings)
    assert settings.rows[2] == ["Fine-tuning", "100", "64", "AdamW", "0.002", "0.0001", "0.5", "70, 90, 95"]


def test_means_and_standard_errors_over_seeds(toy):
    table = tables.score_tables(from_study(toy).cells)["table1_from_scratch"]
    # Seeds differ by 0.4 points in equal steps: sd 0.4, standard error 0.4 / sqrt 3 = 0.2309.
    assert [row[0::2] for row in table.rows] == [["32", "40.00 ± 0.23"], ["128", "44.00 ± 0.23"]]
    expected = 100 * np.mean([accuracy(score) for score in (0.396, 0.4, 0.404)])
    assert table.frame["accuracy_percent"][0] == pytest.approx(expected)
    assert table.frame["miou_se"].tolist() == pytest.approx([0.4 / math.sqrt(3)] * 2)
    assert table.note == "Mean ± standard error over 3 runs per cell."


def test_missing_cells_and_missing_runs_are_shown(toy):
    gone = [job for job in jobs(toy, "finetune") if job.coordinates["pretrain"] == 0]
    for job in gone:
        at = job.coordinates
        if at["intermediate"] == "none" and (at["downstream"] == 32 or at["seed"] == 3):
            job.metrics.unlink()
    table = tables.score_tables(from_study(toy).cells)["table1_from_scratch"]
    assert table.rows[0] == ["32", "–", "–"]
    assert table.rows[1][0::2] == ["128", "43.80 ± 0.20 (2 of 3)"]
    assert "no result yet (1 of 2 cells)" in table.note
    assert "(1 cells)" in table.note
    assert "| 32 | – | – |" in table.text("md")
    assert r"32 & -- & -- \\" in table.text("tex")


def test_one_seed_has_no_error_and_several_tasks_are_grouped(tmp_path):
    grid = {"intermediate": ["spatial_pets", "none", "cls_intel"], "seeds": [1], "pretrain": [256]}
    study = study_of(tmp_path, **grid)
    fill(study)
    made = tables.score_tables(from_study(study).cells)
    assert made["table1_from_scratch"].rows == []
    assert made["table1_from_scratch"].note == "The study declares no such cell."
    assert made["tableA2_pretrained"].rows[0][0::3] == ["256", "41.92"]
    assert [row[0] for row in made["tableA3_intermediate"].rows] == ["CLS-Intel", "", "Spatial-Pets", ""]


def test_encoders_from_elsewhere_are_further_rows(tmp_path):
    study = study_of(tmp_path, pretrain=[0, 256, "released"])
    fill(study)
    found = from_study(study)
    made = tables.score_tables(found.cells)
    assert [row[0] for row in made["table1_from_scratch"].rows] == ["32", "128"]
    assert [row[0] for row in made["tableA2_pretrained"].rows] == ["256", "", "released", ""]
    assert made["tableA2_pretrained"].rows[2][3] == f"{100 * miou('released', 'none', 32, 2):.2f} ± 0.23"
    assert made["tableA2_pretrained"].frame["encoder"].tolist() == ["", "", "released", "released"]
    geometry = tables.geometry_table(found.geometry)
    assert ["Pre-trained only", "released"] in [row[:2] for row in geometry.rows]


def test_a_probe_that_does_not_beat_the_position_is_marked(toy):
    geometry = from_study(toy).geometry.assign(probe_chance_percent=61.3, probe_chance_position_percent=72.9)
    table = tables.geometry_table(geometry)
    assert {row[4] for row in table.rows} == {"75.0 ± 0.0"}
    assert "finds 72.9% of the held-out patches, the commonest class of all 61.3%." in table.note
    assert "†" not in table.note
    worse = geometry["intermediate"] == "none"
    geometry.loc[worse, "probe_accuracy_percent"] = 70.0
    table = tables.geometry_table(geometry)
    assert [row[0] for row in table.rows if "†" in row[4]] == ["Pre-trained only"] * 2
    assert "†: not better than that, so the probe says nothing about this encoder." in table.note
    assert "†" not in tables.geometry_table(from_study(toy).geometry).note  # recorded by an older version


def test_masks_that_the_number_of_labels_leaves_out_are_named(tmp_path):
    study = study_of(tmp_path, geometry=False, intermediate=["none", "spatial_pets", "cls_intel"])
    fill(study)
    sentence = chance.other_masks(from_study(study))
    assert sentence.endswith("used: Spatial-Pets (of 32 images).")
    assert chance.other_masks(published.tables()) == ""


def test_beside_the_paper():
    ours = published.published_cells()
    ours["miou_percent"] += 1.0
    extra = ours.iloc[:1].assign(downstream=300)
    table = tables.beside_table(published.beside_paper(pd.concat([ours, extra])))
    assert len(table.rows) == 42
    assert table.rows[0][7:] == ["43.73 ± 0.59", "44.73 ± 0.59", "+1.00 ± 0.83", "+1.2"]
    assert "1 cells of the study are not in the paper" in table.note
    assert "nothing to put beside it" in tables.beside_table(published.beside_paper(extra)).note


def test_special_characters_survive_each_form():
    table = Table("", "50 % of a_b | c", ["a|b"], [["1 ± 2"]], pd.DataFrame({"a": [1]}), "x < y", left=0)
    assert "1 ± 2" in table.text("md")
    assert r"| a\|b |" in table.text("md")
    assert r"50 \% of a\_b | c" in table.text("tex")
    assert "x &lt; y" in table.text("html")


@pytest.mark.parametrize(
    ("value", "text"), [(1.005, "1.00"), (-0.001, "0.00"), (math.nan, "–"), (None, "–"), (65.07, "65.07")]
)
def test_numbers(value, text):
    assert number(value) == text


def test_plus_minus():
    assert plus_minus(1.234, 0.056, signed=True) == "+1.23 ± 0.06"
    assert plus_minus(1.234, math.nan) == "1.23"
    assert plus_minus(math.nan, 0.1) == "–"
