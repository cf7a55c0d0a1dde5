"""Figures hold the data that they are drawn from, say what is missing, and come out the same each time."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from invented import declaration, fill

from viny.analysis import (
    collect,
    figures,
    figures_geometry,
    figures_images,
    figures_results,
    figures_scaling,
    figures_training,
    overview,
    published,
    style,
)
from viny.analysis.files import read_cells, read_frame
from viny.analysis.summary import summarize
from viny.errors import VinyError
from viny.study import Study


@pytest.fixture(autouse=True)
def looks():
    style.apply()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def summary():
    return summarize(published.published_cells())


def lines(ax, points):
    """The y-values of all lines of an axes that have `points` points."""
    return [line.get_ydata() for line in ax.get_lines() if len(line.get_ydata()) == points]


def text(fig):
    """All that is written in a figure."""
    found = [item.get_text() for item in fig.findobj(plt.Text)]
    return "\n".join(item for item in found if item)


def effects(**changes):
    rows = [
        {"family": family, "pretrain": size, "intermediate": task, "downstream": n, "effect": value, "se": 0.1}
        for family, size, task, n, value in [
            ("intermediate", 256, "cls_intel", 32, -3.0),
            ("intermediate", 256, "cls_intel", 128, -2.0),
            ("intermediate", 1024, "cls_intel", 32, -4.0),
            ("intermediate", 1024, "cls_intel", 128, math.nan),
            ("pretrain", 256, "none", 32, 5.0),
            ("pretrain", 256, "none", 128, 4.0),
        ]
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_miou_figure_holds_every_published_cell(summary):
    fig = figures_results.miou_by_size(summary)
    none, intel = fig.axes
    drawn = {tuple(values) for ax in (none, intel) for values in lines(ax, 6)}
    expected = {tuple(line["miou_percent"]) for _, line in summary.groupby(["pretrain", "intermediate"])}
    assert expected <= drawn
    assert len(expected) == 7
    bars = [container for container in none.collections if len(container.get_paths()) == 6]
    heights = [np.ptp(path.vertices[:, 1]) / 2 for path in bars[0].get_paths()]
    assert heights == pytest.approx([1.02, 0.21, 0.43, 0.51, 0.16, 0.01])
    assert [label.get_text() for label in none.get_xticklabels()] == ["250", "500", "1k", "2k", "4k", "6k"]


def test_missing_cells_are_marked_in_the_figure(summary):
    holes = summary.copy()
    holes.loc[(holes["pretrain"] == 45000) & (holes["downstream"] == 500), "miou_percent"] = math.nan
    fig = figures_results.miou_by_size(holes)
    crosses = [line.get_xdata() for ax in fig.axes for line in ax.get_lines() if line.get_gid() == "missing"]
    assert crosses == [[500], [500]]
    assert "no result yet" in text(fig)


def test_changes_by_task_and_by_pretraining():
    fig = figures_results.change_by_intermediate(effects())
    (ax,) = fig.axes
    assert any(np.allclose(line, [-3, -2]) for line in lines(ax, 2))
    assert [line.get_xdata() for line in ax.get_lines() if line.get_gid() == "missing"] == [[128]]
    (ax,) = figures_results.change_by_pretraining(effects()).axes
    assert any(np.allclose(line, [5, 4]) for line in lines(ax, 2))


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (
            lambda: figures_results.change_by_intermediate(effects(family="pretrain")),
            "with and without an intermediate",
        ),
        (lambda: figures_results.change_by_pretraining(effects(effect=math.nan)), "with and without pre-training"),
        (lambda: figures_scaling.gain_per_doubling(pd.DataFrame({"gain": [math.nan]})), "at least two sizes"),
        (
            lambda: figures_scaling.effective_data(pd.DataFrame({"equivalent": [math.nan], "pretrain": [1]})),
            "needs cells without pre-training",
        ),
        (lambda: figures_scaling.gain_against_compute(pd.DataFrame({"miou_percent": [1.0]})), "not recorded"),
        (lambda: figures_training.training_curves(pd.DataFrame({"stage": []}), "pretrain"), "No pre-training run"),
        (lambda: figures_images.segmentations([]), "No cell"),
        (lambda: figures_images.failures([]), "No cell"),
        (lambda: figures_images.reconstructions([]), "No encoder"),
        (lambda: figures_geometry.similarity_maps([]), "geometry"),
        (lambda: figures_geometry.similarity_by_distance(pd.DataFrame()), "geometry"),
    ],
)
def test_what_cannot_be_drawn_says_why(draw, sentence):
    fig = draw()
    assert sentence in text(fig)
    assert not fig.axes


def test_beside_the_paper_shows_both(summary):
    ours = published.published_cells()
    ours["miou_percent"] += 2.0
    left, right = figures_results.beside_paper(published.beside_paper(ours)).axes
    points = np.concatenate([line.get_xydata() for line in left.get_lines() if line.get_gid() != "diagonal"])
    there = points[np.isclose(points[:, 0], 43.73)]
    assert np.isclose(there[:, 1], 45.73).any()
    assert sum(np.allclose(line, 2.0) for line in lines(right, 6)) == 7
    fig = figures_results.beside_paper(published.beside_paper(ours.assign(downstream=ours["downstream"] + 7)))
    assert "no measured cell" in text(fig)


def test_scaling_figure_tells_the_laws_apart(summary):
    sizes = np.geomspace(250, 6000, 5)
    curve = {"axis": "downstream", "intermediate": "none", "downstream": sizes, "low": 50.0, "high": 60.0}
    curves = pd.concat(
        pd.DataFrame({**curve, "pretrain": size, "law": law, "miou_percent": 55.0})
        for size, law in ((0, "power"), (45000, "log"))
    )
    fits = pd.DataFrame({"determined": [True, False]})
    fig = figures_scaling.scaling_fits(summary, curves, fits)
    assert len(fig.axes) == 4  # labels and pre-training images, for two tasks
    looks = {line.get_gid(): line.get_linestyle() for line in fig.axes[0].get_lines() if line.get_gid()}
    assert looks == {"fit downstream 0 none": "-", "fit downstream 45000 none": "--"}
    assert "1 of 2 fits" in text(fig)


def test_effective_data_marks_bounds():
    rows = {"pretrain": 256, "intermediate": "none", "downstream": [32, 128], "equivalent": [90.0, 128.0]}
    bounds = {"equivalent_low": [60.0, math.nan], "equivalent_high": [120.0, math.inf], "bound": ["", ">"]}
    fig = figures_scaling.effective_data(pd.DataFrame({**rows, **bounds}))
    (ax,) = fig.axes
    assert any(np.allclose(line, [90, 128]) for line in lines(ax, 2))
    assert "only a bound" in text(fig)
    assert len([child for child in ax.get_children() if isinstance(child, plt.Annotation)]) == 1


def test_compute_figure_adds_up_all_stages(summary):
    fig = figures_scaling.gain_against_compute(published.published_cells())
    line = next(line for line in fig.axes[0].get_lines() if line.get_gid() == "passes 250 none")
    assert line.get_xdata().tolist() == [25_000, 4_525_000, 10_025_000, 20_025_000]
    assert line.get_ydata().tolist() == [43.73, 52.73, 55.91, 57.14]


def test_training_curves_hold_every_run(toy):
    collect.write(toy, toy.folder, "dataset")
    histories = read_frame(toy.folder / "histories.csv", [])
    fig = figures_training.training_curves(histories, "finetune")
    assert [len(lines(ax, 2)) for ax in fig.axes] == [18, 18]
    assert all(np.allclose(line, [1.0, 0.5]) for line in lines(fig.axes[0], 2))
    assert len(lines(figures_training.training_curves(histories, "pretrain").axes[0], 2)) == 6


def test_images_of_cells_and_encoders(toy):
    jobs = [job for job in toy.jobs("finetune") if job.coordinates["downstream"] == 32]
    cells = figures_images.one_seed([figures_images.load(job.folder / "examples.npz") for job in jobs])
    assert [(cell.place["pretrain"], cell.place["seed"]) for cell in cells][::2] == [
        ("0", "1"),
        ("256", "1"),
        ("1024", "1"),
    ]
    fig = figures_images.segmentations(cells)
    assert len(fig.axes) == 3 * (2 + 6)
    shown = fig.axes[1].get_images()[0].get_array()
    truth = cells[0].arrays["truth"][0]
    assert (shown[truth == 0] == shown[truth == 0][0]).all()
    assert "mIoU 20 %" in text(fig)
    assert len(figures_images.failures(cells).axes) == 6 * 9
    encoders = [figures_images.load(job.folder / "examples.npz") for job in toy.jobs("pretrain")]
    fig = figures_images.reconstructions(figures_images.one_seed(encoders))
    assert len(fig.axes) == 4 * 6
    masked = fig.axes[6].get_images()[0].get_array()
    assert (masked[encoders[0].arrays["mask"][0]] == 160).all()
    assert (fig.axes[12].get_images()[0].get_array() == encoders[0].arrays["reconstruction"][0]).all()


def test_geometry_figures(toy):
    collect.write(toy, toy.folder, "dataset")
    similarity = read_frame(toy.folder / "similarity.csv", [])
    fig = figures_geometry.similarity_by_distance(similarity)
    assert len(fig.axes) == 3
    assert np.allclose(lines(fig.axes[1], 15)[0], np.linspace(1, 0, 15))
    maps = [figures_images.load(job.folder / "similarity.npz") for job in toy.jobs("geometry")]
    fig = figures_geometry.similarity_maps(maps[:1])
    squares = [patch for patch in fig.axes[3].patches if patch.get_gid() == "reference"]
    assert squares[0].get_xy() == (0.5, 0.5)  # patch 5 of a 4 x 4 grid: second row, second column


def test_damaged_or_misplaced_arrays_are_named(tmp_path):
    path = tmp_path / "pretrain=1" / "examples.npz"
    with pytest.raises(VinyError, match="does not exist"):
        figures_images.load(path)
    path.parent.mkdir()
    path.write_bytes(b"no zip")
    with pytest.raises(VinyError, match="damaged"):
        figures_images.load(path)
    with pytest.raises(VinyError, match="belongs to"):
        figures_images.load(Path("examples.npz"))


def test_files_are_the_same_each_time_and_carry_the_note(summary, tmp_path):
    for name in ("one", "two"):
        fig = figures_results.miou_by_size(summary)
        style.save(fig, tmp_path / name / "miou", "procedural images")
        assert "procedural images" in text(fig)
    for suffix in ("png", "pdf"):
        one, two = ((tmp_path / name / f"miou.{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
    assert len(list(tmp_path.glob("*/*"))) == 4


SHAPES = {
    "one size, one seed": {"pretrain": [0, 256], "intermediate": ["none"], "downstream": [32], "seeds": [1]},
    "no pre-training": {"pretrain": [0], "intermediate": ["none"], "downstream": [32], "seeds": [1, 2, 3]},
    "the paper's sizes from scratch": {"pretrain": [0], "intermediate": ["none"], "downstream": [250, 500]},
    "tasks alone": {"pretrain": [0], "downstream": [32, 128]},
    "nothing from scratch": {"pretrain": [256], "downstream": [32]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_commands_from_results_to_the_opening_page(tmp_path, shape):
    """Small studies of any shape go through, and what they cannot show says so."""
    from viny.analysis import beside, claims, effective_data, scaling, statistics, tables

    config = declaration(tmp_path, **SHAPES[shape])
    study = Study.from_config(config | {"geometry": {"enabled": max(config["grid"]["pretrain"]) > 0}})
    fill(study)
    collect.write(study, study.folder, "dataset")
    cells, out = f"--cells={study.folder / 'cells.csv'}", study.folder
    for module in (statistics, scaling, effective_data):
        assert module.main([cells, f"--output={out / 'statistics'}"]) == 0
    assert claims.main([cells, f"--geometry={out / 'geometry.csv'}", f"--output={out}"]) == 0
    arguments = [cells, f"--settings={out / 'settings.json'}", f"--geometry={out / 'geometry.csv'}"]
    assert tables.main([*arguments, f"--output={out / 'tables'}"]) == 0
    assert figures.main([cells, f"--statistics={out / 'statistics'}", f"--output={out / 'figures'}"]) == 0
    assert beside.main([cells, f"--output={out}"]) == 0
    assert figures_training.main([f"--histories={out / 'histories.csv'}", f"--output={out / 'figures'}"]) == 0
    assert overview.main([f"--folder={out}", f"--output={out / 'overview.html'}", "--note=a <note>"]) == 0
    page = (out / "overview.html").read_text()
    runs = len(study.cells)
    assert f"{runs // len(config['grid']['seeds'])} cells, {runs} run" in page
    assert "a &lt;note&gt;" in page
    assert page.count("data:image/png;base64,") == len(overview.FIGURES)
    assert read_cells(out / "cells.csv")["status"].eq("done").all()


def test_sizes_on_axes():
    from viny.analysis import names

    assert [names.size(n) for n in (0, 32, 250, 1000, 1024, 1500, 45000, 1_281_167)] == [
        *("0", "32", "250", "1k", "1,024", "1.5k", "45k", "1.28M")
    ]  # fmt: skip
