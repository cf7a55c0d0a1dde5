"""What `import viny` offers: the tables of a study, and the models of its runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from viny.errors import VinyError

if TYPE_CHECKING:
    import pandas as pd

    from viny.trained import TrainedEncoder, TrainedSegmenter


@dataclass(frozen=True, eq=False)
class Results:
    """The tables of a study, one observation per row; docs/results.md describes their columns.

    Attributes:
        name: of the study.
        cells: one row per declared cell and seed: `pretrain`, `encoder`, `intermediate`, `downstream`, `seed`, `status`
            (`done` or `missing`), scores in percent, costs.
        summary: one row per cell: mean over the seeds, standard errors, interval.
        effects: one row per comparison of two cells: `family`, the cell, `baseline`, `effect` in points, `low`, `high`.
        histories: one row per run of any stage and epoch: `stage`, the run, `epoch`, `step`, `loss`, `learning_rate`.
        costs: one row per finished run of any stage: images, updates, seconds, memory, device.
        settings: what was used, by kind of run, as in settings.json.
    """

    name: str
    cells: "pd.DataFrame"
    summary: "pd.DataFrame"
    effects: "pd.DataFrame"
    histories: "pd.DataFrame"
    costs: "pd.DataFrame"
    settings: dict[str, Any]


def results(folder: str | Path) -> Results:
    """The tables that the analysis has written into the folder of a study's results.

    Raises:
        VinyError: the folder holds no such tables, or one of them is damaged.
    """
    from viny.analysis import frames  # pandas takes half a second to import

    folder = Path(folder)
    if not (folder / "cells.csv").is_file():
        raise VinyError(
            f"{folder} holds no cells.csv: name the folder of a study's results, such as results/demo; "
            "snakemake or `viny analyze` writes the tables"
        )
    tables = frames.from_csv(folder / "cells.csv").own
    summary, effects = (frames.read_frame(folder / f"statistics/{name}.csv", []) for name in ("summary", "effects"))
    histories, costs = (frame.astype({"downstream": "Int64"}) for frame in (tables.histories, tables.costs))
    effects = effects.drop(columns="encoder").astype({"baseline": "str"})
    return Results(tables.name, tables.cells, summary, effects, histories, costs, tables.settings)


def encoder(folder: str | Path) -> "TrainedEncoder":
    """The encoder of a run with its weights, in whose folder they are.

    Raises:
        VinyError: the folder is not that of a finished run, or its weights have been deleted.
    """
    from viny.trained import TrainedEncoder  # torch takes a second to import

    return TrainedEncoder(Path(folder))


def segmenter(folder: str | Path) -> "TrainedSegmenter":
    """The model of a fine-tuning run with its weights, in whose folder they are.

    Raises:
        VinyError: the folder is not that of a finished fine-tuning run, or its weights have been deleted.
    """
    from viny.trained import TrainedSegmenter

    return TrainedSegmenter(Path(folder))
