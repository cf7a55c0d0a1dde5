"""The paper's claims and a study's own as tests, each stated beforehand: claims.json, claims.md.

A claim is data (`viny.config.claims`): the paper's are in data/claims.yaml, a study's own in its file. From the axes
that it names follow contrasts on the study's own sizes and tasks; how they are judged: `viny.analysis.verdicts`.

Claims about the geometry of encoders are judged in the same way, an encoder being a cell without labels. The published
table of these has one value per encoder and no error, so those stay undecided.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import yaml

from viny.analysis import names
from viny.analysis.contrasts import Measured, Weights, difference, measure, polynomial
from viny.analysis.frames import KEYS, Tables, on_grid
from viny.analysis.summary import grid
from viny.analysis.verdicts import Expectation, Member, Verdict, association, evidence, on_average, on_each, untested
from viny.config.claims import Axis, Claim

COORDINATES: tuple[Axis, ...] = ("pretrain", "intermediate", "downstream")
AXES: dict[Axis, int] = {"pretrain": 0, "intermediate": 1, "downstream": 2, "distance": 2}  # place in a cell's key
LABELS = {"pretrain": "pre-training images", "downstream": "labels"}
PROBE = {"probe_accuracy": ("probe_accuracy_percent", "probe_accuracy_training_percent")}
KINDS = ("classification", "patches")
Axes = tuple[list[Any], list[Any], list[Any]]  # declared values on the axes of `KEYS`


@cache
def papers() -> dict[str, Claim]:
    """The paper's claims by name."""
    text = resources.files("viny.analysis").joinpath("data/claims.yaml").read_text(encoding="utf-8")
    return {name: Claim.model_validate(claim) for name, claim in yaml.safe_load(text).items()}


def judge(tables: Tables) -> list[dict[str, Any]]:
    """Judge a study's own claims, then the paper's.

    Returns:
        a record each: id, statement, whose (`study` or `paper`), criterion, scope, and the fields of `Verdict`.
    """
    own = {name: Claim.model_validate(claim) for name, claim in tables.settings.get("claims", {}).items()}
    asked = Asked(tables)
    records = []
    for whose, claims in (("study", own), ("paper", papers())):
        for name, claim in claims.items():
            verdict = asked.verdict(claim)
            head = {"id": name, "statement": claim.says, "whose": whose, "criterion": criterion(claim)}
            records.append({**head, "scope": asked.scope(verdict), **asdict(verdict)})
    return records


class Asked:
    """A study that claims are asked of.

    Attributes:
        scores: mIoU of the grid's cells.
    """

    def __init__(self, tables: Tables):
        self.tables, self.confidence = tables, tables.confidence
        self.shared = tables.shares_encoders
        self.scores = measure(tables.grid, self.shared)

    def verdict(self, claim: Claim) -> Verdict:
        """The verdict on a claim."""
        if claim.paper_data and not self.tables.on_paper_data:
            return untested("the number is about the paper's data sets, and this study's are others or not recorded")
        low, high = claim.expect.region
        expected = Expectation(low, high, self.confidence, claim.negligible, self._unit(claim))
        if claim.measure == ("miou",):
            return self._judged(claim, expected, self.scores, grid(self.tables.grid))
        frames, training = [], False
        for name in claim.measure:  # one by one: measures of different units share no variance
            column, measured, axes = self._geometry(name)
            training |= column == PROBE["probe_accuracy"][1]
            of, members = self._members(claim, measured, axes)
            if claim.judge == "average" and members:
                return on_average(of, members, expected)
            if members:
                here = evidence(of, members, expected).assign(measure=name)
                frames.append(here if name == "similarity" else here.assign(downstream=None))
        if not frames:
            return untested("the study has no geometry of the encoders that this is about")
        found = on_each(pd.concat(frames, ignore_index=True), expected)
        found.reason += "; probe accuracy is that on the probe's own training patches" * training
        blind = self._blind_probes() & {cell["intermediate"] for cell in found.cells}
        if "probe_accuracy" in claim.measure and blind:
            shown = ", ".join(map(names.task, sorted(blind)))
            found.reason += f"; the probe after {shown} does not beat a patch's position, so it says nothing"
        return found

    def scope(self, verdict: Verdict) -> str:
        """The places that a verdict rests on."""
        if not verdict.cells:
            return ""
        parts = []
        distance = any(cell.get("measure") == "similarity" for cell in verdict.cells)
        last = "distance {}" if distance else "{} labels"
        for key, what in zip(KEYS, ("pre-training {}", "{}", last), strict=True):
            values = sorted({cell[key] for cell in verdict.cells if cell.get(key) is not None} - {""})
            shown = ", ".join(names.task(v) if isinstance(v, str) else f"{v:,}" for v in values if v != "none")
            parts += [what.format(shown)] if shown else []
        parts += ["the one encoder of each size, not repeated pre-training"] if self.shared else []
        return "; ".join(parts)

    def _judged(self, claim: Claim, expected: Expectation, measured: Measured, axes: Axes) -> Verdict:
        if claim.follows:
            return association(measured, list(self._pairs_of_effects(claim, axes)), expected)
        of, members = self._members(claim, measured, axes)
        if not members:
            return untested(self._lacking(claim, axes))
        if claim.judge == "average":
            return on_average(of, members, expected)
        return on_each(evidence(of, members, expected), expected)

    def _members(self, claim: Claim, measured: Measured, axes: Axes) -> tuple[Measured, list[Member]]:
        """The contrasts of a claim, on scores or, along the axis of tasks, on differences to the baseline."""
        if claim.bend:
            return measured, list(self._bends(claim, measured, axes))
        [(axis, (start, end))] = claim.change.items()
        position = AXES[axis]
        pairs = list(self._steps(claim, axis, start, end, axes))
        others = self._places(claim, axes, without=position)
        contrast: dict[Any, Weights]
        if axis == "intermediate":
            baselines = {_at(o, position, b): _at(o, position, a) for a, b in pairs for o in others}
            measured = measured.against({cell: base for cell, base in baselines.items() if cell != base})
            contrast = {cell: {cell: 1.0} for cell in baselines}
        else:
            contrast = {
                _at(o, position, b): difference(_at(o, position, b), _at(o, position, a))
                for a, b in pairs
                for o in others
            }
        contrast = {cell: weights for cell, weights in contrast.items() if weights.keys() <= measured.rows.keys()}
        if claim.trend:
            there = {cell: weights for cell, weights in contrast.items() if all(map(measured.has, weights))}
            return measured, list(_trends(there or contrast, AXES[claim.trend]))
        return measured, [Member(cell, weights) for cell, weights in contrast.items()]

    def _bends(self, claim: Claim, measured: Measured, axes: Axes) -> Iterator[Member]:
        """Quadratic coefficients along an axis, doubled: the change of the gain per unit, each unit."""
        [(axis, per)] = claim.bend.items()
        position = AXES[axis]
        x = [n for n in self._values(claim, axis, axes) if n > 0 or per == "images"]
        if len(x) < 3:
            return
        scale = np.log2(x) if per == "doublings" else np.array(x) / _round(x)
        for place in self._places(claim, axes, without=position):
            keys = [_at(place, position, n) for n in x]
            weights = {key: 2 * weight for key, weight in polynomial(keys, scale, 2).items()}
            if measured.rows.keys() >= set(keys):
                yield Member(_at(place, position, None), weights)

    def _pairs_of_effects(self, claim: Claim, axes: Axes) -> Iterator[tuple[Any, Weights, Weights]]:
        """For each change of a claim the other change, at the baseline of the first."""
        [(axis, (start, end))] = claim.change.items()
        [(other, (origin, _))] = claim.follows.items()
        for place in self._places(claim, axes, without=AXES[axis]):
            for a, b in self._steps(claim, axis, start, end, axes):
                cell, base = _at(place, AXES[axis], b), _at(place, AXES[axis], a)
                first, second = difference(cell, base), difference(base, _at(base, AXES[other], origin))
                if first.keys() | second.keys() <= self.scores.rows.keys():
                    yield cell, first, second

    def _steps(self, claim: Claim, axis: Axis, start: Any, end: Any, axes: Axes) -> Iterator[tuple[Any, Any]]:
        """(from, to) along an axis, for every value that `to` stands for."""
        declared, allowed = axes[AXES[axis]], self._values(claim, axis, axes)
        if axis == "intermediate":
            ends = [task for task in declared if task != start and self._means(str(end), task)]
        else:
            ends = [n for n in allowed if end == "each" or n == _size(end, allowed)]
        for value in ends:
            below = [n for n in allowed if axis != "intermediate" and n < value]
            origin = (below[-1] if below else None) if start == "previous" else _size(start, allowed)
            if origin != value and origin in declared:
                yield origin, value

    def _places(self, claim: Claim, axes: Axes, without: int) -> list[tuple]:
        """All combinations of the values that a claim allows on the axes other than one."""
        values = [self._values(claim, axis, axes) for axis in COORDINATES]
        values[without] = [None]
        return list(itertools.product(*values))

    def _values(self, claim: Claim, axis: Axis, axes: Axes) -> list[Any]:
        """The study's values on an axis that a claim allows."""
        declared = axes[AXES[axis]]
        allowed = dict(claim.at)
        if axis == "downstream" and "distance" in allowed:
            allowed["downstream"] = allowed["distance"]
        if axis not in allowed:
            return declared
        wanted: Any = allowed[axis]
        every = wanted if isinstance(wanted, tuple) else (wanted,)
        if axis == "intermediate":
            return [task for task in declared if any(self._means(each, task) for each in every)]
        return [n for n in declared if any(n > 0 if e == "trained" else n == _size(e, declared) for e in every)]

    def _means(self, word: Any, task: str) -> bool:
        """Whether a word of a claim means an intermediate task."""
        if word in KINDS:
            return self.tables.task(task) == word
        return task != "none" if word in ("each", "others") else task == word

    def _blind_probes(self) -> set[str]:
        """Tasks after which the probe, on average over encoders, finds no more than a patch's position alone."""
        frame = on_grid(self.tables.geometry)
        if "probe_chance_position_percent" not in frame:
            return set()
        gain = (frame["probe_accuracy_percent"] - frame["probe_chance_position_percent"]).astype(float)
        means = gain.groupby(frame["intermediate"]).mean()
        return set(means.index[means <= 0])

    def _geometry(self, name: str) -> tuple[str, Measured, Axes]:
        """Column, values and axes of a measure of the geometry."""
        frame = on_grid(self.tables.similarity if name == "similarity" else self.tables.geometry)
        columns = [column for column in PROBE.get(name, (name,)) if column in frame]
        column = next((column for column in columns if frame[column].notna().any()), columns[0])
        known = frame[frame[column].notna()]
        values = known[column].astype(float)
        place = {"downstream": known["distance"] if name == "similarity" else 0, "seed": known["seed"].fillna(0)}
        cells = known.assign(**place, miou_percent=values, accuracy_percent=values)
        if cells.empty:
            return column, self.scores, ([], [], [])
        return column, measure(cells, self.shared), grid(cells)

    def _lacking(self, claim: Claim, axes: Axes) -> str:
        """Why a claim has no members here."""
        [axis] = [*claim.change, *claim.bend]
        if claim.bend:
            return f"a change of slope needs 3 sizes on the axis of {LABELS[axis]}"
        start, end = claim.change[axis]
        missing = [task for task in (start, end) if task not in (*axes[1], *KINDS, "each")]
        if axis == "intermediate" and missing:
            return f"this grid lacks the task {missing[0]}"
        if end in KINDS and not any(self._means(end, task) for task in axes[1]):
            return f"this grid has no task that is {end}"
        if isinstance(start, int) or isinstance(end, int) or any(isinstance(v, int) for v in claim.at.values()):
            return "the claim is about sizes that are not in this grid"
        return "this grid lacks the cells that the claim compares"

    def _unit(self, claim: Claim) -> str:
        if claim.measure not in (("miou",), ("probe_accuracy",)):
            return ""
        if claim.trend:
            return f"points per doubling of {LABELS[claim.trend]}"
        if not claim.bend:
            return "points"
        [(axis, per)] = claim.bend.items()
        sizes: Any = grid(self.tables.grid)[AXES[axis]]
        unit = "doubling" if per == "doublings" else f"{_round(sizes):,} images"
        return f"points per {unit}, each {unit}"


def criterion(claim: Claim) -> str:
    """What a claim is judged by, in words."""
    expect = claim.expect
    if expect.about is not None:
        wanted = f"{expect.about:g}, give or take {expect.within:g}"
    else:
        wanted = f"above {expect.above:g}" if expect.above is not None else f"below {expect.below:g}"
    what = "the covariance of both effects" if claim.follows else "each effect"
    what = "the average effect" if claim.judge == "average" else what
    return f"{what} is {wanted}" + (f"; negligible below {claim.negligible:g}" if claim.negligible else "")


def _trends(contrast: Mapping[Any, Weights], position: int) -> Iterator[Member]:
    """Slopes of contrasts per doubling along an axis, over the sizes that are there, the other coordinates fixed."""
    lines: dict[Any, list[Any]] = {}
    for cell in contrast:
        if cell[position] > 0:
            lines.setdefault(_at(cell, position, None), []).append(cell)
    for place, cells in lines.items():
        if len(cells) > 1:
            total: dict[Any, float] = {}
            for cell, slope in polynomial(cells, np.log2([cell[position] for cell in cells]), 1).items():
                for key, weight in contrast[cell].items():
                    total[key] = total.get(key, 0.0) + slope * weight
            yield Member(place, total)


def _size(word: Any, sizes: list[int]) -> Any:
    """The size that a word means, itself if it is no such word."""
    return {"smallest": sizes[0], "largest": sizes[-1]}.get(word, word) if sizes else word


def _round(sizes: list[int]) -> int:
    """A round number of images within the grid, as the unit of a slope."""
    return 10 ** int(np.log10(max([1, *sizes])))


def _at(place: tuple, position: int, value: Any) -> Any:
    return (*place[:position], value, *place[position + 1 :])
