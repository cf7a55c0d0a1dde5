"""The published study as data, and a study's cells beside it.

Source of the numbers in `data/`: Bridge, Sun, Branyicskai-Nagy, D'Ornano, Basu, "Diminishing Returns in Self-Supervised
Learning", arXiv:2512.03862. `published_results.csv` holds Tables 1, A2 and A3,
`published_optimization.csv` Table A1, `published_geometry.csv` Table 2 of v2.
The paper leaves three things open, each a part of a `Reading`: the tables never define their ± (captions of the first
version say standard error; the error bars of the second fit sample standard deviations, the likelier reading); Fig. 4
and the tables disagree about 100,000 images; and whether the three runs of a cell had encoders of their own (the
release makes one a size).
"""

from dataclasses import dataclass
from importlib import resources

import numpy as np
import pandas as pd

from viny.analysis.frames import KEYS, PUBLISHED, Tables
from viny.analysis.summary import METRICS, summarize

NOTE = "published values, arXiv:2512.03862"
RUNS = 3
GOAL = 70.0  # mIoU in percent, a little above the best published cell
# Table A1: passes over the training images of each stage. seg_train of Intel Image Classification has 14,034 images.
PRETRAIN_EPOCHS, INTERMEDIATE_EPOCHS, FINETUNE_EPOCHS, BATCH = 100, 200, 100, 64
INTEL_IMAGES = 14_034
NAMES = {"intel": "cls_intel", "pretrained": "none"}  # the intermediate task's name in the tables and here
# Fig. 4 of v2: what Intel classification changes after 100,000 images, in points, by labels.
FIGURE_4 = {250: -6.25, 500: -5.03, 1_000: -4.51, 2_000: -3.44, 4_000: -2.03, 6_000: -1.31}


@dataclass(frozen=True)
class Reading:
    """How the paper is read where it leaves something open.

    Attributes:
        deviation: ± is a sample standard deviation over the runs, not a standard error.
        figure: the 100,000 images curve after Intel classification is that of Fig. 4, not of Table A3.
        shared: the runs of a cell start from one encoder.
    """

    deviation: bool = True
    figure: bool = False
    shared: bool = False


def tables(reading: Reading = Reading()) -> Tables:
    """The published study: 42 cells, Table 2 of v2 and Table A1."""
    stages = {}
    for row in _data("published_optimization.csv").to_dict("records"):
        phase, milestones = row.pop("phase"), [int(epoch) for epoch in row["milestones"].split()]
        stages[phase] = {"settings": {phase.replace(" ", "."): row | {"milestones": milestones}}}
    settings = {"study": PUBLISHED, "miou": "not said", "share_encoder": reading.shared, "stages": stages}
    settings |= {"goal": {"miou": GOAL}}
    return Tables(published_cells(reading), settings, published_geometry())


def published_cells(reading: Reading = Reading()) -> pd.DataFrame:
    """One row per cell, with standard errors; images seen are computed from Table A1."""
    table = _data("published_results.csv").rename(columns={"pretrain_size": "pretrain", "finetune_size": "downstream"})
    task = table["intermediate"].replace(NAMES)
    if reading.deviation:
        table[["miou_pm", "accuracy_pm"]] /= np.sqrt(RUNS)
    if reading.figure:
        bare = table[(table["pretrain"] == 100_000) & (task == "none")].set_index("downstream")["miou_percent"]
        here = (table["pretrain"] == 100_000) & (task == "cls_intel")
        labels = table.loc[here, "downstream"]
        table.loc[here, "miou_percent"] = labels.map(bare) + labels.map(FIGURE_4)
    return table.drop(columns="table").assign(
        study=PUBLISHED,
        encoder="",
        intermediate=task,
        seed=np.nan,
        status="done",
        runs=RUNS,
        steps=FINETUNE_EPOCHS * np.ceil(table["downstream"] / BATCH).astype(int),
        samples_seen=FINETUNE_EPOCHS * table["downstream"],
        pretrain_samples=PRETRAIN_EPOCHS * table["pretrain"],
        intermediate_samples=np.where(task == "none", 0, INTERMEDIATE_EPOCHS * INTEL_IMAGES),
    )


def published_geometry() -> pd.DataFrame:
    """Table 2 of v2, one row per encoder, without error measure.

    Its probe accuracy is that on the probe's own training patches; a held-out figure was not published.
    """
    table = _data("published_geometry.csv").rename(
        columns={"model": "intermediate", "patch_probe_accuracy_percent": "probe_accuracy_training_percent"}
    )
    task = table["intermediate"].replace(NAMES)
    unknown = {"seed": np.nan, "probe_accuracy_percent": np.nan}
    return table.assign(pretrain=200_000, encoder="", intermediate=task, status="done", **unknown)


def beside_paper(cells: pd.DataFrame) -> pd.DataFrame:
    """Each cell of a study beside the published one, in long form: a row per cell and metric (`miou`, `accuracy`).

    Columns, in percent and points: n (runs), ours, ours_se, published, published_se (missing where there is none),
    difference (ours - published), combined_se (both standard errors), difference_in_se.
    """
    ours, theirs = summarize(cells), summarize(published_cells())
    both = ours.merge(theirs, on=KEYS, how="left", suffixes=("", "_published"), sort=False)
    frames = []
    for metric in METRICS:
        columns = {"ours": "percent", "ours_se": "se", "published": "percent_published", "published_se": "se_published"}
        values = {name: both[f"{metric}_{column}"] for name, column in columns.items()}
        frame = both[KEYS].assign(metric=metric, n=both["n"], **values)
        frame["difference"] = frame["ours"] - frame["published"]
        frame["combined_se"] = np.hypot(frame["ours_se"], frame["published_se"])
        frame["difference_in_se"] = frame["difference"] / frame["combined_se"].where(frame["combined_se"] > 0)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _data(name: str) -> pd.DataFrame:
    with resources.files("viny.analysis").joinpath("data", name).open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)
