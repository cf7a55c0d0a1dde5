"""The runs of a study for its page: a row each with scores, cost and links, and their training curves."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.chart import column
from viny.analysis.formats import MISSING
from viny.analysis.frames import PLACE, Tables
from viny.analysis.observed import place_of

MOST_POINTS = 200  # of a training curve
MOST_CHOSEN = 6  # curves shown at first
FILES = {"metrics.json": "metrics", "history.jsonl": "history", "examples.npz": "examples"}
WORDS = ("stage", "encoder", "task")
NUMBERS = {  # columns of the tables: heading and format
    "downstream": ("labels", ",.0f"),
    "seed": ("seed", ""),
    "miou_percent": ("mIoU (%)", ".2f"),
    "accuracy_percent": ("accuracy (%)", ".2f"),
    "heldout_loss": ("held-out loss", ".4g"),
    "train_seconds": ("training (s)", ",.1f"),
}
HEADINGS = [*WORDS, *(heading for heading, _ in NUMBERS.values()), "device", "finished (UTC)"]


@dataclass(frozen=True)
class Run:
    """A row of the table of runs.

    Attributes:
        id: of its curve; empty if it has none. chosen: its curve is shown at first.
        cells: what is shown, and the value to sort by, in the order of HEADINGS.
        links: name and address, relative to the page, of each of its files.
    """

    id: str
    chosen: bool
    cells: list[tuple[str, Any]]
    links: list[tuple[str, str]]


def runs(tables: Tables, page: Path) -> tuple[list[Run], dict[str, dict[str, Any]]]:
    """The rows, cells first, and the curves by id; none for a published study, which has no runs.

    Args:
        page: the folder of the page, from which links start.
    """
    cells = tables.cells.rename(columns={"loss": "heldout_loss"}).assign(stage="finetune")
    if cells["seed"].isna().all():
        return [], {}
    jobs = {(job.stage, *_place(place_of(job))): job for job in tables.jobs}
    histories = tables.histories.groupby(["stage", *PLACE], dropna=False, sort=False)
    epochs = {(stage, *_place(dict(zip(PLACE, place, strict=True)))): rows for (stage, *place), rows in histories}
    costs = {_key(row): row for row in tables.costs.to_dict("records")}
    rows = {_key(row): {**costs.get(_key(row), {}), **row} for row in cells.to_dict("records")}
    done = cells[cells["status"] == "done"]
    most = done[done["downstream"] == done["downstream"].max()].drop_duplicates(["pretrain", "encoder", "intermediate"])
    chosen = {_key(row) for row in most.head(MOST_CHOSEN).to_dict("records")}
    found: list[Run] = []
    curves = {}
    for key, row in (rows | {key: row for key, row in costs.items() if key not in rows}).items():
        name = f"r{len(found)}" if key in epochs else ""
        shown = _cells(row)
        if name:
            curves[name] = _curve(row, [text for text, _ in shown], epochs[key])
        links = []
        if job := jobs.get(key):
            files = {job.folder / file: label for file, label in FILES.items()} | {job.log: "log"}
            links = [(label, link(path, page)) for path, label in files.items() if path.is_file()]
        found.append(Run(name, key in chosen, shown, links))
    return found, curves


def link(path: Path, page: Path) -> str:
    """The address of a file, relative to the folder of the page."""
    return quote(Path(os.path.relpath(path, page)).as_posix(), safe="/=,")


def _key(row: Any) -> tuple[Any, ...]:
    return row["stage"], *_place(row)


def _place(row: Any) -> tuple[Any, ...]:
    """A place as it is the same in all tables: whole numbers, and None for an axis that the stage has not."""
    *values, seed = (row.get(axis) for axis in PLACE)
    seed = int(seed) if str(seed).isdecimal() else seed  # a file with `shared` among its seeds has words for numbers
    return tuple(None if pd.isna(v) or v == "" else int(v) if isinstance(v, float) else v for v in (*values, seed))


def _cells(row: dict[str, Any]) -> list[tuple[str, Any]]:
    pretrain, encoder, task, *_ = _place(row)
    cells: list[tuple[str, Any]] = [(names.stage(row["stage"]), row["stage"])]
    cells += [(names.start(pretrain, encoder or ""), encoder or pretrain), (names.task(task or MISSING), task or "")]
    for name, (_, form) in NUMBERS.items():
        value = row.get(name)
        known = value is not None and not pd.isna(value)
        cells.append((format(value, form), value) if known else (MISSING, ""))
    when = row.get("finished")
    device = row.get("device_name") if pd.notna(row.get("device_name")) else MISSING
    if row.get("status") == "missing":
        device = "no result yet"
    return [*cells, (str(device), device), (str(when).replace("T", " ")[5:16] if pd.notna(when) else MISSING, when)]


def _curve(row: dict[str, Any], shown: list[str], epochs: pd.DataFrame) -> dict[str, Any]:
    """A curve for the page's script: loss by epoch, and the loss on held-out images after the last."""
    kept = epochs.iloc[np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_POINTS)).round().astype(int))]
    stage, start, task, labels, seed, *_ = shown
    parts = [start, task if task not in ("none", MISSING) else "", f"{labels} labels" if labels != MISSING else ""]
    numbers = {"epoch": column(kept["epoch"]), "loss": column(kept["loss"])}
    heldout = column([row.get("heldout_loss")])[0]
    return {"stage": stage, "label": ", ".join([*filter(None, parts), f"seed {seed}"]), **numbers, "heldout": heldout}
