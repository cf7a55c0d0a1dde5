"""The whole analysis: from results, from a table of cells, and of the published numbers."""

import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser

import pandas as pd
import pytest
from invented import change, fill, run, study_of
from simulated import study as simulated

from viny.analysis import published
from viny.analysis.analyze import analyze, main
from viny.analysis.frames import from_csv
from viny.analysis.observed import from_study
from viny.errors import VinyError
from viny.survey import analysis_is_current

SHAPES = {
    "one size, one seed": {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32], "seeds": [1]},
    "no pre-training": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "geometry": False},
    "the paper's sizes": {"pretrain": [0], "intermediate": ["none"], "downstream": [250, 500], "geometry": False},
    "tasks alone": {"pretrain": [0], "downstream": [32, 128], "geometry": False},
    "nothing from scratch": {"pretrain": [256], "downstream": [32], "seeds": [1, 2]},
    "an encoder from elsewhere": {"pretrain": [0, 256, "released"], "intermediate": ["none"], "seeds": [1, 2]},
    "only encoders from elsewhere": {"pretrain": ["released", "other"], "seeds": [1, 2]},
}


class Outline(HTMLParser):
    """What a page consists of, by tag: attributes and the number of elements that were opened and not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.found: dict[str, list[dict]] = {}
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("shape", SHAPES)
def test_small_studies_of_any_shape_go_through(tmp_path, shape):
    study = study_of(tmp_path, **SHAPES[shape])
    fill(study)
    analyze(from_study(study), study.folder, note="a <note>")
    page = (study.folder / "overview.html").read_text()
    runs = len(study.cells)
    cells = runs // len(study.config.grid.seeds)
    assert f"{cells} cell{'s' * (cells > 1)}, {runs} run" in page
    assert "a &lt;note&gt;" in page
    outline = Outline(page)
    assert page.startswith("<!doctype html>")
    assert outline.open == []
    assert outline.found["html"] == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in outline.found["meta"]
    pictures = {"examples", "failures", "reconstructions", "similarity_maps"}
    drawn = {path.stem for path in (study.folder / "figures").glob("*.png")}
    assert len(outline.found["img"]) == len(pictures & drawn) > 1
    assert from_csv(study.folder / "cells.csv").cells["status"].eq("done").all()
    assert analysis_is_current(study)


def test_a_study_without_any_result_yet_is_shown_as_missing(tmp_path):
    study = study_of(tmp_path)
    analyze(from_study(study), study.folder)
    assert "36 runs have no result yet" in (study.folder / "overview.html").read_text()
    verdicts = {claim["verdict"] for claim in json.loads((study.folder / "claims.json").read_text())["claims"]}
    assert verdicts == {"not tested"}


def test_runs_that_were_computed_differently_stand_beside_the_verdicts(toy):
    analyze(from_study(toy), toy.folder, {"page"})
    assert "Not all runs were computed alike" not in (toy.folder / "overview.html").read_text()
    change(run(toy, 0, "none", 32, 1), lambda result: result["provenance"].update(device="cuda"))
    analyze(from_study(toy), toy.folder, {"page"})
    page = (toy.folder / "overview.html").read_text()
    assert "Not all runs were computed alike" in page
    assert "Runs of finetune differ in their kind of device: cpu (35), cuda (1)." in page


def test_parts_alone(toy, tmp_path):
    analyze(from_study(toy), tmp_path / "out", {"claims", "tables"})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"claims.json", "claims.md", "tables"}
    analyze(from_study(toy), tmp_path / "out", {"cells"})
    assert "key" not in json.loads((tmp_path / "out/settings.json").read_text())  # other parts may be older
    with pytest.raises(VinyError, match=r"no such part.*figures.*parts are statistics"):
        analyze(from_study(toy), tmp_path / "out", {"figure"})


def test_a_table_from_elsewhere(tmp_path):
    cells = simulated(lambda p, t, d: 50 + p + d, [0, 1], [1, 2])
    cells.drop(columns="encoder").to_csv(tmp_path / "mine.csv", index=False)
    assert main([str(tmp_path / "mine.csv"), "--output", str(tmp_path / "out"), "--only", "statistics,tables"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"statistics", "tables"}


def test_a_study_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    axes = "{pretrain: [0], intermediate: [none], downstream: [32], seeds: [1, 2]}"
    (tmp_path / "study.yaml").write_text(
        f"study: toy\nresults: out\ndata: {{procedural: {{}}}}\nfinetune: {{test_images: 50}}\ngrid: {axes}\n"
    )
    words = ["--configfile", "study.yaml", "--config", "grid.seeds=[1]", "--only", "tables,page"]
    assert main(words) == 0
    page = (tmp_path / "out/toy/overview.html").read_text()
    assert "procedural images, not a result about real ones" in page
    assert "1 cell, 1 run." in page


def test_mistakes_in_the_command_line(tmp_path):
    published.published_cells().to_csv(tmp_path / "cells.csv", index=False)
    assert main([str(tmp_path / "cells.csv")]) == 2
    assert main([str(tmp_path / "cells.csv"), "--published", "--output", str(tmp_path)]) == 2
    assert main([str(tmp_path / "nothing.csv"), "--output", str(tmp_path)]) == 1


def test_the_command_starts_fast():
    code = "import sys, viny.analysis.analyze; print({'matplotlib', 'scipy', 'pandas', 'torch'} & set(sys.modules))"
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert done.stdout == "set()\n"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """The paper's numbers through the whole analysis."""
    folder = tmp_path_factory.mktemp("published")
    assert main(["--published", "--output", str(folder)]) == 0
    return folder


def test_tables_hold_the_papers_numbers(paper):
    rows = (paper / "tables/tableA2_pretrained.md").read_text().splitlines()
    assert "|  | 6,000 | 87.93 ± 0.04 | 68.76 ± 0.13 |" in rows
    assert "AdamW & 0.002 & 0.0001 & 0.5 & 70, 90, 95" in (paper / "tables/tableA1_settings.tex").read_text()
    assert '<td class="l">CLS-Intel</td>' in (paper / "tables/tableA3_intermediate.html").read_text()
    assert len((paper / "cells.csv").read_text().splitlines()) == 43


def test_every_figure_and_a_verdict_on_every_claim(paper):
    figures = {path.stem for path in (paper / "figures").glob("*.png")}
    assert figures == {path.stem for path in (paper / "figures").glob("*.pdf")}
    assert {"miou", "change_by_intermediate", "effective_data", "scaling_fits"} <= figures

    def no_constant(name):
        raise AssertionError(f"{name} is not JSON")

    document = json.loads((paper / "claims.json").read_text(), parse_constant=no_constant)
    page, verdicts = (paper / "overview.html").read_text(), (paper / "claims.md").read_text()
    for claim in document["claims"]:
        assert claim.keys() >= {"criterion", "whose", "scope", "direction", "numbers", "cells"}
        assert f"## {claim['id']}. {claim['statement']}" in verdicts
        assert claim["statement"] in page.replace("&#39;", "'")
        assert "\n" not in claim["reason"]
    assert "nan" not in verdicts.lower().split()
    assert "43.73 ± 1.02" in page


GOLDEN = {  # verdict and deciding number of each claim about the published study
    "1a": ("undecided", "weakest_low", -0.08850291934854493),
    "1b": ("supported", "weakest_low", 0.44205521536620673),
    "1c": ("undecided", "weakest_low", -1.3389570664678316),
    "2a": ("supported", "low", -1.2588229811872524),
    "2b": ("negligible", "low", -0.07735545526534773),
    "2c": ("supported", "low", -8.36321326958993),
    "2d": ("supported", "low", -2.5659518070807166),
    "2e": ("supported", "low", -2.221248856542779),
    "2f": ("undecided", "weakest_low", 12.304695970853198),
    "2g": ("supported", "weakest_low", 2.9541345134381443),
    "3": ("undecided", "low", 0.10371163382912285),
    "4a": ("undecided", "weakest_low", -1.0596372198297344),
    "4b": ("undecided", "weakest_low", -8.948896398225232),
    "4c": ("supported", "low", -7.689527957137781),
    "4d": ("supported", "low", 0.8627883797665451),
    "5a": ("undecided", "as_claimed", 4),
    "5b": ("undecided", "as_claimed", 2),
    "5c": ("undecided", "as_claimed", 1),
    "6a": ("not tested", None, None),
    "6b": ("not tested", None, None),
    "6c": ("not tested", None, None),
    "6d": ("not tested", None, None),
}


def test_the_published_verdicts_and_their_numbers_stay(paper):
    claims = {claim["id"]: claim for claim in json.loads((paper / "claims.json").read_text())["claims"]}
    assert {key: claim["verdict"] for key, claim in claims.items()} == {key: row[0] for key, row in GOLDEN.items()}
    for key, (_, name, value) in GOLDEN.items():
        if name:
            assert claims[key]["numbers"][name] == pytest.approx(value, rel=1e-6), key


def test_the_published_effects_and_the_worth_of_pretraining_stay(paper):
    effects = pd.read_csv(paper / "statistics/effects.csv", keep_default_na=False, na_values="")
    sums = effects.groupby("family")[["effect", "se", "p_holm"]].sum()
    expected = {
        "downstream_step": [109.27, 12.57910979, 0.0666543809],
        "intermediate": [-56.96, 6.345445433, 0.8734621044],
        "pretrain": [125.87, 6.291153694, 0.02492367628],
        "pretrain_step": [61.58, 10.51835606, 8.834894062],
    }
    for family, values in expected.items():
        assert sums.loc[family].tolist() == pytest.approx(values, rel=1e-6), family
    worth = pd.read_csv(paper / "statistics/effective_data.csv", keep_default_na=False, na_values="")
    ends = worth[["equivalent", "equivalent_low", "equivalent_high"]].round()
    assert ends.iloc[0].tolist() == [925, 834, 1055]
    assert ends.iloc[4].tolist() == [5160, 4504, math.inf]
    assert worth["bound"].tolist()[5] == ">"
    known = worth.loc[worth["bound"].isna(), ["equivalent", "equivalent_low", "equivalent_high"]]
    assert known["equivalent"].sum() == pytest.approx(76076.67401, rel=1e-6)


def test_what_a_study_no_longer_has_is_removed(tmp_path):
    axes = {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32], "seeds": [1]}
    for geometry in (True, False):
        study = study_of(tmp_path, geometry=geometry, **axes)
        fill(study)
        analyze(from_study(study), study.folder, {"cells", "figures"})
        for name in ("geometry.csv", "figures/similarity_maps.png", "figures/similarity_by_distance.pdf"):
            assert (study.folder / name).exists() == geometry
