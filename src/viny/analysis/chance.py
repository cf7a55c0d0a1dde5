"""Chance beside the scores: what predictions reach that see no image (`viny.tasks.metrics.blind_answers`)."""

import pandas as pd

from viny.analysis import names
from viny.analysis.formats import number
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
    ends = summary.groupby("downstream")[CHANCE].first().dropna().iloc[[0, -1]]  # fewest and most labels
    position, majority = (
        " to ".join(dict.fromkeys(number(value, 1) for value in ends[f"{name}_miou_percent"])) for name in BLIND
    )
    return (
        f"Without a look at the image, the commonest class of each pixel in the training masks scores an mIoU of "
        f"{position}, the commonest class of all {majority}."
    )


def other_masks(tables: Tables) -> str:
    """Which intermediate tasks saw masks that the number of labeled images leaves out; empty if none did."""
    seen = []
    for task in dict.fromkeys(tables.cells["intermediate"]):
        if tables.task(task) == MASKS:
            count = tables.settings["stages"].get(f"intermediate {task}", {}).get("trained_on")
            seen.append(names.task(task) + (f" (of {count:,} images)" if count else ""))
    leaves_out = "The number of fine-tuning images leaves out the masks that an intermediate task used"
    return f"{leaves_out}: {', '.join(seen)}." if seen else ""
