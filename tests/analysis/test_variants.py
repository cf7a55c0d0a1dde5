"""What variants change: known differences are found, what is the same or missing is said."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from invented import fill, study_of
from scipy import stats

from viny.analysis import figures, style, variants
from viny.analysis.analyze import analyze
from viny.analysis.observed import from_study
from viny.errors import VinyError

CELL = {"pretrain": 0, "intermediate": "none", "downstream": 32}


def cells(**scores):
    """variants.csv of one cell with the mIoU of each seed (NaN: missing) by variant."""
    rows = [
        {"study": "toy", "variant": name, **CELL, "seed": seed, "miou_percent": miou, "accuracy_percent": 50.0,
         "train_seconds": 20.0 if name == "slow" else 10.0, "pretrain_seconds": 0.0, "intermediate_seconds": 0.0}
        for name, found in scores.items() for seed, miou in enumerate(found, 1)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def row(compared, variant, scope=variants.CELL):
    [found] = compared[(compared["variant"] == variant) & (compared["scope"] == scope)].itertuples()
    return found


def test_a_difference_is_paired_by_seed():
    compared = variants.compare(cells(base=[40.0, 41.0, 42.0], slow=[41.0, 42.2, 42.9]))
    found, paired = row(compared, "slow"), np.array([1.0, 1.2, 0.9])
    low, high = stats.t.interval(0.95, 2, paired.mean(), stats.sem(paired))
    assert (found.n, found.effect, found.se) == (3, pytest.approx(paired.mean()), pytest.approx(stats.sem(paired)))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.p == pytest.approx(stats.ttest_1samp(paired, 0).pvalue)
    assert (found.miou_percent, found.base_percent, found.seconds_ratio) == (
        pytest.approx(42.0333, abs=1e-3),
        41.0,
        2.0,
    )


def test_p_is_corrected_over_the_variants_of_a_cell():
    compared = variants.compare(cells(base=[40.0, 41.0, 42.0], a=[41.0, 42.2, 42.9], b=[40.5, 40.7, 42.4]))
    a, b = row(compared, "a"), row(compared, "b")
    assert (a.p_holm, b.p_holm) == (pytest.approx(2 * a.p), pytest.approx(b.p))


def test_a_variant_that_scores_the_same_is_not_tested_and_takes_no_part_in_the_correction():
    compared = variants.compare(cells(base=[40.0, 41.0, 42.0], same=[40.0, 41.0, 42.0], a=[41.0, 42.2, 42.9]))
    same, a = row(compared, "same"), row(compared, "a")
    assert (same.method, same.effect) == (variants.EQUAL, 0)
    assert math.isnan(same.p)
    assert a.p_holm == a.p


def test_missing_results_appear_as_missing():
    gone = [math.nan] * 3
    compared = variants.compare(cells(base=[40.0, 41.0, 42.0], gone=gone, partly=[41.0, 42.2, math.nan]))
    found, partly = row(compared, "gone"), row(compared, "partly")
    assert found.method == "missing"
    assert math.isnan(found.effect)
    assert (partly.n, partly.effect) == (2, pytest.approx(1.1))
    overall = row(compared, "gone", variants.OVERALL)
    assert (overall.cells, overall.declared) == (0, 1)
    text = variants.variants_table(cells(base=[1.0], gone=[math.nan]), compared, 0.95).text("md")
    assert "| gone | 0 | none | 32 | – | – | – | – |" in text
    assert "1 cells cannot be compared yet" in text


def test_the_mean_over_cells_is_that_of_the_differences():
    more = cells(base=[40.0, 41.0, 42.0], a=[41.0, 42.2, 42.9])
    more = pd.concat([more, more.assign(downstream=128, miou_percent=more["miou_percent"] * 1.5)], ignore_index=True)
    overall = row(variants.compare(more), "a", variants.OVERALL)
    assert (overall.cells, overall.n) == (2, 3)
    assert overall.effect == pytest.approx(np.mean([1.0, 1.2, 0.9]) * 1.25)


@pytest.fixture
def fidelity(tmp_path):
    """A study with two variants, all results there: one has runs of its own, one only another summary."""
    changes = {"raw": {"finetune": {"normalize": False}}, "image": {"analysis": {"miou": "per_image"}}}
    made = study_of(tmp_path / "results", variants=changes, geometry=False)
    fill(made)
    return made


def test_results_are_read_with_the_settings_of_their_variant(fidelity):
    found = from_study(fidelity).variants
    assert found.groupby("variant", sort=False).size().to_dict() == {"base": 36, "raw": 36, "image": 36}
    compared = variants.compare(found)
    assert set(compared.loc[compared["variant"] == "raw", "method"]) == {variants.EQUAL}
    assert compared.loc[compared["variant"] == "image", "effect"].to_numpy() == pytest.approx(-1.0)


def test_results_of_other_code_are_not_compared(fidelity):
    for job in fidelity.members["raw"]:
        if job.stage == "finetune":
            job.metrics.write_text(job.metrics.read_text().replace('"c0de"', '"0ther"'))
    with pytest.raises(VinyError, match="2 versions of the training code"):
        from_study(fidelity)


def test_variants_leave_what_the_study_itself_cost_alone(fidelity):
    tables = from_study(fidelity)
    own = [job for job in fidelity.jobs.values() if not job.variant]
    assert set(tables.costs["variant"]) == set(tables.histories["variant"]) == {"base", "raw"}
    assert len(tables.own.costs) == len(own) < len(tables.costs) == len(fidelity.jobs)
    assert set(tables.own.jobs) == set(own)
    assert set(tables.own.histories["variant"]) == {"base"}


def test_table_figure_and_statistics_are_written(fidelity, tmp_path):
    for job in fidelity.jobs.values():
        (job.folder / "examples.npz").unlink(missing_ok=True)  # drawing these takes long
    analyze(from_study(fidelity), tmp_path / "out")
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*variants.*")}
    assert written == {
        "variants.csv", "statistics/variants.csv", "figures/variants.png", "figures/variants.pdf",
        *(f"tables/variants.{suffix}" for suffix in ("csv", "md", "tex", "html")),
    }  # fmt: skip


def test_the_figure_has_a_row_for_each_variant_and_marks_what_is_missing():
    style.apply()
    scores = {"base": [40.0, 41.0, 42.0], "no_norm": [41.0, 42.2, 42.9], "gone": [math.nan] * 3}
    fig = figures.variants(variants.compare(cells(**scores)))
    [ax] = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["no norm", "gone"]
    assert [line.get_gid() for line in ax.get_lines()].count("missing") == 1
    plt.close(fig)
