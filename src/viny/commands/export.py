"""`viny export`: settings, scores and training curves of a study's runs in the files of a tracker.

| tracker | writes | to look at it |
|---|---|---|
| tensorboard | one folder of events for each run, with hyperparameters | `tensorboard --logdir FOLDER` |
| mlflow | an SQLite store with one experiment | `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db` |

Curves are `train/...` by update, scores on held-out images `test/...`, named as in metrics.json.
"""

import importlib.util
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from viny.commands.parser import Parser
from viny.commands.study import study_of
from viny.commands.terminal import plural
from viny.errors import VinyError, command
from viny.files import replacing
from viny.grid import Study
from viny.logs import log, setup
from viny.result import read_history, read_result
from viny.survey import flat

CURVES = ("loss", "learning_rate", "images_per_second")
BATCH = 1000  # values that MLflow takes at once


@dataclass(frozen=True)
class Run:
    """What is exported of a run.

    Attributes:
        settings: its place in the grid and all settings of its stage. scores: on held-out images, and costs.
        history: one dictionary per epoch. started, finished: seconds since 1970.
    """

    name: str
    settings: dict[str, str | int | float | bool]
    scores: dict[str, float]
    history: list[dict[str, Any]]
    started: float
    finished: float


def parser() -> Parser:
    """The command line."""
    text = "Write settings, scores and training curves of all finished runs of a study for another tracker."
    made = Parser("export", text, "tensorboard results/mine --output runs")
    made.add_argument("tracker", choices=WRITERS, help="format to write")
    made.add_study()
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="new folder to write")
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Write the files; returns the exit code."""
    args = parser().parse_args(argv)
    output = args.output.absolute()
    setup()
    if importlib.util.find_spec(args.tracker) is None:
        raise VinyError(f"{args.tracker} is not installed; install it with `pip install {args.tracker}`")
    if args.output.exists() and not (args.output.is_dir() and not any(args.output.iterdir())):
        raise VinyError(f"{args.output} is there already; name a new folder, or remove it")
    study = study_of(args)
    runs = list(runs_of(study))
    if not runs:
        raise VinyError(f"{study.folder} holds no finished run of {study.name}; nothing to export")
    with replacing(output) as folder:
        folder.mkdir()
        WRITERS[args.tracker](study.name, runs, folder)
    log.info("%s of %s in %s", plural(len(runs), "run"), study.name, args.output)
    return 0


def runs_of(study: Study) -> Iterator[Run]:
    """All finished runs of a study and its variants.

    Raises:
        VinyError: a result is damaged or belongs to another run.
    """
    for job in study.jobs.values():
        result = read_result(job)
        if result is None:
            continue
        place = {"stage": job.stage, "task": job.task, "variant": job.variant or "none", **job.coordinates}
        settings = {**place, **flat(result.settings), "commit": result.provenance.commit}
        scores = {f"test/{name}": value for name, value in flat(result.metrics.model_dump()).items()}
        scores |= {f"cost/{name}": value for name, value in result.cost.model_dump().items()}
        yield Run(
            job.name,
            {key: value if isinstance(value, str | int | float) else str(value) for key, value in settings.items()},
            {_named(name): float(value) for name, value in scores.items() if isinstance(value, int | float)},
            read_history(job),
            datetime.fromisoformat(result.provenance.started).timestamp(),
            datetime.fromisoformat(result.provenance.finished).timestamp(),
        )


def _named(name: str) -> str:
    """A name that trackers take: those of classes may have any characters."""
    return re.sub(r"[^\w./ -]", "_", name)


def _tensorboard(study: str, runs: Sequence[Run], folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for run in runs:
        with SummaryWriter(str(folder / run.name)) as writer:
            for row in run.history:
                for name in CURVES:
                    writer.add_scalar(f"train/{name}", row[name], row["step"], run.started + row["seconds"])
            writer.add_hparams({**run.settings, "study": study}, run.scores, run_name=".")


def _mlflow(study: str, runs: Sequence[Run], folder: Path) -> None:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as safe:  # the user's folder may have a name that means something in a URI
        client = MlflowClient(f"sqlite:///{safe}/mlflow.db")
        experiment = client.create_experiment(study)
        for run in runs:
            started, finished = round(1000 * run.started), round(1000 * run.finished)
            made = client.create_run(experiment, started, run_name=run.name).info.run_id
            values = [
                Metric(f"train/{name}", row[name], started + round(1000 * row["seconds"]), row["step"])
                for row in run.history
                for name in CURVES
            ]
            values += [Metric(name, value, finished, 0) for name, value in run.scores.items()]
            client.log_batch(made, params=[Param(key, str(value)) for key, value in run.settings.items()])
            for first in range(0, len(values), BATCH):
                client.log_batch(made, metrics=values[first : first + BATCH])
            client.set_terminated(made, end_time=finished)
        shutil.move(f"{safe}/mlflow.db", folder)


WRITERS = {"tensorboard": _tensorboard, "mlflow": _mlflow}
