"""Figures hold the data that they are drawn from, say what is missing, and come out the same each time."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from invented import fill, jobs, study_of

from viny.analysis import figures, names, pictures, published, style
from viny.analysis.observed import from_study
from viny.analysis.summary import with_encoders
from viny.errors import VinyError


@pytest.fixture(autouse=True)
def looks():
    style.apply()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def summary():
    return with_encoders(published.published_cells())


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
    fig = figures.miou_by_size(summary)
    none, intel = fig.axes
    drawn = {tuple(values) for ax in (none, intel) for values in lines(ax, 6)}
    expected = {tuple(line["miou_percent"]) for _, line in summary.groupby(["pretrain", "intermediate"])}
    assert expected <= drawn
    assert len(expected) == 7
    bars = [container for container in none.collections if len(container.get_paths()) == 6]
    heights = [np.ptp(path.vertices[:, 1]) / 2 for path in bars[0].get_paths()]
    assert heights == pytest.approx(np.array([1.02, 0.21, 0.43, 0.51, 0.16, 0.01]) / np.sqrt(3))
    assert [label.get_text() for label in none.get_xticklabels()] == ["250", "500", "1k", "2k", "4k", "6k"]


def test_missing_cells_are_marked_in_the_figure(summary):
    holes = summary.copy()
    holes.loc[(holes["pretrain"] == 45000) & (holes["downstream"] == 500), "miou_percent"] = math.nan
    fig = figures.miou_by_size(holes)
    crosses = [line.get_xdata() for ax in fig.axes for line in ax.get_lines() if line.get_gid() == "missing"]
    assert crosses == [[500], [500]]
    gaps = [np.isnan(values.astype(float)).tolist() for ax in fig.axes for values in lines(ax, 6)]
    assert [False, True, False, False, False, False] in gaps
    assert "no result yet" in text(fig)


def test_changes_by_task_and_by_pretraining():
    fig = figures.change_by("intermediate", effects())
    (ax,) = fig.axes
    assert any(np.allclose(line, [-3, -2]) for line in lines(ax, 2))
    assert [line.get_xdata() for line in ax.get_lines() if line.get_gid() == "missing"] == [[128]]
    (ax,) = figures.change_by("pretrain", effects()).axes
    assert any(np.allclose(line, [5, 4]) for line in lines(ax, 2))


@pytest.mark.parametrize(
    ("draw", "sentence"),
    [
        (
            lambda: figures.change_by("intermediate", effects(family="pretrain")),
            "with and without an intermediate",
        ),
        (lambda: figures.change_by("pretrain", effects(effect=math.nan)), "with and without pre-training"),
        (
            lambda: figures.gain_per_doubling(
                pd.DataFrame({"gain": [math.nan], "intermediate": ["none"], "axis": ["downstream"]})
            ),
            "at least two sizes",
        ),
        (
            lambda: figures.effective_data(pd.DataFrame({"equivalent": [math.nan], "intermediate": ["none"]})),
            "needs cells without pre-training",
        ),
        (lambda: figures.gain_against_compute(pd.DataFrame({"miou_percent": [1.0]})), "not recorded"),
        (lambda: figures.training_curves(pd.DataFrame({"stage": []}), "pretrain"), "No pre-training run"),
        (lambda: figures.similarity_by_distance(pd.DataFrame()), "geometry"),
    ],
)
def test_what_cannot_be_drawn_says_why(draw, sentence):
    fig = draw()
    assert sentence in text(fig)
    assert not fig.axes


def test_beside_the_paper_shows_both(summary):
    ours = published.published_cells()
    ours["miou_percent"] += 2.0
    left, right = figures.beside_paper(published.beside_paper(ours)).axes
    points = np.concatenate([line.get_xydata() for line in left.get_lines() if line.get_gid() != "diagonal"])
    there = points[np.isclose(points[:, 0], 43.73)]
    assert np.isclose(there[:, 1], 45.73).any()
    assert sum(np.allclose(line, 2.0) for line in lines(right, 6)) == 7
    fig = figures.beside_paper(published.beside_paper(ours.assign(downstream=ours["downstream"] + 7)))
    assert "no measured cell" in text(fig)


def test_scaling_figure_tells_the_laws_apart(summary):
    sizes = np.geomspace(250, 6000, 5)
    curve = {"axis": "downstream", "intermediate": "none", "downstream": sizes, "low": 50.0, "high": 60.0}
    curves = pd.concat(
        pd.DataFrame({**curve, "pretrain": size, "law": law, "miou_percent": 55.0})
        for size, law in ((0, "power"), (45000, "log"))
    )
    fits = pd.DataFrame({"determined": [True, False]})
    fig = figures.scaling_fits(summary, curves, fits)
    assert len(fig.axes) == 4  # labels and pre-training images, for two tasks
    looks = {line.get_gid(): line.get_linestyle() for line in fig.axes[0].get_lines() if line.get_gid()}
    assert looks == {"fit downstream 0 none": "-", "fit downstream 45000 none": "--"}
    assert "1 of 2 fits" in text(fig)


def test_effective_data_marks_bounds():
    sizes = {"downstream": [32, 64, 128], "equivalent": [70.0, 90.0, 128.0]}
    rows = {"pretrain": 256, "intermediate": "none", **sizes}
    ends = {"equivalent_low": [60.0, 60.0, math.nan], "equivalent_high": [80.0, 120.0, math.inf]}
    bounds = {**ends, "bound": ["", "", ">"]}
    fig = figures.effective_data(pd.DataFrame({**rows, **bounds}))
    (ax,) = fig.axes
    joined = [
        line.get_ydata() for line in ax.get_lines() if len(line.get_xdata()) == 3 and line.get_gid() != "diagonal"
    ]
    assert len(joined) == 1
    np.testing.assert_equal(np.asarray(joined[0]), [70, 90, math.nan])  # the bound stands alone
    assert "only a bound" in text(fig)
    assert len([child for child in ax.get_children() if isinstance(child, plt.Annotation)]) == 1


def test_compute_figure_adds_up_all_stages(summary):
    fig = figures.gain_against_compute(published.published_cells())
    line = next(line for line in fig.axes[0].get_lines() if line.get_gid() == "samples 250 none")
    assert line.get_xdata().tolist() == [25_000, 4_525_000, 10_025_000, 20_025_000]
    assert line.get_ydata().tolist() == [43.73, 52.73, 55.91, 57.14]


def test_files_are_the_same_each_time_and_carry_the_note(summary, tmp_path):
    for name in ("one", "two"):
        fig = figures.miou_by_size(summary)
        style.save(fig, tmp_path / name / "miou", "procedural images")
        assert "procedural images" in text(fig)
    for suffix in ("png", "pdf"):
        one, two = ((tmp_path / name / f"miou.{suffix}").read_bytes() for name in ("one", "two"))
        assert one == two
    assert len(list(tmp_path.glob("*/*"))) == 4


def test_sizes_on_axes():
    assert [names.size(n) for n in (0, 32, 250, 1000, 1024, 1500, 45000, 1_281_167)] == [
        *("0", "32", "250", "1k", "1,024", "1.5k", "45k", "1.28M")
    ]  # fmt: skip


def test_encoders_from_elsewhere_are_dotted_lines(tmp_path):
    study = study_of(tmp_path, pretrain=[0, 256, "released"])
    fill(study)
    fig = figures.miou_by_size(with_encoders(from_study(study).cells))
    dotted = [line for line in fig.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert [line.get_label() for line in fig.legends[0].get_lines()][-1] == "released"
    assert len(dotted) == 1


def test_training_curves_hold_every_run(toy):
    histories = from_study(toy).histories
    fig = figures.training_curves(histories, "finetune")
    assert [len(lines(ax, 2)) for ax in fig.axes] == [18, 18]
    assert all(np.allclose(line, [1.0, 0.5]) for line in lines(fig.axes[0], 2))
    assert len(lines(figures.training_curves(histories, "pretrain").axes[0], 2)) == 6


def load(found, name="examples.npz"):
    return [pictures.load(job.folder / name, job.coordinates) for job in found]


def test_images_of_cells_and_encoders(toy):
    cells = load(job for job in jobs(toy, "finetune") if job.coordinates["downstream"] == 32)[:6:3]
    fig = pictures.segmentations(cells)
    assert len(fig.axes) == 3 * (2 + 2)
    shown = fig.axes[1].get_images()[0].get_array()
    truth = cells[0].arrays["truth"][0]
    assert (shown[truth == 0] == shown[truth == 0][0]).all()
    assert "mIoU 20 %" in text(fig)
    assert len(pictures.failures(cells).axes) == 2 * 9
    encoders = load(jobs(toy, "pretrain"))
    fig = pictures.reconstructions(encoders[:2])
    assert len(fig.axes) == 4 * 6
    masked = fig.axes[6].get_images()[0].get_array()
    assert (masked[encoders[0].arrays["mask"][0]] == 160).all()
    assert (fig.axes[12].get_images()[0].get_array() == encoders[0].arrays["reconstruction"][0]).all()


def test_of_each_encoder_the_fewest_labels_and_the_first_seed_are_drawn(toy):
    found = pictures.figures(toy.jobs.values())
    assert set(found) == {"examples", "failures", "reconstructions", "similarity_maps"}
    assert len(found["failures"]().axes) == 6 * 9
    (jobs(toy, "finetune")[0].folder / "examples.npz").unlink()
    assert len(pictures.figures(toy.jobs.values())["failures"]().axes) == 6 * 9  # the next one stands in


@pytest.mark.parametrize("count", [2, 5, 12])
def test_pictures_know_any_number_of_classes(tmp_path, count):
    classes = tuple(f"class {i}" for i in range(count))
    study = study_of(tmp_path, pretrain=[0], intermediate=["none"], seeds=[1], geometry=False)
    fill(study, classes)
    [cell, _] = load(jobs(study, "finetune"))
    cell.arrays["truth"][0, :2] = pictures.IGNORE
    drawn = pictures.class_picture(cell.arrays["truth"][0], list(classes))
    assert (drawn[:2] == 1).all()
    assert len(np.unique(drawn[2:].reshape(-1, 3), axis=0)) == count
    labels = [entry.get_text() for entry in pictures.segmentations([cell]).legends[0].get_texts()]
    assert labels == [*classes, "ignored"]


def test_geometry_figures(toy):
    fig = figures.similarity_by_distance(from_study(toy).similarity)
    assert len(fig.axes) == 3
    assert np.allclose(lines(fig.axes[1], 15)[0], np.linspace(1, 0, 15))
    fig = pictures.similarity_maps(load(jobs(toy, "geometry")[:1], "similarity.npz"))
    squares = [patch for patch in fig.axes[3].patches if patch.get_gid() == "reference"]
    assert squares[0].get_xy() == (0.5, 0.5)  # patch 5 of a 4 x 4 grid: second row, second column


def test_damaged_arrays_are_named(tmp_path):
    path = tmp_path / "examples.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(VinyError, match="damaged"):
        pictures.load(path, {})
