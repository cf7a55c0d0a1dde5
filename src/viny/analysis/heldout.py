"""Does the held-out loss of pre-training, known before any label, say what segmentation will score?

Spearman's rank correlation of an encoder's loss with its mIoU, for each task and number of labels: 1 if every encoder
with a lower loss scores higher. Encoders of several sizes may rank well by their size alone, so the same is asked
within sizes: ranks are taken among the encoders of one size (other seeds), where size says nothing.
"""

from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from viny.analysis import names
from viny.analysis.formats import Table, any_number, number
from viny.analysis.summary import grid

FEWEST, FEWEST_INTERVAL = 4, 6  # encoders; with fewer than six the interval covers too little
DRAWS = 9_999
ALL, WITHIN = "all encoders", "within sizes"
COLUMNS = ["intermediate", "downstream", "among", "encoders", "correlation", "low", "high", "p", "reason"]


def points(cells: pd.DataFrame) -> pd.DataFrame:
    """A row per encoder and cell: pretrain, seed, intermediate, downstream, pretrain_loss, miou_percent.

    An encoder that seeds share is one encoder, with the mean of its runs; its seed is empty.
    """
    columns = ["pretrain", "seed", "intermediate", "downstream", "pretrain_loss", "miou_percent"]
    known = cells.reindex(columns=columns)
    known = known[(known["pretrain"] > 0) & known["pretrain_loss"].notna() & known["miou_percent"].notna()]
    shared = known.groupby("pretrain")["pretrain_loss"].transform("nunique") == 1
    known = known.assign(seed=known["seed"].astype(float).mask(shared))
    return known.groupby(columns[:-1], dropna=False, as_index=False)["miou_percent"].mean()


def loss_against_miou(cells: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """A row per task, number of labels and kind (`all encoders`, `within sizes`), in COLUMNS; no row without any loss.

    `correlation` is of the ranks of -loss and mIoU, with a one-sided permutation p and, among six encoders or more, an
    interval (Fisher's z with the error of Bonett and Wright 2000). Below four encoders a reason instead.
    """
    found = points(cells)
    rows = []
    _, tasks, labels = grid(cells)
    for task, size in product(tasks, labels) if len(found) else ():
        here = found[(found["intermediate"] == task) & (found["downstream"] == size)]
        for among in (ALL, WITHIN):
            place = {"intermediate": task, "downstream": size, "among": among}
            rows.append(place | _correlation(here, among, confidence))
    return pd.DataFrame(rows, columns=COLUMNS)


def loss_table(found: pd.DataFrame, confidence: float) -> Table:
    """The same for people."""
    rows = []
    for row in found.to_dict("records"):
        place = [names.task(row["intermediate"]), f"{row['downstream']:,}", row["among"], f"{row['encoders']}"]
        known = row["reason"] == ""
        interval = "" if np.isnan(row["low"]) else f" ({number(row['low'])} to {number(row['high'])})"
        rows.append([*place, number(row["correlation"]) + interval if known else row["reason"], any_number(row["p"])])
    note = (
        f"Rank correlation of a lower loss with a higher mIoU, {confidence:.0%} interval, one-sided permutation p. "
        "Within sizes: among encoders of equal size, which differ in their seed alone."
    )
    columns = ["Task", "Fine-tuning", "among", "encoders", "correlation", "p"]
    title = "Does the held-out loss of pre-training predict mIoU?"
    return Table("", title, columns, rows, found, note, left=3, group=2)


def _correlation(here: pd.DataFrame, among: str, confidence: float) -> dict[str, object]:
    groups = here["pretrain"].to_numpy()
    if among == WITHIN:
        here = here[here.groupby("pretrain")["miou_percent"].transform("size") > 1]
        groups = here["pretrain"].to_numpy()
    row: dict[str, object] = {"encoders": len(here), "reason": ""}
    if len(here) < FEWEST:
        what = "encoders" if among == ALL else "encoders of sizes with several"
        return {**row, "reason": f"{len(here)} {what}; a correlation needs {FEWEST}"}
    blocks = np.zeros(len(here)) if among == ALL else groups
    x, y = (_ranks(values, blocks) for values in (-here["pretrain_loss"].to_numpy(), here["miou_percent"].to_numpy()))
    scale = np.sqrt((x @ x) * (y @ y))
    if scale == 0:
        return {**row, "reason": "all have the same loss or the same score"}
    r = float(x @ y / scale)
    row |= {"correlation": r, "p": _p(x, y, blocks)}
    if among == ALL and len(here) >= FEWEST_INTERVAL:
        error = np.sqrt((1 + r**2 / 2) / (len(here) - 3))
        z, half = np.arctanh(np.clip(r, -0.999999, 0.999999)), stats.norm.ppf((1 + confidence) / 2) * error
        row |= {"low": float(np.tanh(z - half)), "high": float(np.tanh(z + half))}
    return row


def _ranks(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Ranks within each block, their mean 0."""
    ranks = pd.Series(values).groupby(blocks).rank()
    return (ranks - ranks.groupby(blocks).transform("mean")).to_numpy()


def _p(x: np.ndarray, y: np.ndarray, blocks: np.ndarray) -> float:
    """Share of shuffles within the blocks, the data themselves counted, that agree as well as the data."""
    random, best = np.random.default_rng(0), x @ y - 1e-9
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    shuffled = np.tile(x, (DRAWS, 1))
    for each in members:
        shuffled[:, each] = random.permuted(shuffled[:, each], axis=1)
    return float((1 + (shuffled @ y >= best).sum()) / (1 + DRAWS))
