"""The runs of a study and its variants for its page: a row each with scores, cost and links, and training curves."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.chart import column
from viny.analysis.formats import MISSING
from viny.analysis.frames import PLACE, RUN, Tables
from viny.analysis.observed import run_of
from viny.config.sections import BASE

MOST_POINTS = 200  # of a training curve
MOST_CHOSEN = 6  # curves shown at first
FILES = {"metrics.json": "metrics", "history.jsonl": "history", "examples.npz": "examples"}
WORDS = ("stage", "variant", "encoder", "task")
FILTERS = ("stage", "variant")
NUMBERS = {  # columns of the tables: heading and format
    "downstream": ("labels", ",.0f"),
    "seed": ("seed", ""),
    "miou_percent": ("mIoU (%)", ".2f"),
    "accuracy_percent": ("accuracy (%)", ".2f"),
    "heldout_loss": ("held-out loss", ".4g"),
    "train_seconds": ("training (s)", ",.1f"),
}


@dataclass(frozen=True)
class Run:
    """A row of the table of runs.

    Attributes:
        id: of its curve; empty if it has none. chosen: its curve is shown at first.
        cells: by heading what is shown, and the value to sort by.
        links: name and address, relative to the page, of each of its files.
    """

    id: str
    chosen: bool
    cells: dict[str, tuple[str, Any]]
    links: list[tuple[str, str]]


@dataclass(frozen=True)
class RunTable:
    """The table of runs: its rows, and the training curves by id."""

    rows: list[Run]
    curves: dict[str, dict[str, Any]]

    @cached_property
    def columns(self) -> dict[str, bool]:
        """The headings, and whether a column holds words."""
        return {heading: heading in WORDS for heading in self.rows[0].cells}

    @cached_property
    def choices(self) -> dict[str, list[str]]:
        """What the table can be filtered by, and the values."""
        shown = {name: [row.cells[name][0] for row in self.rows] for name in FILTERS if name in self.columns}
        return {name: list(dict.fromkeys(values)) for name, values in shown.items()}


def table(tables: Tables, page: Path) -> RunTable:
    """The runs of cells first; none for a published study. A run that a variant shares with the study is there once.

    Args:
        page: the folder of the page, from which links start.
    """
    declared = tables.variants if len(tables.variants) else tables.cells.assign(variant=BASE)
    cells = declared.rename(columns={"loss": "heldout_loss"}).assign(stage="finetune")
    if cells["seed"].isna().all():
        return RunTable([], {})
    jobs = {_key(run_of(job)): job for job in tables.jobs}
    histories = tables.histories.groupby(RUN, dropna=False, sort=False)
    epochs = {_key(dict(zip(RUN, run, strict=True))): rows for run, rows in histories}
    costs = {_key(row): row for row in tables.costs.to_dict("records")}
    own = [row for row in cells.to_dict("records") if not row.get("shared")]
    rows = {_key(row): {**costs.get(_key(row), {}), **row} for row in own}
    varied = any(row["variant"] != BASE for row in own)
    done = cells[(cells["status"] == "done") & (cells["variant"] == BASE)]
    most = done[done["downstream"] == done["downstream"].max()].drop_duplicates(["pretrain", "encoder", "intermediate"])
    chosen = {_key(row) for row in most.head(MOST_CHOSEN).to_dict("records")}
    found: list[Run] = []
    curves = {}
    for key, row in (rows | {key: row for key, row in costs.items() if key not in rows}).items():
        name = f"r{len(found)}" if key in epochs else ""
        shown = _cells(row)
        if not varied:
            del shown["variant"]
        if name:
            curves[name] = _curve(row, {heading: text for heading, (text, _) in shown.items()}, epochs[key])
        links = []
        if job := jobs.get(key):
            files = {job.folder / file: label for file, label in FILES.items()} | {job.log: "log"}
            links = [(label, link(path, page)) for path, label in files.items() if path.is_file()]
        found.append(Run(name, key in chosen, shown, links))
    return RunTable(found, curves)


def link(path: Path, page: Path) -> str:
    """The address of a file, relative to the folder of the page."""
    return quote(Path(os.path.relpath(path, page)).as_posix(), safe="/=,")


def _key(row: Any) -> tuple[Any, ...]:
    return row["variant"], row["stage"], *_place(row)


def _place(row: Any) -> tuple[Any, ...]:
    """A place as it is the same in all tables: whole numbers, and None for an axis that the stage has not."""
    *values, seed = (row.get(axis) for axis in PLACE)
    seed = int(seed) if str(seed).isdecimal() else seed  # a file with `shared` among its seeds has words for numbers
    return tuple(None if pd.isna(v) or v == "" else int(v) if isinstance(v, float) else v for v in (*values, seed))


def _cells(row: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    pretrain, encoder, task, *_ = _place(row)
    words = [(names.stage(row["stage"]), row["stage"]), (row["variant"], row["variant"])]
    words += [(names.start(pretrain, encoder or ""), encoder or pretrain), (names.task(task or MISSING), task or "")]
    cells = dict(zip(WORDS, words, strict=True))
    for name, (heading, form) in NUMBERS.items():
        value = row.get(name)
        known = value is not None and not pd.isna(value)
        cells[heading] = (format(value, form), value) if known else (MISSING, "")
    when = row.get("finished")
    device = row.get("device_name") if pd.notna(row.get("device_name")) else MISSING
    if row.get("status") == "missing":
        device = "no result yet"
    finished = str(when).replace("T", " ")[5:16] if pd.notna(when) else MISSING
    return cells | {"device": (str(device), device), "finished (UTC)": (finished, when)}


def _curve(row: dict[str, Any], shown: dict[str, str], epochs: pd.DataFrame) -> dict[str, Any]:
    """A curve for the page's script: loss by epoch, and the loss on held-out images after the last."""
    kept = epochs.iloc[np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_POINTS)).round().astype(int))]
    words = (shown.get("variant", BASE), shown["encoder"], shown["task"])
    parts = [word for word in words if word not in (BASE, "none", MISSING)]
    parts += [f"{shown['labels']} labels"] if shown["labels"] != MISSING else []
    numbers = {"epoch": column(kept["epoch"]), "loss": column(kept["loss"])}
    heldout = column([row.get("heldout_loss")])[0]
    label = ", ".join([*parts, f"seed {shown['seed']}"])
    return {"stage": shown["stage"], "label": label, **numbers, "heldout": heldout}
