"""The page of a study as a document; what it does in a browser is tested in tests/browser."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import plotly.io
import pytest
from invented import change, fill, run, study_of
from simulated import drop
from simulated import study as simulated

from viny.analysis import published
from viny.analysis.analyze import analyze
from viny.analysis.frames import Tables, from_csv
from viny.analysis.observed import from_study

VARIANTS = {"slow": {"finetune": {"learning_rate": 1e-4}}}


class Document(HTMLParser):
    """Attributes of all elements by tag, text by id of the nearest section, and the content of scripts by id."""

    def __init__(self, path: Path):
        super().__init__()
        self.found: dict[str, list[dict]] = {}
        self.scripts: dict[str, str] = {}
        self.text = ""
        self.script: str | None = None
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        self.found.setdefault(tag, []).append(dict(attrs))
        self.script = dict(attrs).get("id", "") if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.script = None

    def handle_data(self, data):
        if self.script is None:
            self.text += data
        else:
            self.scripts[self.script] = data

    @property
    def ids(self) -> set[str]:
        return {attrs["id"] for elements in self.found.values() for attrs in elements if "id" in attrs}

    @property
    def charts(self) -> dict[str, list[dict]]:
        return json.loads(self.scripts["charts"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished study with everything that a page can show, analyzed."""
    study = study_of(tmp_path_factory.mktemp("page") / "results", VARIANTS, downstream=[32, 64, 128, 256])
    fill(study)
    for job in study.jobs.values():  # no two runs alike, so that there are errors and laws
        if job.stage == "pretrain":
            change(job, lambda result: result["metrics"].update(loss=0.3 + 0.01 * hash_of(result["coordinates"])))
    analyze(from_study(study), study.folder, command="viny analyze --configfile <mine>.yaml")
    return study.folder


def hash_of(coordinates: dict) -> int:
    return int(coordinates["seed"]) + coordinates["pretrain"] // 256


@pytest.fixture(scope="module")
def page(folder):
    return Document(folder / "overview.html")


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    analyze(published.tables(), folder, {"page"})
    return Document(folder / "overview.html")


def test_every_chart_is_one_that_plotly_knows(page, paper):
    assert {"miou", "change_by_pretraining", "effective_data", "gain_per_doubling", "variants"} <= page.charts.keys()
    assert {"forecast", "isoquants", "scaling_fits", "gain_against_compute"} <= paper.charts.keys()
    for document in (page, paper):
        for name, panels in document.charts.items():
            assert panels, name
            for panel in panels:
                assert panel["data"], name
                plotly.io.from_json(json.dumps({"data": panel["data"], "layout": panel["layout"]}))


def test_a_size_looks_the_same_in_all_charts(page):
    looks: dict[str, set] = {}
    for name in ("miou", "change_by_pretraining", "change_by_intermediate", "effective_data"):
        for panel in page.charts[name]:
            for trace in panel["data"]:
                symbol = trace["marker"]["symbol"]
                looks.setdefault(trace["meta"], set()).add((trace["line"]["color"], symbol.removesuffix("-open")))
    assert looks["256"] == {("var(--ramp-1)", "square")}
    assert looks["1,024"] == {("var(--ramp-8)", "triangle-up")}


def test_hovering_says_mean_interval_seeds(page):
    [bare, _] = page.charts["miou"]
    said = next(trace for trace in bare["data"] if trace["meta"] == "1,024")["hovertext"][0]
    assert said.startswith("<b>1,024, 32 labels</b><br>mIoU 44.09<br>95% interval 4")
    assert said.endswith("3 seeds: 43.69, 44.09, 44.49")


def test_links_lead_somewhere(folder, page):
    addresses = [attrs["href"] for attrs in page.found["a"]]
    files = [unquote(address) for address in addresses if not address.startswith("#")]
    assert {
        "cells.csv",
        "costs.csv",
        "variants.csv",
        "claims.md",
        "figures/miou.pdf",
        "statistics/summary.csv",
        "tables/variants.md",
    } <= set(files)
    assert "finetune/pretrain=256/intermediate=none/downstream=32/seed=1/history.jsonl" in files
    assert [name for name in files if not (folder / name).is_file()] == []
    assert {address[1:] for address in addresses if address.startswith("#")} <= page.ids


def test_the_answers_are_those_of_the_statistics(folder, page):
    effects = pd.read_csv(folder / "statistics/effects.csv", keep_default_na=False, na_values="")
    family = effects[(effects["family"] == "pretrain") & (effects["intermediate"] == "none")]
    row = family[(family["pretrain"] == 1024) & (family["downstream"] == 32)].iloc[0]
    text = " ".join(page.text.split())
    said = f"{row['effect']:+.1f} points of mIoU with 32 labels, 95% interval {row['low']:+.1f} to {row['high']:+.1f}"
    assert said.replace("-", "−") in text
    assert "confidence it helps in 0 and hurts in 8 of them" in text
    assert "viny analyze --configfile <mine>.yaml" in text
    assert "72 of 72 runs" in text


def test_every_run_is_a_row(page):
    rows = [attrs["data-stage"] for attrs in page.found["tr"] if "data-stage" in attrs]
    counts = {stage: rows.count(stage) for stage in rows}
    assert counts == {"Fine-tuning": 2 * 72, "Pre-training": 6, "Intermediate": 9, "Geometry": 15}
    curves = json.loads(page.scripts["curves-data"])
    boxes = [attrs for attrs in page.found["input"] if "data-curve" in attrs]
    assert {box["data-curve"] for box in boxes} == curves.keys()
    chosen = [curves[box["data-curve"]] for box in boxes if "checked" in box]
    assert [curve["label"] for curve in chosen][:2] == [
        "random start, 256 labels, seed 1",
        "256 images, 256 labels, seed 1",
    ] or chosen
    assert chosen[0] == {
        "stage": "Fine-tuning",
        "label": chosen[0]["label"],
        "epoch": [1, 2],
        "loss": [1, 0.5],
        "heldout": 0.5,
    }


def test_a_line_has_a_gap_where_a_declared_cell_has_no_result(tmp_path):
    labels, excluded = [32, 64, 128, 256], [{"pretrain": 1024, "downstream": 64}]
    study = study_of(tmp_path, geometry=False, intermediate=["none"], downstream=labels, exclude=excluded)
    fill(study)
    for seed in (1, 2, 3):
        run(study, 256, "none", 64, seed).metrics.unlink()
    analyze(from_study(study), tmp_path / "page", {"page"})
    charts = Document(tmp_path / "page/overview.html").charts
    for name in ("miou", "change_by_pretraining", "effective_data"):
        shown: dict[str, dict[float, bool]] = {"256": {}, "1,024": {}}
        for trace in (trace for panel in charts[name] for trace in panel["data"] if trace["meta"] in shown):
            points = shown[trace["meta"]]
            points |= {x: points.get(x, False) or y is not None for x, y in zip(trace["x"], trace["y"], strict=True)}
        assert [known for _, known in sorted(shown["256"].items())] == [True, False, True, True]
        assert list(shown["1,024"].values()) == [True, True, True]  # an excluded size is no gap
    lines = {trace["meta"]: trace["y"] for trace in charts["gain_per_doubling"][0]["data"]}
    assert [y is None for y in lines["256 pre-training images"]] == [True, True, False]
    lines = {trace["meta"]: trace["y"] for trace in charts["gain_against_compute"][0]["data"]}
    assert [y is None for y in lines["64 labels"]] == [False, True]
    assert [y is None for y in lines["32 labels"]] == [False, False, False]


def test_bounds_are_open_markers_that_no_line_joins(paper):
    for panel in paper.charts["effective_data"]:
        lines = {trace["meta"]: trace for trace in panel["data"] if "lines" in trace["mode"]}
        bounds = [trace for trace in panel["data"] if trace["marker"]["symbol"].endswith("-open")]
        assert bounds
        for bound in bounds:
            assert bound["mode"] == "markers+text"
            assert set(bound["text"]) <= {"↑", "↓"}
            known = dict(zip(lines[bound["meta"]]["x"], lines[bound["meta"]]["y"], strict=True))
            assert {known[x] for x in bound["x"]} == {None}


def test_encoders_from_elsewhere_have_an_answer(tmp_path):
    study = study_of(
        tmp_path, pretrain=[0, "released"], intermediate=["none"], downstream=[32, 64, 128], geometry=False
    )
    fill(study)
    analyze(from_study(study), tmp_path / "page", {"statistics", "page"})
    page = Document(tmp_path / "page/overview.html")
    rows = pd.read_csv(tmp_path / "page/statistics/encoders.csv", keep_default_na=False, na_values="")
    assert rows["encoder"].eq("released").all()
    assert rows["effect"].to_numpy() == pytest.approx(100 * 0.01 * 6.0224, abs=1e-3)  # log2(1 + 4096 / 64)
    text, row = " ".join(page.text.split()), rows.iloc[0]
    said = f"+6.0 points of mIoU with 32 labels, 95% interval +{row['low']:.1f} to +{row['high']:.1f}"
    assert f"Encoder released buys {said}" in text
    assert "32 labels with it do as well as more than 128 labels without it, 95% interval " in text
    assert "#pretraining" in {attrs["href"] for attrs in page.found["a"] if attrs.get("class") == "answer"}
    [panel] = page.charts["change_by_pretraining"]
    assert [trace["meta"] for trace in panel["data"]] == ["released"]


def test_runs_of_variants_are_named_and_those_that_are_shared_are_there_once(tmp_path):
    changes = VARIANTS | {"more": {"pretrain": {"epochs": 300}}}
    study = study_of(tmp_path, changes, geometry=False, intermediate=["none"])
    fill(study)
    [gone, *_] = (job for job in study.members["slow"] if job.variant)
    gone.metrics.unlink()
    analyze(from_study(study), study.folder, {"cells", "page"})
    page = Document(study.folder / "overview.html")
    rows = [(attrs["data-variant"], attrs["data-stage"]) for attrs in page.found["tr"] if "data-variant" in attrs]
    assert {row: rows.count(row) for row in rows} == {
        **{("base", "Fine-tuning"): 18, ("slow", "Fine-tuning"): 18, ("more", "Fine-tuning"): 12},
        **{("base", "Pre-training"): 6, ("more", "Pre-training"): 6},
    }
    assert len([attrs for attrs in page.found["td"] if attrs.get("data-value") == "no result yet"]) == 1
    labels = {curve["label"] for curve in json.loads(page.scripts["curves-data"]).values()}
    assert {"256 images, seed 1", "more, 256 images, seed 1", "slow, 256 images, 32 labels, seed 1"} <= labels
    links = {unquote(attrs["href"]) for attrs in page.found["a"]}
    assert "variants/more/pretrain/pretrain=256/seed=1/history.jsonl" in links
    again = from_csv(study.folder / "cells.csv")  # by hand, from the tables alone
    analyze(again, tmp_path / "again", {"page"})
    assert Document(tmp_path / "again/overview.html").found["tr"] == page.found["tr"]


def test_a_study_without_variants_has_no_column_for_them(tmp_path):
    study = study_of(tmp_path, geometry=False)
    analyze(from_study(study), tmp_path / "page", {"page"})
    assert not any("data-variant" in attrs for attrs in Document(tmp_path / "page/overview.html").found["tr"])


def test_a_published_study_has_no_runs(paper):
    assert "runs" not in paper.ids
    assert "arXiv" not in paper.text  # the note is given by the command
    assert "70 mIoU takes" in paper.text


def test_an_unfinished_study_says_so_and_shows_what_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = study_of(Path("results"), geometry=False)
    fill(study)
    log = run(study, 256, "none", 32, 1).log
    log.parent.mkdir(parents=True)
    log.touch()
    for seed in (1, 2, 3):
        run(study, 0, "none", 32, seed).metrics.unlink()
    analyze(from_study(study), study.folder / "partial")
    page = Document(study.folder / "partial/overview.html")
    assert "3 runs have no result yet." in page.text
    missing = [attrs for attrs in page.found["td"] if attrs.get("data-value") == "no result yet"]
    assert len(missing) == 3
    files = [unquote(attrs["href"]) for attrs in page.found["a"] if attrs["href"].startswith("../")]
    assert f"../../../{log}" in files
    assert all((study.folder / "partial" / name).is_file() for name in files)


def test_nothing_that_was_not_measured_is_shown(tmp_path):
    analyze(from_study(study_of(tmp_path)), tmp_path / "none")
    page = Document(tmp_path / "none/overview.html")
    assert page.charts == {}
    assert "img" not in page.found
    assert {attrs["id"] for attrs in page.found["section"]} == {"verdicts", "runs", "tables", "provenance"}
    assert "36 runs have no result yet" in page.text


def test_names_cannot_become_markup(tmp_path):
    evil = "</script><img src=x onerror=alert(1)>"
    cells = simulated(lambda p, t, d: 40 + d / 100 + (t != "none"), [0], [100, 200, 400], tasks=("none", evil))
    cells = cells.assign(study=evil, encoder=cells["intermediate"].where(cells["intermediate"] == evil, ""))
    settings = {"study": evil, "stages": {}, "leaks": evil, "claims": {}}
    analyze(Tables(drop(cells, downstream=400), settings), tmp_path, note=evil, command=evil)
    text = (tmp_path / "overview.html").read_text()
    page = Document(tmp_path / "overview.html")
    assert "img" not in page.found
    assert not any(name.startswith("on") for elements in page.found.values() for attrs in elements for name in attrs)
    assert "<title>Study &lt;/script&gt;" in text
    assert not re.search(r"<img[^>]*onerror", text)
    traces = [trace for panels in page.charts.values() for panel in panels for trace in panel["data"]]
    assert any(evil in trace["meta"] for trace in traces)
    assert not any("<img" in said for trace in traces for said in trace.get("hovertext", []))
