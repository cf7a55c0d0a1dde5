"""One row per cell: mean and standard error over the seeds, from either form of cells.csv."""

import pandas as pd

from viny.analysis.files import KEYS
from viny.errors import VinyError

METRICS = ("miou", "accuracy")
COLUMNS = [*KEYS, "n", "miou_percent", "miou_se", "accuracy_percent", "accuracy_se"]


def is_summary(cells: pd.DataFrame) -> bool:
    """Whether `cells` holds one row per cell with standard errors (a published study), not one per seed."""
    return "miou_pm" in cells


def summarize(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error (sample standard deviation / sqrt(n)) of mIoU and accuracy, in percent, for each cell.

    A cell without any result stays as a row with n = 0 and values that are not numbers; a cell with a single run has
    a mean and no standard error. A published study's means and standard errors pass through.

    Raises:
        VinyError: a cell is there twice for one seed.
    """
    check_unique(cells)
    if is_summary(cells):
        frame = cells.rename(columns={"runs": "n", "miou_pm": "miou_se", "accuracy_pm": "accuracy_se"})[COLUMNS]
        missing = frame["miou_percent"].isna()
        frame = frame.assign(n=frame["n"].where(~missing, 0).astype(int))
    else:
        groups = cells.groupby(KEYS)
        frame = groups["miou_percent"].agg(n="count", miou_percent="mean", miou_se="sem")
        frame[["accuracy_percent", "accuracy_se"]] = groups["accuracy_percent"].agg(["mean", "sem"])
        frame = frame.reset_index()[COLUMNS]
    order = frame["intermediate"].map({task: i for i, task in enumerate(tasks(cells))})
    return frame.assign(order=order).sort_values(["pretrain", "order", "downstream"])[COLUMNS].reset_index(drop=True)


def tasks(cells: pd.DataFrame) -> list[str]:
    """The intermediate tasks of a study, `none` first, the others by name."""
    return sorted(cells["intermediate"].unique(), key=lambda task: (task != "none", task))


def grid(cells: pd.DataFrame) -> tuple[list[int], list[str], list[int]]:
    """Pre-training sizes, intermediate tasks and downstream sizes that a study declares, each sorted."""
    return (
        sorted(int(size) for size in cells["pretrain"].unique()),
        tasks(cells),
        sorted(int(size) for size in cells["downstream"].unique()),
    )


def by_seed(cells: pd.DataFrame, metric: str = "miou") -> pd.DataFrame:
    """One row per cell (index pretrain, intermediate, downstream), one column per seed, in percent.

    A published study has no column.
    """
    check_unique(cells)
    if is_summary(cells):
        index = pd.MultiIndex.from_frame(cells[KEYS])
        return pd.DataFrame(index=index, columns=pd.Index([], name="seed"), dtype=float)
    return cells.pivot(index=KEYS, columns="seed", values=f"{metric}_percent").astype(float)


def check_unique(cells: pd.DataFrame) -> None:
    """Refuse two results for the same cell and seed, and a table without any cell."""
    if cells.empty:
        raise VinyError("cells.csv holds no cell; see `grid:` in the config")
    twice = cells[cells.duplicated([*KEYS, "seed"])]
    if len(twice):
        row = twice.iloc[0]
        place = ", ".join(f"{key}={row[key]}" for key in [*KEYS, "seed"])
        raise VinyError(f"{len(twice)} cell(s) are in cells.csv twice, first {place}; write the file again")
