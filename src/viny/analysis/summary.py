"""One row per cell: mean and standard error over the seeds, from either form of cells.csv."""

import pandas as pd

from viny.analysis.frames import KEYS
from viny.errors import VinyError

METRICS = ("miou", "accuracy")
COLUMNS = [*KEYS, "n", "miou_percent", "miou_se", "accuracy_percent", "accuracy_se"]


def summarize(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error (sample standard deviation / sqrt(n)) of mIoU and accuracy, in percent, for each cell.

    A cell without any result stays as a row with n = 0 and values that are not numbers; a cell with a single run has
    a mean and no standard error. A published study's means and standard errors pass through. `declared` is the number
    of runs that the cell should have.

    Raises:
        VinyError: a cell is there twice for one seed.
    """
    check_unique(cells)
    if is_summary(cells):
        frame = cells.rename(columns={"runs": "n", "miou_pm": "miou_se", "accuracy_pm": "accuracy_se"})[COLUMNS]
        frame = frame.assign(declared=frame["n"], n=frame["n"].where(frame["miou_percent"].notna(), 0).astype(int))
    else:
        groups = cells.groupby(KEYS)
        frame = groups["miou_percent"].agg(n="count", miou_percent="mean", miou_se="sem", declared="size")
        frame[["accuracy_percent", "accuracy_se"]] = groups["accuracy_percent"].agg(["mean", "sem"])
        frame = frame.reset_index()
    order = frame["intermediate"].map({task: i for i, task in enumerate(tasks(cells))})
    ordered = frame.assign(order=order).sort_values(["pretrain", "order", "downstream"])
    return ordered[[*COLUMNS, "declared"]].reset_index(drop=True)


def is_summary(cells: pd.DataFrame) -> bool:
    """Whether `cells` holds one row per cell with standard errors (a published study), not one per seed."""
    return "miou_pm" in cells


def tasks(cells: pd.DataFrame) -> list[str]:
    """The intermediate tasks of a study, `none` first, the others by name."""
    return sorted(cells["intermediate"].unique(), key=lambda task: (task != "none", task))


def grid(cells: pd.DataFrame) -> tuple[list[int], list[str], list[int]]:
    """Pre-training sizes, intermediate tasks and downstream sizes that a study declares, each sorted."""
    sizes, labels = (sorted(map(int, cells[key].unique())) for key in ("pretrain", "downstream"))
    return sizes, tasks(cells), labels


def by_seed(cells: pd.DataFrame) -> pd.DataFrame:
    """mIoU in percent, one row per cell (index pretrain, intermediate, downstream), one column per seed.

    A published study has no column.
    """
    check_unique(cells)
    if is_summary(cells):
        return pd.DataFrame(index=pd.MultiIndex.from_frame(cells[KEYS]), columns=pd.Index([], name="seed"), dtype=float)
    return cells.pivot(index=KEYS, columns="seed", values="miou_percent").astype(float)


def check_unique(cells: pd.DataFrame) -> None:
    """Refuse two results for the same cell and seed."""
    twice = cells[cells.duplicated([*KEYS, "seed"])]
    if len(twice):
        place = ", ".join(f"{key}={twice.iloc[0][key]}" for key in [*KEYS, "seed"])
        raise VinyError(f"{len(twice)} cell(s) are in cells.csv twice, first {place}; write the file again")


def against_compute(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean mIoU of each cell and the `cost` of all stages behind it, by `unit`: `samples` seen and `seconds`.

    Only what was recorded. A cell without result has no mIoU, and a cost between those of its neighbors.
    """
    frames = []
    for unit, own in (("samples", "samples_seen"), ("seconds", "train_seconds")):
        parts = [own, f"pretrain_{unit}", f"intermediate_{unit}"]
        if set(parts) <= {*cells}:
            total = cells[parts].astype(float).sum(axis=1, skipna=False)
            means = cells.assign(cost=total).groupby(KEYS)[["cost", "miou_percent"]].mean().reset_index()
            means = means.sort_values("intermediate", key=lambda task: task.where(task != "none", ""), kind="stable")
            means["miou_percent"] = means["miou_percent"].where(means["cost"].notna())
            means["cost"] = means.groupby(["intermediate", "downstream"])["cost"].transform(
                lambda cost: cost.interpolate()
            )
            known = means.groupby("intermediate")["miou_percent"].transform("count") > 0
            frames.append(means[known].assign(unit=unit))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*KEYS, "cost", "unit"])


def with_encoders(cells: pd.DataFrame) -> pd.DataFrame:
    """`summarize` with a column `encoder`: empty for the cells of the grid, then those of encoders not trained here."""
    parts = [summarize(group).assign(encoder=name) for name, group in cells.groupby("encoder")]
    return pd.concat(parts, ignore_index=True)
