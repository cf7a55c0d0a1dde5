"""The tables that the whole analysis works on, from a study's results or from a CSV file.

| file | one row per | content |
|---|---|---|
| cells.csv | declared cell and seed | scores in percent, costs, how it was computed; status `done` or `missing` |
| costs.csv | finished job of any stage | held-out loss, images, updates, seconds, memory, how it was computed |
| histories.csv | epoch of any job | loss, learning rate, images/s |
| geometry.csv | encoder and seed | variances (absolute), probe accuracies in percent |
| similarity.csv | encoder, seed, distance | mean cosine similarity of patches at that Manhattan distance |
| settings.json | | settings, code, versions and devices of each kind of job, as the jobs recorded them |
| variants.csv | variant and cell | as cells.csv, with the column `variant`; the study itself is `base` |

`pretrain` is a number of images. Cells of an encoder that the study did not train have its name in the column
`encoder` and 0 in `pretrain`; they are no part of the grid.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic_core import to_json

from viny.analysis.mixtures import COMPUTE, Results, refuse_mixtures, refuse_other_encoders
from viny.config import vary
from viny.config.claims import Claim
from viny.config.sections import BASE, SETS, Goal, Prices
from viny.datasets.leaks import described, leaks
from viny.errors import VinyError
from viny.files import write_text
from viny.grid import Job, Study
from viny.result import HISTORY, Result, read_history, read_result
from viny.survey import analysis_key

KEYS = ["pretrain", "intermediate", "downstream"]
PLACE = ["pretrain", "encoder", "intermediate", "downstream", "seed"]
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
        jobs: finished jobs, whose pictures can be drawn.
        folder: where the study's files are, sealed forecasts among them; None for the published study.
    """

    cells: pd.DataFrame
    settings: dict[str, Any]
    geometry: pd.DataFrame = field(default_factory=lambda: _no(*ENCODER, "status", *GEOMETRY, *PROBES, *PROBE_CHANCE))
    costs: pd.DataFrame = field(default_factory=lambda: _no("stage", *PLACE, *COST))
    histories: pd.DataFrame = field(default_factory=lambda: _no("stage", *PLACE, *HISTORY))
    similarity: pd.DataFrame = field(default_factory=lambda: _no(*ENCODER, "distance", "similarity"))
    variants: pd.DataFrame = field(default_factory=lambda: _no("variant", *PLACE))
    jobs: tuple[Job, ...] = ()
    folder: Path | None = None

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
        """Whether all seeds start from one encoder a size, so that nothing is known about pre-training anew."""
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

    def write(self, folder: Path) -> None:
        """Write cells.csv, the other tables that have rows, and settings.json; remove older files of those without."""
        for name in ("cells", *OTHERS):
            path, frame = folder / f"{name}.csv", getattr(self, name)
            if len(frame):
                write_csv(path, frame)
            else:
                path.unlink(missing_ok=True)
        write_json(folder / "settings.json", self.settings)


def _no(*columns: str) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


def on_grid(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows whose encoder was not trained elsewhere."""
    return frame[frame["encoder"] == ""] if "encoder" in frame else frame


def from_study(study: Study) -> Tables:
    """Read what is there of the results of a study and its variants; what is not stays in the tables as missing.

    Raises:
        VinyError: the study declares no cell, or a result is damaged or does not belong to the others.
    """
    results: Results = {job: read_result(job) for job in study.jobs.values()}
    members = {name: {job: results[job] for job in jobs} for name, jobs in study.members.items()}
    frames = []
    for name, own in members.items():
        refuse_mixtures(own)
        refuse_other_encoders(own)
        config = vary(study.config, study.config.variants[name]) if name else study.config
        frames.append(_cells(study.name, own, config.analysis.miou).assign(variant=name or BASE))
    refuse_mixtures(results, settings=False)
    cells, own = frames[0].drop(columns="variant"), members[""]
    if cells.empty:
        raise VinyError(f"study {study.name} declares no cell; see `grid:` and its `exclude:` in the study file")
    geometry, similarity = _geometry(own)
    settings = {
        "study": study.name,
        "key": analysis_key(study),
        "miou": study.config.analysis.miou,
        "confidence": study.config.analysis.confidence,
        "share_encoder": study.config.grid.share_encoder,
        "claims": {name: claim.model_dump(mode="json") for name, claim in study.config.claims.items()},
        "leaks": described(leaks(study)),
        **study.config.model_dump(mode="json", include={"goal", "budget", "prices", "variants"}),
        "stages": _stages(own),
    }
    variants = pd.concat(frames if len(frames) > 1 else [frames[0][:0]], ignore_index=True)
    finished = tuple(job for job, result in own.items() if result)
    return Tables(cells, settings, geometry, _costs(own), _histories(own), similarity, variants, finished, study.folder)


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


def _cells(study: str, results: Results, headline: str) -> pd.DataFrame:
    """cells.csv: one row per declared cell, whether its result exists or not."""
    rows = []
    for job, result in results.items():
        if job.stage == "finetune":
            scores = _scores(job, result, headline) if result else {"status": "missing"}
            rows.append({"study": study, **place_of(job), **scores, **_encoder(job, results)})
    classes = dict.fromkeys(key for row in rows for key in row if key.startswith("iou_"))
    columns = ["study", *PLACE, *SCORES, *classes, *CHANCE, "loss", *BUDGET, *COST, *STAGE_COSTS]
    columns += [*PRETRAINED, *COMPUTE, "code", "settings"]
    return pd.DataFrame(rows, columns=columns)


def _scores(job: Job, result: Result, headline: str) -> dict[str, Any]:
    """The columns that come from the cell's own metrics.json."""
    scores, provenance = result.metrics, result.provenance
    miou = "miou_per_image" if headline == "per_image" else "miou"
    chance = {f"{name}_miou_percent": _percent(getattr(blind, miou)) for name, blind in scores.chance.items()}
    chance |= {f"{name}_accuracy_percent": _percent(blind.pixel_accuracy) for name, blind in scores.chance.items()}
    return {
        "status": "done",
        "accuracy_percent": _percent(scores.pixel_accuracy),
        "miou_percent": _percent(getattr(scores, miou)),
        "miou_per_image_percent": _percent(scores.miou_per_image),
        **chance,
        **{f"iou_{name}_percent": _percent(value) for name, value in scores.class_iou.items()},
        **{"loss": scores.loss, "code": provenance.code, "settings": provenance.settings},
        **_spent(job, result),
    }


def _spent(job: Job, result: Result) -> dict[str, Any]:
    """What a job was given, what it cost, and what may change its numbers without being a setting of the study."""
    provenance, own = result.provenance, result.settings.get(job.section, {})
    columns = result.budget.model_dump() | result.cost.model_dump() | provenance.compute
    columns |= {key: getattr(provenance, key) for key in ("device", "device_name", "host", "started", "finished")}
    return columns | {"precision": own.get("precision"), "torch": provenance.packages.get("torch")}


def place_of(job: Job) -> dict[str, Any]:
    """Coordinates of a job, the name of an encoder that was not trained here apart from the sizes."""
    at, name = dict(job.coordinates), job.coordinates["pretrain"]
    external = isinstance(name, str)
    return at | {"pretrain": 0 if external else name, "encoder": name if external else ""}


def _encoder(job: Job, results: Results) -> dict[str, float]:
    """What the encoder that a cell starts from was given and cost, and its loss; not a number where it is unknown."""
    costs = dict.fromkeys(STAGE_COSTS, 0.0) | dict.fromkeys(PRETRAINED, math.nan)
    if isinstance(job.coordinates["pretrain"], str):
        costs |= {"pretrain_samples": math.nan, "pretrain_seconds": math.nan}
    encoder = job.upstream
    while encoder:
        result = results[encoder]
        costs[f"{encoder.stage}_samples"] = result.budget.samples_seen if result else math.nan
        costs[f"{encoder.stage}_seconds"] = result.cost.train_seconds if result else math.nan
        if encoder.stage == "pretrain" and result:
            costs |= {"pretrain_steps": result.budget.steps, "pretrain_loss": result.metrics.loss}
        encoder = encoder.upstream
    return costs


def _costs(results: Results) -> pd.DataFrame:
    """costs.csv: what every finished job cost."""
    rows = [
        {
            "stage": job.stage,
            **place_of(job),
            "heldout_loss": getattr(result.metrics, "loss", None),
            **_spent(job, result),
        }
        for job, result in results.items()
        if result
    ]
    columns = [
        "stage",
        *PLACE,
        "heldout_loss",
        "images",
        "epochs",
        *BUDGET,
        *COST,
        "evaluate_seconds",
        "peak_memory_mb",
        "resumes",
    ]
    frame = pd.DataFrame(rows, columns=[*columns, *COMPUTE, "host", "started", "finished"])
    return frame.astype({"downstream": "Int64"})


def _histories(jobs: Iterable[Job]) -> pd.DataFrame:
    """histories.csv: the training curve of every job that has one."""
    rows = [{"stage": job.stage, **place_of(job), **epoch} for job in jobs for epoch in read_history(job)]
    return pd.DataFrame(rows, columns=["stage", *PLACE, *HISTORY]).astype({"downstream": "Int64"})


def _geometry(results: Results) -> tuple[pd.DataFrame, pd.DataFrame]:
    """geometry.csv and similarity.csv; without rows where the study measures no geometry."""
    encoders, curves = [], []
    for job, result in results.items():
        if job.stage == "geometry":
            row: dict[str, Any] = {**place_of(job), "status": "done" if result else "missing"}
            if result:
                scores = result.metrics.model_dump()
                curve = scores["similarity_by_distance"]
                curves += [{**row, "distance": distance, "similarity": value} for distance, value in enumerate(curve)]
                probes = (*PROBES, *PROBE_CHANCE)
                row |= scores | {key: _percent(scores[key.removesuffix("_percent")]) for key in probes}
            encoders.append(row)
    geometry = pd.DataFrame(encoders, columns=[*ENCODER, "status", *GEOMETRY, *PROBES, *PROBE_CHANCE])
    return geometry, pd.DataFrame(curves, columns=[*ENCODER, "distance", "similarity"])


def _stages(results: Results) -> dict[str, Any]:
    """For each kind of job the settings really used, and the versions, devices and commits met, most frequent first."""

    def met(values: Iterable[Any]) -> dict[str, int]:
        return {str(value): times for value, times in Counter(values).most_common()}

    kinds: dict[str, Any] = {}
    for job in {job.kind: job for job in results}.values():
        found = [results[other] for other in results if other.kind == job.kind]
        done = [result for result in found if result]
        kinds[job.kind] = {"task": job.task, "images": job.store.name, "declared": len(found), "done": len(done)}
        if done:
            all_of = [result.provenance for result in done]
            packages = sorted({name for each in all_of for name in each.packages})
            kinds[job.kind] |= {
                "settings": done[0].settings,
                "trained_on": done[0].budget.images,
                "settings_fingerprint": all_of[0].settings,
                "code": all_of[0].code,
                "commits": met(each.commit for each in all_of),
                "devices": met(each.device_name for each in all_of),
                "python": met(each.python for each in all_of),
                "packages": {name: met(each.packages.get(name) for each in all_of) for name in packages},
            }
    return kinds


def _percent(share: float | None) -> float:
    return math.nan if share is None else 100 * share
