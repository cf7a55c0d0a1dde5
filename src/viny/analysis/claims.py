"""The paper's claims as tests, each with a criterion stated beforehand and a verdict: claims.json, claims.md.

How a verdict is reached: `viny.analysis.verdicts`. Most claims are asked of every study, on its own sizes and tasks
(`scope` names them); those that are numbers are asked where the sizes and the data sets are the paper's. Claims 5a to
5d, of the paper's second version, are about representations. The published table of these has one value per encoder
and no error, and no number of patches makes up for a single training run: there the verdict is `undecided`.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from viny.analysis.contrasts import Key, difference, measure, polynomial
from viny.analysis.frames import Tables, on_grid
from viny.analysis.summary import grid
from viny.analysis.verdicts import Member, Verdict, about, always, association, evidence, on_average, untested

# A "small" gain: half of what one more doubling of labels buys the paper's pre-trained encoders (2.6 to 2.9 points).
SMALL_GAIN = 1.5
# "About" a number of points: the number, give or take this much.
ABOUT = 1.5
PROBE_MARGIN = 1.0  # points of probe accuracy; a gain below it is no usable structure
# The paper's sizes that claims speak of: pre-training images, then labels.
LARGEST, BEYOND, FEW, MANY = 200_000, 100_000, 250, 6_000
CLASSIFICATION, PATCHES = "classification", "patches"  # kinds of intermediate tasks: whole images, patches
WITHIN, ACROSS, PROBE = "within_image_variance", "across_image_variance", "probe_accuracy_percent"
PROBE_TRAINING = "probe_accuracy_training_percent"  # stands in where the probe was not tested on other images
Place = tuple[int | None, str, int | None]  # of a contrast; None: along this axis


@dataclass(frozen=True)
class Claim:
    """A claim, its criterion in words, and the function that judges it."""

    id: str
    statement: str
    criterion: str
    method: str
    test: Callable[["Study"], Verdict]


class Study:
    """What the tests need of a study.

    Attributes:
        sizes, tasks, labels: the axes of its grid, as `viny.analysis.summary.grid` gives them.
        used: pre-training sizes above 0.
        classified: cells after pre-training and an intermediate task that classifies whole images.
    """

    def __init__(self, tables: Tables):
        self.tables, self.confidence = tables, tables.confidence
        self.measured = measure(tables.grid)
        self.sizes, self.tasks, self.labels = grid(tables.grid)
        self.used = [size for size in self.sizes if size > 0]
        classify = [task for task in self.tasks if tables.task(task) == CLASSIFICATION]
        self.classified: list[Key] = list(itertools.product(self.used, classify, self.labels))

    @property
    def encoders(self) -> list[tuple[int, str]]:
        """(pretrain, intermediate) with at least one result."""
        return list(dict.fromkeys(key[:2] for key in self.measured.table.index[self.measured.table["n"] > 0]))

    def always(self, members: list[Member], sign: int, otherwise: str) -> Verdict:
        """`viny.analysis.verdicts.always`; without members not tested, with the reason `otherwise`."""
        if not members:
            return untested(otherwise)
        return always(evidence(self.measured, members, sign, self.confidence), self.confidence)

    def about(self, cell: Key, baseline: Key, value: float) -> Verdict:
        """Is cell - baseline about `value`, where the study has these cells and the paper's data sets?"""
        if not {cell, baseline} <= self.measured.rows.keys():
            shown = f"{cell[1]} after " * (cell[1] != "none")
            return untested(f"the claim is about {shown}{cell[0]:,} images at {cell[2]:,} labels, not in this grid")
        if not self.tables.on_paper_data:
            return untested("the number is about the paper's data sets, and this study's are others or not recorded")
        return about(self.measured, _compare(cell, baseline), value, ABOUT, self.confidence)


def _more_pretraining(study: Study, tasks: list[str], reason: str) -> Verdict:
    members = [
        _compare((large, task, d), (small, task, d))
        for task in tasks
        for small, large in itertools.pairwise(study.sizes)
        for d in study.labels
        if task == "none" or small > 0
    ]
    return study.always(members, 1, reason)


def _more_labels(study: Study) -> Verdict:
    steps = list(itertools.pairwise(study.labels))
    members = [_compare((*encoder, large), (*encoder, small)) for encoder in study.encoders for small, large in steps]
    return study.always(members, 1, "one downstream size")


def _bend(study: Study, axis: str, doublings: bool) -> Verdict:
    """Does the slope fall along an axis: quadratic coefficient of mIoU on n (or log2 n), on average over the curves."""
    curves: list[tuple[Place, list[Key]]]
    if axis == "downstream":
        x = study.labels
        curves = [((size, task, None), [(size, task, d) for d in x]) for size, task in study.encoders]
    else:
        x = study.used if doublings else study.sizes
        curves = [((None, "none", d), [(size, "none", d) for size in x]) for d in study.labels]
    if len(x) < 3:
        return untested(f"{len(x)} size(s), a change of slope needs 3")
    unit = 10 ** int(np.log10(x[-1]))  # a round number of images within the grid
    scale = np.log2(x) if doublings else np.array(x) / unit
    label = f"points change of the gain per {unit:,} images, each {unit:,} images"
    if doublings:
        label = "points change of the gain per doubling, each doubling"
    members = [
        Member(place, {key: 2 * weight for key, weight in polynomial(keys, scale, 2).items()}) for place, keys in curves
    ]
    return on_average(study.measured, members, -1, study.confidence, label)


def _pretraining_worth_falls(study: Study) -> Verdict:
    if 0 not in study.sizes or not study.used or len(study.labels) < 2:
        return untested("needs cells without pre-training and two downstream sizes")
    few, many = study.labels[0], study.labels[-1]
    signs = {few: 1, many: -1}
    members = [
        Member((p, "none", few), {(n, "none", d): signs[d] * (1 if n else -1) for d in (few, many) for n in (p, 0)})
        for p in study.used
    ]
    return on_average(study.measured, members, 1, study.confidence, f"points more at {few:,} labels than at {many:,}")


def _little_beyond(study: Study) -> Verdict:
    if len(study.used) < 2:
        return untested("one pre-training size above 0")
    start, end = _beyond(study.used), study.used[-1]
    members = [_compare((end, "none", d), (start, "none", d)) for d in study.labels]
    unit = f"points from {start:,} to {end:,}"
    return on_average(study.measured, members, -1, study.confidence, unit, margin=-SMALL_GAIN)


def _beyond(used: list[int]) -> int:
    """Where the last stretch of pre-training data begins: 100k if the grid has it, else the second-largest size."""
    return BEYOND if BEYOND in used[:-1] else used[-2]


def _task_hurts(study: Study) -> Verdict:
    members = [_compare(cell, (cell[0], "none", cell[2])) for cell in study.classified]
    return study.always(members, -1, "no classification task after pre-training in this grid")


def _harm_follows_worth(study: Study) -> Verdict:
    if 0 not in study.sizes:
        return untested("needs cells without pre-training")
    cells = [
        ((p, task, d), difference((p, "none", d), (0, "none", d)), difference((p, "none", d), (p, task, d)))
        for p, task, d in study.classified
    ]
    return association(study.measured, cells, study.confidence)


def _harm_shrinks(study: Study) -> Verdict:
    if len(study.labels) < 2 or not study.classified:
        return untested("needs a classification task and two downstream sizes")
    members = []
    for p, task in dict.fromkeys(cell[:2] for cell in study.classified):
        slope = polynomial([(p, task, d) for d in study.labels], np.log2(study.labels), 1)
        minus = {(p, "none", d): -slope[p, task, d] for d in study.labels}
        members.append(Member((p, task, study.labels[-1]), {**slope, **minus}))
    return on_average(study.measured, members, 1, study.confidence, "points of harm less per doubling of labels")


def _representation(study: Study, kind: str, *measures: tuple[str, int, float]) -> Verdict:
    """Encoders with a task of a kind against the same without, in each measure: is sign x difference > margin?"""
    geometry = on_grid(study.tables.geometry)
    frames = []
    for name, sign, margin in measures:
        column = PROBE_TRAINING if name == PROBE and geometry[PROBE].isna().all() else name
        known = geometry[geometry[column].notna()]
        values = known[column].astype(float)
        cells = known.assign(downstream=0, seed=known["seed"].fillna(0), miou_percent=values, accuracy_percent=values)
        measured = measure(cells)
        tasks = [task for task in sorted(set(known["intermediate"])) if study.tables.task(task) == kind]
        for task, size in itertools.product(tasks, sorted(set(known["pretrain"]))):
            pair = (int(size), task, 0), (int(size), "none", 0)
            if all(map(measured.has, pair)):  # tested one by one: measures of different units share no variance
                member = Member((int(size), task, None), difference(*pair))
                frames.append(evidence(measured, [member], sign, study.confidence, margin).assign(measure=column))
    if not frames:
        return untested("no representation geometry of such an encoder and its counterpart without the task")
    verdict = always(pd.concat(frames, ignore_index=True), study.confidence)
    if any(cell["measure"] == PROBE_TRAINING for cell in verdict.cells):
        verdict.reason += "; probe accuracy is that on the probe's own training patches"
    return verdict


def _compare(cell: Key, baseline: Key) -> Member:
    return Member(cell, difference(cell, baseline))


EVERY = (
    "supported if each cell alone is significant in the claimed direction (intersection-union); contradicted if any is "
    "significant the other way after Holm; undecided otherwise"
)
AVERAGE = (
    "supported if the average is significant in the claimed direction and none of its parts contradicts; contradicted "
    "if the average, or after Holm a part, is significant the other way; undecided otherwise"
)
NUMBER = (
    f"supported if the effect is shown to lie within ± {ABOUT} points of the number (equivalence); contradicted if its "
    "interval excludes all of that range; undecided otherwise"
)
SMALL = (
    f"small: less than {SMALL_GAIN} points, half of what a doubling of labels buys the paper's pre-trained encoders; "
    "supported if the average gain over downstream sizes is significantly less and at no size significantly more; "
    "contradicted if the average, or after Holm a size, is significantly more; undecided otherwise"
)
ASSOCIATION = (
    "supported if the covariance of harm and worth over the cells, freed of the noise they share, is significantly "
    "above 0; contradicted if significantly below; undecided otherwise"
)
ENCODERS = "encoder with the task against the same without, paired by seed"
STEP = "each size against the one below, moderated t"
BEND, BEND_LOG = (
    "quadratic coefficient of mIoU on images, below 0",
    "quadratic coefficient of mIoU on log2 images, below 0",
)

CLAIMS = [
    Claim("1a", "More pre-training data always helps.", EVERY, STEP,
          lambda study: _more_pretraining(study, ["none"], "one pre-training size")),
    Claim("1b", "More fine-tuning data always helps.", EVERY, STEP, _more_labels),
    Claim("1c", "More pre-training data always helps, also when an intermediate task follows.", EVERY,
          STEP + ", after the same task",
          lambda study: _more_pretraining(study, study.tasks[1:], "no intermediate task at two pre-training sizes")),
    Claim("2a", "Fine-tuning data have diminishing returns: each added image brings less.", AVERAGE,
          BEND, lambda study: _bend(study, "downstream", doublings=False)),
    Claim("2b", "Fine-tuning data have diminishing returns even per doubling.", AVERAGE,
          BEND_LOG, lambda study: _bend(study, "downstream", doublings=True)),
    Claim("2c", "Pre-training data have diminishing returns: each added image brings less.", AVERAGE,
          BEND + "; 0 images included", lambda study: _bend(study, "pretrain", doublings=False)),
    Claim("2d", "Pre-training data have diminishing returns even per doubling.", AVERAGE,
          BEND_LOG + "; sizes above 0", lambda study: _bend(study, "pretrain", doublings=True)),
    Claim("2e", "Pre-training is worth less the more labels there are.", AVERAGE,
          "worth at the fewest labels minus worth at the most, above 0", _pretraining_worth_falls),
    Claim("2f", "Pre-training is worth up to about 13 points at 250 labeled images.", NUMBER,
          "200,000 images against none",
          lambda study: study.about((LARGEST, "none", FEW), (0, "none", FEW), 13.0)),
    Claim("2g", "Pre-training is worth up to about 4 points at 6,000 labeled images.", NUMBER,
          "200,000 images against none",
          lambda study: study.about((LARGEST, "none", MANY), (0, "none", MANY), 4.0)),
    Claim("3", "Beyond 100,000 pre-training images the gain is small.", SMALL,
          "largest size against 100,000, or against the second-largest size in a grid without 100,000", _little_beyond),
    Claim("4a", "Intermediate classification always hurts.", EVERY,
          "task against none, same pre-training and labels; moderated t", _task_hurts),
    Claim("4b", "Intermediate classification costs up to about 7 points.", NUMBER,
          "Intel classification against none, 200,000 pre-training images, 250 labels",
          lambda study: study.about((LARGEST, "cls_intel", FEW), (LARGEST, "none", FEW), -7.0)),
    Claim("4c", "It hurts most where pre-training helps most.", ASSOCIATION,
          "covariance with basic parametric bootstrap", _harm_follows_worth),
    Claim("4d", "Its harm shrinks with downstream data.", AVERAGE,
          "slope of (task - none) on log2 labels, above 0", _harm_shrinks),
    Claim("5a", "Classification raises the variance of the representation, within and across images.", EVERY,
          ENCODERS, lambda study: _representation(study, CLASSIFICATION, (WITHIN, 1, 0.0), (ACROSS, 1, 0.0))),
    Claim("5b", "Classification brings no usable spatial structure: a patch probe does not gain.",
          f"gain of the linear patch probe below {PROBE_MARGIN:g} point; " + EVERY,
          ENCODERS, lambda study: _representation(study, CLASSIFICATION, (PROBE, -1, -PROBE_MARGIN))),
    Claim("5c", "Spatially aligned supervision brings usable structure: the patch probe gains.", EVERY,
          ENCODERS, lambda study: _representation(study, PATCHES, (PROBE, 1, 0.0))),
    Claim("5d", "Spatially aligned supervision does the opposite to the variance: it lowers it.", EVERY,
          ENCODERS, lambda study: _representation(study, PATCHES, (WITHIN, -1, 0.0), (ACROSS, -1, 0.0))),
]  # fmt: skip


def judge(tables: Tables) -> list[dict[str, Any]]:
    """Judge every claim: the fields of `Claim` (but its test) and of `Verdict`, and `scope`, as one record each.

    Where all seeds start from one encoder a size, `scope` says that verdicts speak of these encoders only.
    """
    study = Study(tables)
    records = []
    for claim in CLAIMS:
        record = {key: getattr(claim, key) for key in ("id", "statement", "criterion", "method")}
        verdict = asdict(claim.test(study))
        records.append({**record, "scope": _scope(claim.id, study, verdict["cells"]), **verdict})
    return records


def _scope(claim: str, study: Study, cells: list[dict[str, Any]]) -> str:
    if claim.startswith("5"):
        return f"pre-training sizes {_list(sorted({cell['pretrain'] for cell in cells}))}" if cells else ""
    shared = study.tables.settings.get("share_encoder")
    end = "; the one encoder of each size, not pre-training anew" if shared else ""
    if claim == "3" and len(study.used) > 1 and _beyond(study.used) != BEYOND:
        step = f"{study.used[-2]:,} to {study.used[-1]:,}"
        return f"this grid's last step, {step} images, in place of 100,000 to 200,000{end}"
    return f"pretrain {_list(study.sizes)}; downstream {_list(study.labels)}{end}"


def _list(sizes: list[int]) -> str:
    return ", ".join(f"{size:,}" for size in sizes)
