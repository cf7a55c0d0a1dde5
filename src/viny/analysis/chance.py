"""Chance beside the scores: what predictions reach that see no image (`viny.tasks.metrics.blind_answers`)."""

import pandas as pd

from viny.analysis import names
from viny.analysis.formats import joined, number
from viny.analysis.frames import BLIND, CHANCE, Tables

MASKS = "patches"  # the task whose labels are masks, like those of segmentation


def with_chance(summary: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """`summary` with the columns CHANCE, which depend on the labels alone; as it is where no run recorded them."""
    if any(name not in cells or cells[name].isna().all() for name in CHANCE):
        return summary
    return summary.join(cells.groupby("downstream")[CHANCE].mean(), on="downstream")


def of_segmentation(summary: pd.DataFrame) -> str:
    """The chance levels of `with_chance` in words; empty where there are none."""
    if CHANCE[0] not in summary:
        return ""
    by_labels = summary.groupby("downstream")[CHANCE].first().dropna()
    position, majority = (
        joined_range([number(value, 1) for value in by_labels[f"{name}_miou_percent"]]) for name in BLIND
    )
    return (
        f"Without a look at the image, the commonest class of each pixel in the training masks scores an mIoU of "
        f"{position}, the commonest class of all {majority}."
    )


def joined_range(values: list[str]) -> str:
    """The first and last of values by number of labels, or the one that all are: `36.9 to 37.4`."""
    return " to ".join(dict.fromkeys([values[0], values[-1]]))


def other_masks(tables: Tables) -> str:
    """Which intermediate tasks saw masks that the number of labeled images leaves out; empty if none did."""
    seen = []
    for task in dict.fromkeys(tables.cells["intermediate"]):
        stage = tables.settings["stages"].get(f"intermediate {task}", {})
        if tables.task(task) == MASKS:
            count = f"{stage['trained_on']:,} " if "trained_on" in stage else ""
            seen.append(f"{names.task(task)} (the masks of {count}images)")
    if not seen:
        return ""
    return f"The number of fine-tuning images leaves out masks that an intermediate task used: {joined(seen)}."
