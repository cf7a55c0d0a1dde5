"""The tables that the whole analysis works on, and their files.

| file | one row per | content |
|---|---|---|
| cells.csv | declared cell and seed | scores in percent, costs, how it was computed; status `done` or `missing` |
| costs.csv | finished job of any stage, of variants too | held-out loss, updates, seconds, memory, how computed |
| histories.csv | epoch of any job, of variants too | loss, learning rate, images/s |
| geometry.csv | encoder and seed | variances (absolute), probe accuracies in percent |
| similarity.csv | encoder, seed, distance | mean cosine similarity of patches at that Manhattan distance |
| settings.json | | settings, code, versions and devices of each kind of job, as the jobs recorded them |
| variants.csv | variant and cell | as cells.csv, with the column `variant`; `shared`: the run is the study's own |

In the column `variant` the study itself is `base`.

`pretrain` is a number of images. Cells of an encoder that the study did not train have its name in the column
`encoder` and 0 in `pretrain`; they are no part of the grid.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic_core import to_json

from viny.config.claims import Claim
from viny.config.sections import BASE, SETS, Goal, Prices
from viny.errors import VinyError
from viny.files import write_text
from viny.grid import Job
from viny.result import HISTORY

KEYS = ["pretrain", "intermediate", "downstream"]
PLACE = ["pretrain", "encoder", "intermediate", "downstream", "seed"]
RUN = ["variant", "stage", *PLACE]
ENCODER = ["pretrain", "encoder", "intermediate", "seed"]
OTHERS = ("costs", "histories", "geometry", "similarity", "variants")  # files beside cells.csv
SCORES = ["status", "accuracy_percent", "miou_percent", "miou_per_image_percent"]
BLIND = ("position", "majority")  # predictions that see no image, see `viny.tasks.metrics.blind_answers`
CHANCE = [f"{name}_{score}_percent" for name in BLIND for score in ("accuracy", "miou")]
BUDGET = ["steps", "samples_seen"]
COST = ["train_seconds", "startup_seconds", "images_per_second"]
STAGE_COSTS = ["pretrain_samples", "pretrain_seconds", "intermediate_samples", "intermediate_seconds"]
PRETRAINED = ["pretrain_steps", "pretrain_loss"]  # updates and held-out loss of the encoder, NaN if it has none
GEOMETRY = ["within_image_variance", "across_image_variance"]
PROBES = ["probe_accuracy_percent", "probe_accuracy_training_percent"]
PROBE_CHANCE = ["probe_chance_position_percent", "probe_chance_percent"]
PUBLISHED = "published"  # name of the study that holds the paper's own numbers
TASKS = {"cls": "classification", "spatial": "patches"}  # by the beginning of an intermediate task's name
# Names of columns in files of older versions.
RENAMED = {"image_passes": "samples_seen"} | {f"{s}_passes": f"{s}_samples" for s in ("pretrain", "intermediate")}


@dataclass(frozen=True, eq=False)
class Tables:
    """Everything that a study measured.

    Attributes:
        cells: cells.csv, or a published study: one row per cell with `runs`, `miou_pm` and `accuracy_pm`.
        settings: settings.json: `study`, `miou` (which one `miou_percent` is), `confidence`, `share_encoder` (all seeds
            start from one encoder a size), `stages` (by kind of job its task, data set, settings and versions), `goal`,
            `budget`, `prices`, `variants` (what each changes), and `key`, which says what the files were made from.
        costs, histories, jobs: of all finished runs, those of variants too; see `own`.
        folder: where the study's files are, sealed forecasts among them; None for the published study.
    """

    cells: pd.DataFrame
    settings: dict[str, Any]
    geometry: pd.DataFrame = field(default_factory=lambda: _no(*ENCODER, "status", *GEOMETRY, *PROBES, *PROBE_CHANCE))
    costs: pd.DataFrame = field(default_factory=lambda: _no(*RUN, *COST))
    histories: pd.DataFrame = field(default_factory=lambda: _no(*RUN, *HISTORY))
    similarity: pd.DataFrame = field(default_factory=lambda: _no(*ENCODER, "distance", "similarity"))
    variants: pd.DataFrame = field(default_factory=lambda: _no("variant", *PLACE))
    jobs: tuple[Job, ...] = ()
    folder: Path | None = None

    @cached_property
    def own(self) -> "Tables":
        """The same without the runs of variants: what everything but the table of runs is made from."""
        costs, histories = (frame[frame["variant"] == BASE] for frame in (self.costs, self.histories))
        return replace(self, costs=costs, histories=histories, jobs=tuple(job for job in self.jobs if not job.variant))

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.settings["study"])

    @property
    def confidence(self) -> float:
        """Confidence level of intervals, 1 - alpha of tests."""
        return float(self.settings.get("confidence", 0.95))

    @property
    def shares_encoders(self) -> bool:
        """Whether all seeds start from one encoder a size, so that nothing is known about repeated pre-training."""
        return bool(self.settings.get("share_encoder", False))

    @property
    def grid(self) -> pd.DataFrame:
        """The cells of encoders trained here, or of none: the grid of sizes."""
        return on_grid(self.cells)

    @property
    def external(self) -> pd.DataFrame:
        """The cells of encoders trained elsewhere."""
        return self.cells[self.cells["encoder"] != ""]

    @property
    def images(self) -> dict[str, str]:
        """Name of the data set of each kind of job, as far as it is recorded."""
        return {kind: stage["images"] for kind, stage in self.settings["stages"].items() if "images" in stage}

    @property
    def on_paper_data(self) -> bool:
        """Whether every data set is one of the paper's."""
        return self.name == PUBLISHED or (len(self.images) > 0 and set(self.images.values()) <= SETS.keys())

    @property
    def goal(self) -> float | None:
        """mIoU to reach, in percent."""
        return (self.settings.get("goal") or {}).get("miou")

    @property
    def budget(self) -> float | None:
        """What may be spent."""
        return self.settings.get("budget")

    @property
    def prices(self) -> Prices:
        """What data and time cost."""
        return Prices.model_validate(self.settings.get("prices") or {})

    def task(self, intermediate: str) -> str:
        """Task that an intermediate stage runs, such as `classification`; a table without settings names it so."""
        stage = self.settings["stages"].get(f"intermediate {intermediate}", {})
        return stage.get("task") or TASKS.get(intermediate.partition("_")[0], "")

    @property
    def files(self) -> dict[str, pd.DataFrame]:
        """The tables that have rows, by the names of their files."""
        return {f"{name}.csv": frame for name in ("cells", *OTHERS) if len(frame := getattr(self, name))}

    def write(self, folder: Path) -> None:
        """Write the tables that have rows and settings.json; remove older files of those without."""
        for name in {f"{name}.csv" for name in OTHERS} - self.files.keys():
            (folder / name).unlink(missing_ok=True)
        for name, frame in self.files.items():
            write_csv(folder / name, frame)
        write_json(folder / "settings.json", self.settings)


def _no(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


def on_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose encoder was not trained elsewhere."""
    return frame[frame["encoder"] == ""] if "encoder" in frame else frame


def from_csv(path: Path) -> Tables:
    """The tables of a cells.csv, in its own form or that of a published study, and of what lies beside it.

    Raises:
        VinyError: a file is not there, is not a table, or lacks a column.
    """
    cells = read_frame(path, ["study", *KEYS, "seed", "status", "miou_percent", "accuracy_percent"])
    if cells.empty:
        raise VinyError(f"{path} holds no cell")
    files = {name: path.with_name(f"{name}.csv") for name in OTHERS}
    beside = {name: read_frame(file, ["pretrain", "intermediate"]) for name, file in files.items() if file.exists()}
    for name in beside.keys() & {"costs", "histories"}:  # files of older versions hold the study's own runs alone
        beside[name] = beside[name].assign(variant=beside[name].get("variant", BASE))
    settings: dict[str, Any] = {"stages": {}}
    file = path.with_name("settings.json")
    try:
        settings |= json.loads(file.read_bytes()) if file.exists() else {}
        for name, section in (("goal", Goal), ("prices", Prices)):
            settings[name] = section.model_validate(settings.get(name, {})).model_dump()
        for claim in dict(settings.get("claims", {})).values():
            Claim.model_validate(claim)
    except (ValueError, TypeError) as error:
        raise VinyError(f"{file} does not hold a study's settings ({error}); write it again or remove it") from None
    settings = {**settings, "study": str(cells["study"].iloc[0]), "key": None}
    return Tables(cells.astype({"pretrain": int, "downstream": int}), settings, folder=path.parent, **beside)


def read_frame(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Read a CSV file that must have `columns`; an empty field is a missing value, the word `none` is not.

    Columns of older versions get their present names; `encoder` is empty where the file has none.

    Raises:
        VinyError: the file is not there, is not a table, or lacks a column.
    """
    try:
        text = dict.fromkeys(("encoder", "torch", "code", "settings"), "str")  # 2.10 is not 2.1
        frame = pd.read_csv(path, keep_default_na=False, na_values=["", "nan", "NaN"], dtype=text)
    except FileNotFoundError:
        raise VinyError(f"{path} does not exist; name a table of cells, or collect a study with --configfile") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise VinyError(f"{path} is not a CSV table ({error})") from None
    frame = frame.rename(columns=RENAMED)
    missing = [name for name in columns if name not in frame]
    if missing:
        raise VinyError(f"{path} lacks the column(s) {', '.join(missing)}; write it again from the results")
    return frame.assign(encoder=frame["encoder"].fillna("") if "encoder" in frame else "")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table; numbers keep ten significant digits, `inf` is written as such, missing values as empty fields."""
    write_text(path, frame.to_csv(index=False, float_format="%.10g"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON that any reader accepts: values that are not finite numbers as null."""
    text = to_json(content, indent=1, inf_nan_mode="null", fallback=lambda value: value.tolist())
    write_text(path, text.decode() + "\n")
