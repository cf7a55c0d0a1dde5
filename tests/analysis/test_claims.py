"""Verdicts: on the published numbers, and on studies where the answer is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from simulated import drop, study

from viny.analysis.claims import judge
from viny.analysis.contrasts import difference, measure
from viny.analysis.frames import Tables
from viny.analysis.published import published_cells, published_geometry
from viny.analysis.verdicts import Member, about, always, association, evidence, on_average

SIZES, LABELS = [0, 100, 200, 400], [32, 64, 128, 256]
TASKS = ("none", "cls_intel")


def verdicts(cells, geometry=None, **stages) -> dict[str, dict]:
    """Verdicts by claim; `stages` holds what settings.json says of each kind of job."""
    tables = Tables(cells, {"study": cells["study"].iloc[0], "stages": stages})
    tables = tables if geometry is None else replace(tables, geometry=geometry)
    return {record["id"]: record for record in judge(tables)}


def as_claimed(p: int, t: str, d: int) -> float:
    """A world in which the paper is right: gains that shrink, harm in proportion to the worth of pre-training."""
    worth = 20 * (1 - 0.5 ** (p / 60)) * (64 / d) ** 0.4
    return 70 - 200 / d**0.5 + worth * (0.6 if t != "none" else 1) + 1.5 * np.log2(1 + p / 100)


def test_published_verdicts():
    found = {key: record["verdict"] for key, record in verdicts(published_cells(), published_geometry()).items()}
    supported = {"1b", "2a", "2c", "2d", "2e", "2g", "3", "4b", "4c", "4d"}
    assert {key for key, verdict in found.items() if verdict == "supported"} == supported
    assert {verdict for key, verdict in found.items() if key not in supported} == {"undecided"}


def test_published_directions_are_kept_apart_from_significance():
    found = verdicts(published_cells(), published_geometry())
    harm = found["4a"]
    assert harm["numbers"]["claimed_direction"] == 18
    assert harm["direction"] == "agrees"
    assert "100,000" in harm["reason"]
    assert len(harm["cells"]) == 18
    assert found["1c"]["direction"] == "mixed"
    assert found["5a"]["direction"] == "agrees"
    assert found["5d"]["direction"] == "disagrees"
    assert "without error" in found["5c"]["reason"]


def test_a_world_as_claimed_is_supported():
    cells = study(as_claimed, SIZES, LABELS, tasks=TASKS, noise=0.02, encoder_noise=0.02)
    found = verdicts(cells)
    for key in ("1a", "1b", "2a", "2b", "2c", "2e", "4a", "4c", "4d"):
        assert found[key]["verdict"] == "supported", found[key]


def test_a_world_against_the_claims_contradicts_them():
    def other(p, t, d):
        return 40 + (d / 60) ** 1.5 - p / 100 * (1 + d / 100) + 5 * (t != "none")

    found = verdicts(study(other, SIZES, LABELS, tasks=TASKS, noise=0.02))
    for key in ("1a", "2a", "2b", "4a"):
        assert found[key]["verdict"] == "contradicted", found[key]
        assert found[key]["direction"] == "disagrees"


def test_pure_noise_is_undecided():
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(15):
        cells = study(lambda *_: 50, [0, 1, 2], [1, 2, 3], tasks=TASKS, noise=1.0, random=random)
        found = verdicts(cells)
        wrong += sum(found[key]["verdict"] != "undecided" for key in ("1a", "1b", "4a"))
    assert wrong <= 0.05 * 45 + 4


def test_always_is_not_supported_while_a_cell_is_missing_or_alone():
    cells = study(as_claimed, SIZES, LABELS, tasks=TASKS, noise=0.02)
    record = verdicts(drop(cells, pretrain=100, intermediate="cls_intel", downstream=64))["4a"]
    assert record["verdict"] == "undecided"
    assert "1 missing" in record["reason"]
    single = drop(drop(cells, pretrain=100, downstream=64, seed=1), pretrain=100, downstream=64, seed=2)
    record = verdicts(single)["4a"]
    assert record["verdict"] == "undecided"
    assert "single runs" in record["reason"]


def test_one_opposite_cell_contradicts_always():
    def one_off(p, t, d):
        return as_claimed(p, t, d) + 12 * (t != "none") * (p == 400) * (d == 256)

    record = verdicts(study(one_off, SIZES, LABELS, tasks=TASKS, noise=0.02))["4a"]
    assert record["verdict"] == "contradicted"
    assert record["numbers"]["against"] == 1


def test_single_runs_are_never_decided():
    found = verdicts(study(as_claimed, SIZES, LABELS, seeds=1, tasks=TASKS)).values()
    assert {record["verdict"] for record in found} <= {"undecided", "not tested"}


def test_claims_on_sizes_the_study_lacks():
    found = verdicts(study(as_claimed, SIZES, LABELS, tasks=TASKS))
    for key in ("2f", "2g", "4b"):
        assert found[key]["verdict"] == "not tested"
        assert "not in this grid" in found[key]["reason"]
    assert "in place of" in found["3"]["scope"]
    assert "200 to 400" in found["3"]["reason"]
    small = verdicts(study(as_claimed, [0], [32, 64]))
    assert {small[key]["verdict"] for key in ("1a", "2a", "3", "4a", "5a")} == {"not tested"}


def test_gain_is_small_only_if_shown_to_be():
    def last_step(gain, noise):
        cells = study(lambda p, t, d: 50 + gain * (p == 400), SIZES, LABELS, noise=noise)
        return verdicts(cells)["3"]["verdict"]

    assert last_step(0.5, 0.05) == "supported"
    assert last_step(4.0, 0.05) == "contradicted"
    assert last_step(1.5, 2.0) == "undecided"


def test_about_needs_equivalence():
    key, base = (1, "none", 1), (0, "none", 1)

    def verdict(effect, noise):
        measured = measure(study(lambda p, t, d: effect * p, [0, 1], [1], seeds=5, noise=noise))
        return about(measured, Member(key, difference(key, base)), 13, 1.5, 0.95).verdict

    assert verdict(13.2, 0.1) == "supported"
    assert verdict(9.0, 0.1) == "contradicted"
    assert verdict(13.2, 4.0) == "undecided"


def test_average_and_always_differ():
    cells = study(lambda p, t, d: p * {1: 3.0, 2: 2.0, 3: 0.0}[d], [0, 1], [1, 2, 3], noise=0.1, seeds=5)
    members = [Member((1, "none", d), difference((1, "none", d), (0, "none", d))) for d in (1, 2, 3)]
    measured = measure(cells)
    assert on_average(measured, members, 1, 0.95, "points").verdict == "supported"
    assert always(evidence(measured, members, 1, 0.95), 0.95).verdict == "undecided"


def test_noise_that_worth_and_harm_share_is_no_association():
    """True worth and harm are the same everywhere; the observed ones share a noisy cell."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(60):
        cells = study(lambda p, t, d: 5 * (p > 0) - 2 * (t != "none"), SIZES, LABELS, tasks=TASKS, noise=1.0,
                      random=random)  # fmt: skip
        measured = measure(cells)
        places = [((p, "cls_intel", d), difference((p, "none", d), (0, "none", d)),
                   difference((p, "none", d), (p, "cls_intel", d))) for p in SIZES[1:] for d in LABELS]  # fmt: skip
        found.append(association(measured, places, 0.95))
    assert np.mean([verdict.numbers["covariance"] for verdict in found]) > 0.2  # the artifact is there
    corrected = [verdict.numbers["covariance_corrected"] for verdict in found]
    assert abs(np.mean(corrected)) < 2.5 * np.std(corrected) / np.sqrt(len(found))
    assert np.mean([verdict.verdict == "supported" for verdict in found]) < 0.12


def geometry(seeds: int, spatial_variance: float) -> pd.DataFrame:
    random = np.random.default_rng(2)
    rows = []
    for task, variance, probe in (
        ("none", 0.1, 79.5),
        ("cls_intel", 0.2, 76.0),
        ("spatial_pets", spatial_variance, 93.0),
    ):
        for seed in range(seeds):
            noise = random.normal(0, 0.005, 2)
            rows.append((200, task, seed, variance + noise[0], variance / 2 + noise[1], probe + random.normal(0, 0.3)))
    columns = [
        "pretrain",
        "intermediate",
        "seed",
        "within_image_variance",
        "across_image_variance",
        "probe_accuracy_percent",
    ]
    return pd.DataFrame(rows, columns=columns).assign(encoder="", probe_accuracy_training_percent=99.0)


def test_geometry_with_seeds_is_decided():
    cells = study(lambda *_: 50, [0], [32])
    found = verdicts(cells, geometry(4, spatial_variance=0.3))
    assert [found[key]["verdict"] for key in ("5a", "5b", "5c")] == ["supported"] * 3
    assert found["5d"]["verdict"] == "contradicted"
    assert "training" not in found["5c"]["reason"]  # the held-out probe is used where there is one
    assert verdicts(cells, geometry(4, spatial_variance=0.03))["5d"]["verdict"] == "supported"


@pytest.mark.parametrize("measured", [Tables(pd.DataFrame(), {}).geometry, published_geometry().iloc[:0]])
def test_geometry_that_was_not_measured_is_not_tested(measured):
    found = verdicts(study(lambda *_: 50, [0], [32]), measured)
    assert {found[key]["verdict"] for key in ("5a", "5b", "5c", "5d")} == {"not tested"}


def test_tasks_are_known_by_what_they_do_and_not_by_their_names():
    reef = [("none", 0), ("reef", 3)]
    cells = study(lambda p, t, d: 50 + p - dict(reef)[t], [0, 1], [1, 2], tasks=("none", "reef"), noise=0.01)
    assert verdicts(cells)["4a"]["reason"].startswith("no classification task")
    found = verdicts(cells, **{"intermediate reef": {"task": "classification", "images": "coral"}})
    assert found["4a"]["verdict"] == "supported"
    found = verdicts(cells, **{"intermediate reef": {"task": "patches", "images": "coral"}})
    assert found["4a"]["verdict"] == "not tested"


def test_the_papers_numbers_are_asked_of_its_data_sets_alone():
    cells = study(lambda p, t, d: 50 + 13 * (p > 0), [0, 200_000], [250], noise=0.1)
    for images, verdict in (("pets", "supported"), ("coral", "not tested")):
        stages = {"pretrain": {"images": "imagenet"}, "finetune": {"images": images}}
        assert verdicts(cells, **stages)["2f"]["verdict"] == verdict
    assert "the paper's data sets" in verdicts(cells)["2f"]["reason"]  # not recorded


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("worth", "harm", "name"), [(lambda p, d: p / d, 2, "harm"), (lambda p, d: 5, 0, "worth")])
def test_no_association_with_what_is_the_same_everywhere(worth, harm, name):
    cells = study(
        lambda p, t, d: 50 + worth(p, d) * (p > 0) - harm * (t != "none"), SIZES, LABELS, tasks=TASKS, noise=0
    )
    record = verdicts(cells)["4c"]
    assert record["verdict"] == "undecided"
    assert f"the {name} is the same in all 12 cells" in record["reason"]
    assert record["numbers"] == {"cells": 12}
