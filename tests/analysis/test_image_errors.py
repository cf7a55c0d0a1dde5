"""Uncertainty of the test images: standard errors, and intervals over seeds and images, in simulated studies."""

import numpy as np
import pytest
import torch
from invented import change, fill, run, study_of
from scipy import stats

from viny.analysis.analyze import analyze
from viny.analysis.figures import miou_by_size
from viny.analysis.frames import read_frame
from viny.analysis.image_errors import interval, over_images, scores
from viny.analysis.observed import from_study
from viny.errors import VinyError
from viny.tasks import metrics

PIXELS, CLASSES = 256, 3


def runs_of(random, images, seeds, cells=2, between_seeds=0.25, between_images=0.8, together=0.4):
    """Confusion matrices (cells, seeds, images, K, K) of runs whose seeds, and images, differ by chance.

    An image is hard or easy for all runs and has a share of foreground of its own; each run is better or worse
    (`between_seeds`) and finds other images hard (`together`); the second cell is better than the first by half.
    """
    share = random.dirichlet((2, 4, 1), images)  # of the classes in each image
    truth = np.array([random.multinomial(PIXELS, p) for p in share])
    hard = random.normal(0, between_images, images)
    level = 0.5 * np.arange(cells)[:, None, None] + random.normal(0, between_seeds, (cells, seeds, 1))
    skill = level + hard + random.normal(0, together, (cells, seeds, images)) + 1.0
    right = 1 / (1 + np.exp(-skill))
    found = np.zeros((cells, seeds, images, CLASSES, CLASSES), int)
    for k in range(CLASSES):
        hit = random.binomial(truth[:, k], right)
        first = random.binomial(truth[:, k] - hit, 0.5)
        found[..., k, k], found[..., k, k - 1], found[..., k, k - 2] = hit, first, truth[:, k] - hit - first
    return found


def simulate(images, seeds, studies=300, miou="dataset", draws=400, **noise):
    """How often intervals hold the truth: (of a mean, of a difference, of a mean if images are left out)."""
    random = np.random.default_rng(1)
    one = np.ones((1, 500))
    large = np.mean([[score(runs, one, miou) for runs in runs_of(random, 500, 40, **noise)] for _ in range(6)], axis=0)
    true = large.mean(axis=(1, 2))
    held = np.zeros(3)
    for _ in range(studies):
        cells = runs_of(random, images, seeds, **noise)
        weights = random.multinomial(images, np.full(images, 1 / images), draws).astype(float)
        now, drawn = (np.array([score(runs, w, miou) for runs in cells]) for w in (np.ones((1, images)), weights))
        now = now[..., 0]
        for place, (value, redrawn, truth) in enumerate(
            [(now[0], drawn[0], true[0]), (now[1] - now[0], drawn[1] - drawn[0], true[1] - true[0])]
        ):
            se = value.std(ddof=1) / np.sqrt(seeds)
            low, high = interval(value.mean(), se, seeds - 1, over_images(redrawn), 0.95)
            held[place] += low <= truth <= high
        reach = stats.t.ppf(0.975, seeds - 1) * now[0].std(ddof=1) / np.sqrt(seeds)
        held[2] += abs(now[0].mean() - true[0]) <= reach
    return held / studies


def score(runs, weights, miou):
    return np.array([scores(weights, confusions, miou) for confusions in runs])


def test_scores_are_those_of_the_tasks():
    [runs] = runs_of(np.random.default_rng(0), 30, 1, cells=1)
    runs[0, 3] = 0  # an image of ignored pixels
    runs[0, :, 2] = runs[0, :, :, 2] = 0  # a class that never occurs
    expected = metrics.segmentation_scores(torch.from_numpy(runs[0]))
    once = np.ones((1, 30))
    assert scores(once, runs[0]) == pytest.approx(expected["miou"])
    assert scores(once, runs[0], "per_image") == pytest.approx(expected["miou_per_image"])
    twice = scores(2 * once, runs[0], "per_image")
    assert twice == pytest.approx(expected["miou_per_image"])


def test_without_images_the_interval_is_students():
    for df in (1, 2, 5):
        reach = stats.t.ppf(0.975, df)
        assert interval(3, 1, df, (0, 0), 0.95) == pytest.approx((3 - reach, 3 + reach), rel=1e-3)
    assert interval(3, 0, 2, (1, 0), 0.95) == pytest.approx((3 - 1.96, 3 + 1.96), rel=1e-3)
    assert np.isnan(interval(3, np.nan, 0, (1, 0), 0.95)).all()


def test_what_seeds_and_images_share_is_not_counted_twice():
    """Runs without anything in common: the mean of n varies by what one run varies over its images, over root n."""
    draws = np.random.default_rng(0).normal(0, 1, (4, 20_000))
    se, common = over_images(draws)
    assert (se, common) == pytest.approx((0.5, 0.25), rel=0.05)
    assert over_images(np.tile(draws[:1], (4, 1))) == pytest.approx((1, 0), abs=0.02)
    opposite = np.stack([draws[0], 0.1 * draws[1] - draws[0]])  # by chance, in a difference of alike runs
    images = over_images(opposite)
    assert np.diff(interval(0, 0.3, 2, images, 0.95)) >= np.diff(interval(0, 0.3, 2, (0, 0), 0.95))


def test_intervals_over_seeds_and_images_hold_the_truth():
    """Measured with 600 studies a setting: docs/statistics.md."""
    mean, difference, seeds_alone = simulate(100, 3, studies=150, draws=150, between_seeds=0.05)
    assert 0.9 <= mean <= 1
    assert 0.9 <= difference <= 1
    assert seeds_alone < 0.85


def keep_confusions(study, random):
    """The matrices of 40 test images beside each run's result; images are alike in all runs, and runs differ a bit."""
    truth, hard = random.multinomial(256, (0.3, 0.6, 0.1), 40), random.normal(1, 0.5, 40)
    for job in study.jobs.values():
        if job.stage == "finetune":
            right = 1 / (1 + np.exp(-hard - 0.2 * (job.coordinates["pretrain"] > 0) - random.normal(0, 0.05, 40)))
            hit = random.binomial(truth, right[:, None])
            found = np.zeros((40, 3, 3), np.int32)
            found[:, range(3), range(3)], found[:, range(3), [1, 2, 0]] = hit, truth - hit
            names = np.array([f"image {number}" for number in range(40)])
            np.savez_compressed(job.folder / "confusions.npz", names=names, confusions=found)


def test_the_analysis_says_what_other_test_images_would_change(tmp_path):
    study = study_of(tmp_path, geometry=False)
    fill(study)
    parts = {"statistics", "tables", "claims", "page"}
    analyze(from_study(study), tmp_path / "older", parts)
    summary = read_frame(tmp_path / "older/statistics/summary.csv", ["miou_se_images"])
    assert summary["miou_se_images"].isna().all()
    assert "Other test images" not in (tmp_path / "older/overview.html").read_text()
    keep_confusions(study, np.random.default_rng(0))
    analyze(from_study(study), tmp_path / "newer", parts)
    summary = read_frame(tmp_path / "newer/statistics/summary.csv", ["miou_se_images"])
    effects = read_frame(tmp_path / "newer/statistics/effects.csv", ["se_images"])
    assert (summary["miou_se_images"] > 0.5).all()
    assert (effects["se_images"] < 0.5 * summary["miou_se_images"].min()).all()  # pairs share what is hard
    for frame, value, prefix in ((summary, "miou_percent", "miou_"), (effects, "effect", "")):
        assert (frame[f"{prefix}low_seeds_images"] < frame[value]).all()
        assert (frame[f"{prefix}high_seeds_images"] > frame[value]).all()
    mean, difference = summary["miou_se_images"].median(), effects["se_images"].median()
    sentence = f"would add a standard error of {mean:.2f} points to a mean and {difference:.2f} to a difference"
    for path in ("overview.html", "tables/table1_from_scratch.md"):
        assert sentence in (tmp_path / "newer" / path).read_text()


def test_a_damaged_file_is_named(tmp_path):
    study = study_of(tmp_path, geometry=False)
    fill(study)
    path = run(study, 256, "none", 32, 2).folder / "confusions.npz"
    for content in (b"", b"PK no archive"):
        path.write_bytes(content)
        with pytest.raises(VinyError, match=r"confusions\.npz is damaged .* delete its folder"):
            analyze(from_study(study), tmp_path / "out", {"statistics"})
    np.savez(path, names=np.array(["a"]), confusions=np.zeros((2, 3, 3), np.int32))
    with pytest.raises(VinyError, match="no square matrix for each image"):
        analyze(from_study(study), tmp_path / "out", {"statistics"})


def test_chance_stands_beside_the_scores(tmp_path):
    study = study_of(tmp_path, geometry=False)
    fill(study)
    for job in study.jobs.values():
        if job.stage == "finetune":
            position = 0.3 if job.coordinates["downstream"] == 32 else 0.35
            chance = {
                name: {"pixel_accuracy": 0.5, "miou": miou, "miou_per_image": 0.1}
                for name, miou in (("majority", 0.2), ("position", position))
            }
            change(job, lambda result, chance=chance: result["metrics"].update(chance=chance))
    analyze(from_study(study), tmp_path / "out", {"statistics", "tables", "cells"})
    for name in ("cells.csv", "statistics/summary.csv"):
        frame = read_frame(tmp_path / "out" / name, ["position_miou_percent", "majority_accuracy_percent"])
        assert set(frame["position_miou_percent"]) == {30, 35}
    [legend] = miou_by_size(frame.assign(miou_se=0.0)).legends
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["position only", "majority class"]
    note = (tmp_path / "out/tables/tableA2_pretrained.md").read_text()
    assert "scores an mIoU of 30.0 to 35.0, the commonest class of all 20.0." in note
