"""The paper's claims as tests, each with a criterion stated beforehand and a verdict.

    python -m viny.analysis.claims --cells results/demo/cells.csv [--geometry geometry.csv] --output results/demo

Writes claims.json (everything) and claims.md (for people). How a verdict is reached: `viny.analysis.verdicts`. A claim
about sizes that a study does not have is tested on the study's own sizes where that makes sense (`scope` says so), and
not tested where it is a number about certain sizes.
"""

import argparse
import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from viny import console
from viny.analysis.contrasts import Measured, Weights, difference, measure, polynomial
from viny.analysis.files import read_cells, read_frame, write_json, write_text
from viny.analysis.geometry_claims import GEOMETRY_COLUMNS, judge_geometry
from viny.analysis.report_claims import claims_markdown
from viny.analysis.summary import grid
from viny.analysis.verdicts import Member, Verdict, about, always, association, on_average, untested
from viny.errors import command

# A "small" gain: half of what one more doubling of labels buys the paper's pre-trained encoders (2.6 to 2.9 points).
SMALL_GAIN = 1.5
# "About" a number of points: the number, give or take this much.
ABOUT = 1.5
PAPER_SIZES = {"pretrain": 200_000, "beyond": 100_000, "few": 250, "many": 6_000}
CLASSIFICATION = "cls_"  # intermediate tasks that classify whole images begin with this


@dataclass(frozen=True)
class Claim:
    """A claim, its criterion in words, and the function that judges it."""

    id: str
    statement: str
    criterion: str
    method: str
    test: Callable[["Study"], Verdict]


@dataclass(frozen=True)
class Study:
    """What the tests need of a study."""

    measured: Measured
    sizes: list[int]
    tasks: list[str]
    labels: list[int]
    confidence: float

    @property
    def used(self) -> list[int]:
        """Pre-training sizes above 0."""
        return [size for size in self.sizes if size > 0]

    @property
    def classifications(self) -> list[str]:
        """Intermediate tasks that classify whole images."""
        return [task for task in self.tasks if task.startswith(CLASSIFICATION)]

    @property
    def encoders(self) -> list[tuple[int, str]]:
        """(pretrain, intermediate) with at least one result."""
        return list(dict.fromkeys(key[:2] for key in self.measured.table.index[self.measured.table["n"] > 0]))


def _steps_help(study: Study, tasks: list[str]) -> list[Member]:
    return [
        Member((large, task, d), difference((large, task, d), (small, task, d)))
        for task in tasks
        for small, large in itertools.pairwise(study.sizes)
        for d in study.labels
        if task == "none" or small > 0
    ]


def _more_pretraining(study: Study) -> Verdict:
    members = _steps_help(study, ["none"])
    return always(study.measured, members, 1, study.confidence) if members else untested("one pre-training size")


def _more_pretraining_after_task(study: Study) -> Verdict:
    members = _steps_help(study, study.tasks[1:])
    if not members:
        return untested("no intermediate task at two pre-training sizes")
    return always(study.measured, members, 1, study.confidence)


def _more_labels(study: Study) -> Verdict:
    members = [
        Member((size, task, large), difference((size, task, large), (size, task, small)))
        for size, task in study.encoders
        for small, large in itertools.pairwise(study.labels)
    ]
    return always(study.measured, members, 1, study.confidence) if members else untested("one downstream size")


def _bend(study: Study, axis: str, doublings: bool) -> Verdict:
    """Does the slope fall along an axis: quadratic coefficient of mIoU on n (or log2 n), on average over the curves."""
    if axis == "downstream":
        x = study.labels
        curves = [[(size, task, d) for d in x] for size, task in study.encoders]
        places = [(size, task, None) for size, task in study.encoders]
    else:
        x = study.used if doublings else study.sizes
        curves = [[(size, "none", d) for size in x] for d in study.labels]
        places = [(None, "none", d) for d in study.labels]
    if len(x) < 3:
        return untested(f"{len(x)} size(s), a change of slope needs 3")
    unit = 10 ** int(np.log10(x[-1]))  # a round number of images within the grid
    scale = np.log2(x) if doublings else np.array(x) / unit
    members = [
        Member(place, {key: 2 * weight for key, weight in polynomial(keys, scale, 2).items()})
        for place, keys in zip(places, curves, strict=True)
    ]
    label = (
        "points change of the gain per doubling, each doubling"
        if doublings
        else (f"points change of the gain per {unit:,} images, each {unit:,} images")
    )
    return on_average(study.measured, members, -1, study.confidence, label)


def _pretraining_worth_falls(study: Study) -> Verdict:
    if 0 not in study.sizes or not study.used or len(study.labels) < 2:
        return untested("needs cells without pre-training and two downstream sizes")
    few, many = study.labels[0], study.labels[-1]
    members = [Member((p, "none", few), _loss_of_worth(p, few, many)) for p in study.used]
    return on_average(study.measured, members, 1, study.confidence, f"points more at {few:,} labels than at {many:,}")


def _loss_of_worth(size: int, few: int, many: int) -> Weights:
    """Worth of pre-training on `size` at `few` labels minus its worth at `many`."""
    return {(size, "none", few): 1, (0, "none", few): -1, (size, "none", many): -1, (0, "none", many): 1}


def _worth(labels: str, value: float) -> Callable[[Study], Verdict]:
    def test(study: Study) -> Verdict:
        size, d = PAPER_SIZES["pretrain"], PAPER_SIZES[labels]
        if size not in study.sizes or 0 not in study.sizes or d not in study.labels:
            return untested(f"the claim is about {size:,} pre-training images and {d:,} labels, not in this grid")
        member = Member((size, "none", d), difference((size, "none", d), (0, "none", d)))
        return about(study.measured, member, value, ABOUT, study.confidence)

    return test


def _little_beyond(study: Study) -> Verdict:
    if len(study.used) < 2:
        return untested("one pre-training size above 0")
    start = _beyond(study.used)
    end = study.used[-1]
    members = [Member((end, "none", d), difference((end, "none", d), (start, "none", d))) for d in study.labels]
    unit = f"points from {start:,} to {end:,}"
    return on_average(study.measured, members, -1, study.confidence, unit, margin=-SMALL_GAIN)


def _beyond(used: list[int]) -> int:
    """Where the last stretch of pre-training data begins: 100k if the grid has it, else the second-largest size."""
    return PAPER_SIZES["beyond"] if PAPER_SIZES["beyond"] in used[:-1] else used[-2]


def _harm(study: Study) -> list[Member]:
    return [
        Member((p, task, d), difference((p, task, d), (p, "none", d)))
        for task in study.classifications
        for p in study.used
        for d in study.labels
    ]


def _task_hurts(study: Study) -> Verdict:
    members = _harm(study)
    if not members:
        return untested("no classification task after pre-training in this grid")
    return always(study.measured, members, -1, study.confidence)


def _largest_harm(study: Study) -> Verdict:
    size, d, task = PAPER_SIZES["pretrain"], PAPER_SIZES["few"], "cls_intel"
    if size not in study.sizes or d not in study.labels or task not in study.tasks:
        return untested(f"the claim is about {task} after {size:,} images at {d:,} labels, not in this grid")
    member = Member((size, task, d), difference((size, task, d), (size, "none", d)))
    return about(study.measured, member, -7.0, ABOUT, study.confidence)


def _harm_follows_worth(study: Study) -> Verdict:
    if 0 not in study.sizes:
        return untested("needs cells without pre-training")
    cells = [
        ((p, task, d), difference((p, "none", d), (0, "none", d)), difference((p, "none", d), (p, task, d)))
        for task in study.classifications
        for p in study.used
        for d in study.labels
    ]
    return association(study.measured, cells, study.confidence)


def _harm_shrinks(study: Study) -> Verdict:
    if len(study.labels) < 2 or not study.classifications or not study.used:
        return untested("needs a classification task and two downstream sizes")
    x = np.log2(study.labels)
    members = []
    for task, p in itertools.product(study.classifications, study.used):
        weights = polynomial([(p, task, d) for d in study.labels], x, 1)
        weights |= {(p, "none", d): -weights[p, task, d] for d in study.labels}
        members.append(Member((p, task, study.labels[-1]), weights))
    return on_average(study.measured, members, 1, study.confidence, "points of harm less per doubling of labels")


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
STEP = "each size against the one below, moderated t"
BEND, BEND_LOG = (
    "quadratic coefficient of mIoU on images, below 0",
    "quadratic coefficient of mIoU on log2 images, below 0",
)

CLAIMS = [
    Claim("1a", "More pre-training data always helps.", EVERY, STEP, _more_pretraining),
    Claim("1b", "More fine-tuning data always helps.", EVERY, STEP, _more_labels),
    Claim("1c", "More pre-training data always helps, also when an intermediate task follows.", EVERY,
          STEP + ", after the same task", _more_pretraining_after_task),
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
    Claim("2f", "Pre-training is worth up to about 13 points at 250 labelled images.", NUMBER,
          "200,000 images against none", _worth("few", 13.0)),
    Claim("2g", "Pre-training is worth up to about 4 points at 6,000 labelled images.", NUMBER,
          "200,000 images against none", _worth("many", 4.0)),
    Claim("3", "Beyond 100,000 pre-training images the gain is small.", SMALL,
          "largest size against 100,000, or against the second-largest size in a grid without 100,000", _little_beyond),
    Claim("4a", "Intermediate classification always hurts.", EVERY,
          "task against none, same pre-training and labels; moderated t", _task_hurts),
    Claim("4b", "Intermediate classification costs up to about 7 points.", NUMBER,
          "Intel classification against none, 200,000 pre-training images, 250 labels", _largest_harm),
    Claim("4c", "It hurts most where pre-training helps most.", ASSOCIATION,
          "covariance with basic parametric bootstrap", _harm_follows_worth),
    Claim("4d", "Its harm shrinks with downstream data.", AVERAGE,
          "slope of (task - none) on log2 labels, above 0", _harm_shrinks),
]  # fmt: skip


def judge(
    cells: pd.DataFrame,
    geometry: pd.DataFrame | None = None,
    confidence: float = 0.95,
    share_encoder: bool = False,
) -> list[dict[str, Any]]:
    """Judge every claim: the fields of `Claim` (but its test) and of `Verdict`, and `scope`, as one record each.

    Args:
        cells: either form of cells.csv.
        geometry: rows of geometry.csv, or None where a study measures none.
        share_encoder: all seeds start from one pre-trained encoder a size; then verdicts speak of these encoders only.
    """
    sizes, tasks, labels = grid(cells)
    study = Study(measure(cells), sizes, tasks, labels, confidence)
    shared = "; the one encoder of each size, not pre-training anew" if share_encoder else ""
    records = []
    for claim in CLAIMS:
        verdict = claim.test(study)
        record = {key: getattr(claim, key) for key in ("id", "statement", "criterion", "method")}
        records.append({**record, "scope": _scope(claim.id, study) + shared, **asdict(verdict)})
    return records + judge_geometry(geometry, confidence)


def _scope(claim: str, study: Study) -> str:
    if claim == "3" and len(study.used) > 1 and _beyond(study.used) != PAPER_SIZES["beyond"]:
        return f"this grid's last step, {study.used[-2]:,} to {study.used[-1]:,} images, in place of 100,000 to 200,000"
    shown = ", ".join(f"{size:,}" for size in study.sizes)
    return f"pretrain {shown}; downstream {', '.join(f'{size:,}' for size in study.labels)}"


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.claims",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="the study's cells.csv")
    parser.add_argument("--geometry", type=Path, help="the study's geometry.csv")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--confidence", type=float, default=0.95, help="1 - alpha of the tests")
    parser.add_argument("--share-encoder", action="store_true", help="all seeds start from one encoder a size")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    cells = read_cells(args.cells)
    geometry = read_frame(args.geometry, GEOMETRY_COLUMNS) if args.geometry else None
    records = judge(cells, geometry, args.confidence, args.share_encoder)
    study = str(cells["study"].iloc[0])
    write_json(args.output / "claims.json", {"study": study, "alpha": 1 - args.confidence, "claims": records})
    write_text(args.output / "claims.md", claims_markdown(study, records, args.confidence))
    for record in records:
        console.say(f"{record['id']:>3} {record['verdict']:<12} {record['statement']}")


if __name__ == "__main__":
    raise SystemExit(main())
