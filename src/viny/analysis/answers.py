"""The answers of a study in a few numbers: what pre-training, labels and intermediate tasks buy, and how sure that is.

They are rows of statistics/effects.csv, encoders.csv, doubling.csv and effective_data.csv, put into words.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.formats import number

VERDICTS = ("supported", "contradicted", "negligible", "undecided", "not tested")
MOST_CARDS = 3  # of tasks, of encoders


@dataclass(frozen=True)
class Answer:
    """One answer: what it is about, its number and unit, further sentences, and the part of the page to read on in."""

    about: str
    value: str
    unit: str
    sentences: list[str]
    section: str


def answers(
    found: Mapping[str, pd.DataFrame], claims: list[dict[str, Any]], seeds: int, confidence: float
) -> list[Answer]:
    """The answers that the data have."""
    made = [
        _pretraining("Pre-training", found["effects"], found["effective_data"], confidence),
        *(_encoders(found["encoders"], confidence) if "encoders" in found else []),
        _labels(found["doubling"], confidence),
        *_tasks(found["effects"], confidence),
        _goal(found["goal"], confidence) if "goal" in found else None,
        _budget(found["budget"], confidence) if "budget" in found else None,
        _certainty(found["effects"], claims, seeds, confidence),
    ]
    return [answer for answer in made if answer]


def _encoders(found: pd.DataFrame, confidence: float) -> list[Answer | None]:
    """What encoders buy that were not trained here."""
    of = found.groupby("encoder", sort=False)
    return [_pretraining(f"Encoder {name}", rows, rows, confidence) for name, rows in itertools.islice(of, MOST_CARDS)]


def _pretraining(what: str, effects: pd.DataFrame, effective: pd.DataFrame, confidence: float) -> Answer | None:
    rows = _bare(effects[(effects["family"] == "pretrain") & effects["effect"].notna()])
    if rows.empty:
        return None
    rows = rows[rows["pretrain"] == rows["pretrain"].max()].sort_values("downstream")
    first, last = rows.iloc[0], rows.iloc[-1]
    unit = f"points of mIoU with {first['downstream']:,} labels, {_ends(first, confidence)}"
    start = f"From {first['pretrain']:,} images" if first["pretrain"] else "An encoder trained elsewhere"
    sentences = [f"{start}, against a random start."]
    if len(rows) > 1:
        sentences.append(f"With {last['downstream']:,} labels: {_signed(last['effect'])}, {_ends(last, confidence)}.")
    worth = effective[
        (effective["pretrain"] == first["pretrain"]) & (effective["intermediate"] == first["intermediate"])
    ]
    for row in worth[worth["equivalent"].notna()].sort_values("downstream").head(1).to_dict("records"):
        bound = {">": "more than ", "<": "fewer than "}.get(row["bound"], "")
        labels = f"{bound}{round(row['equivalent']):,} labels without it"
        low, high = row["equivalent_low"], row["equivalent_high"]
        ends = "" if pd.isna(low) else f", {confidence:.0%} interval {_between(low, high)}"
        sentences.append(f"{row['downstream']:,} labels with it do as well as {labels}{ends}.")
    return Answer(f"{what} buys", _signed(first["effect"]), unit, sentences, "pretraining")


def _labels(doubling: pd.DataFrame, confidence: float) -> Answer | None:
    rows = _bare(doubling[(doubling["axis"] == "downstream") & doubling["gain"].notna()])
    if rows.empty:
        return None
    rows = rows[rows["pretrain"] == rows["pretrain"].min()].sort_values("from")
    first, last = rows.iloc[0], rows.iloc[-1]
    unit = f"points per doubling from {first['from']:,} to {first['to']:,}, {_ends(first, confidence)}"
    sentences = [f"Starting from {_start(first)}."]
    if len(rows) > 1:
        step = f"From {last['from']:,} to {last['to']:,}"
        sentences.append(f"{step}: {_signed(last['gain'])} per doubling, {_ends(last, confidence)}.")
    return Answer("Labels buy", _signed(first["gain"]), unit, sentences, "labels")


def _tasks(effects: pd.DataFrame, confidence: float) -> list[Answer]:
    """What each intermediate task changes, those of the most cells first."""
    rows = effects[(effects["family"] == "intermediate") & effects["effect"].notna()]
    made = []
    for task in rows["intermediate"].value_counts().index[:MOST_CARDS]:
        here = rows[rows["intermediate"] == task]
        low, high = here["effect"].min(), here["effect"].max()
        value = _signed(low) if len(here) == 1 else f"{_signed(low)} to {_signed(high)}"
        unit = (
            f"points of mIoU over {len(here)} cells" if len(here) > 1 else f"points, {_ends(here.iloc[0], confidence)}"
        )
        better, worse = int((here["low"] > 0).sum()), int((here["high"] < 0).sum())
        sentences = ["Against the same encoders without the task."]
        if here["low"].notna().any():
            sentences.append(f"With {confidence:.0%} confidence it helps in {better} and hurts in {worse} of them.")
        made.append(Answer(f"{names.task(task)} changes", value, unit, sentences, "task"))
    return made


def _goal(needed: pd.DataFrame, confidence: float) -> Answer:
    """The fewest labels that reach the goal."""
    about, reached = f"{needed['goal'].iloc[0]:g} mIoU takes", needed[needed["bound"] != ">"].sort_values("labels")
    if reached.empty:
        most = f"{_round(needed['checked_to'].max())} labels, the most that these data speak of"
        return Answer(about, "more", f"than {most}, with any encoder", [], "outlook")
    best, bare = reached.iloc[0], reached[reached["pretrain"] == 0]
    few = "fewer than " if best["bound"] else ""
    ends = f", {confidence:.0%} interval {_between(best['labels_low'], best['labels_high'])}" if not few else ""
    sentences = [
        f"From {_start(row)}: {'fewer than ' if row['bound'] else ''}{_round(row['labels'])}."
        for row in bare.head(1).to_dict("records")
        if best["pretrain"]
    ]
    return Answer(about, few + _round(best["labels"]), f"labels from {_start(best)}{ends}", sentences, "outlook")


def _budget(bought: pd.DataFrame, confidence: float) -> Answer:
    """The best that the budget buys."""
    best, about = bought.iloc[0], f"A budget of {bought['budget'].iloc[0]:,g} buys"
    if pd.isna(best["miou_percent"]):
        return Answer(about, "too little", "for the fewest labels that were measured", [], "tables")
    ends = f"{number(best['miou_low'], 1)} to {number(best['miou_high'], 1)}"
    unit = f"mIoU, {confidence:.0%} interval {ends}"
    sentence = f"With {_round(best['labels'])} labels from {_start(best)}."
    return Answer(about, number(best["miou_percent"], 1), unit, [sentence], "tables")


def _certainty(effects: pd.DataFrame, claims: list[dict[str, Any]], seeds: int, confidence: float) -> Answer:
    """How wide intervals are, and what became of the claims."""
    half = ((effects["high"] - effects["low"]) / 2).median() if len(effects) else np.nan
    counts = Counter(claim["verdict"] for claim in claims)
    verdicts = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])
    runs = f"{seeds} seed{'s' * (seeds != 1)} a cell" if seeds else "3 published runs a cell"
    if np.isnan(half):
        return Answer(
            "How sure", "no interval", f"is known yet ({runs})", [f"{len(claims)} claims: {verdicts}."], "verdicts"
        )
    unit = f"points is how well a difference of two cells is known (median {confidence:.0%} interval, {runs})"
    return Answer("How sure", f"± {number(half, 1)}", unit, [f"{len(claims)} claims: {verdicts}."], "verdicts")


def _bare(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without intermediate task, if there are any."""
    bare = rows["intermediate"] == "none"
    return rows[bare] if bare.any() else rows


def _start(row: Any) -> str:
    task = "" if row["intermediate"] == "none" else f" and {names.task(row['intermediate'])}"
    return (f"{row['pretrain']:,} pre-training images" if row["pretrain"] else "a random start") + task


def _ends(row: Any, confidence: float) -> str:
    if pd.isna(row["low"]):
        return "without interval (single runs)"
    return f"{confidence:.0%} interval {_signed(row['low'])} to {_signed(row['high'])}"


def _round(value: float) -> str:
    """Three digits: `8,030`."""
    return f"{float(f'{value:.3g}'):,.0f}"


def _between(low: float, high: float) -> str:
    """An interval of numbers of labels, whose ends may be beyond those of the study."""
    return f"{_round(low) if low else 'any number'} to {'beyond these data' if np.isinf(high) else _round(high)}"


def _signed(value: float) -> str:
    return number(value, 1, signed=True).replace("-", "−")
