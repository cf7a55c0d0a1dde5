"""metrics.json, the result of one job: its format, writing and reading it.

Shares, accuracies and IoU are fractions 0..1, times are seconds.
"""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from viny.errors import VinyError
from viny.files import file_sha256
from viny.fingerprint import fingerprint
from viny.grid import Job
from viny.provenance import environment

VERSION = 2
HISTORY = ("epoch", "step", "loss", "learning_rate", "images_per_second", "seconds")
_TOLERANCE = 1e-6

Fraction = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False, extra="allow")


class Coordinates(_Part):
    """Place of the job in its study."""

    model_config = ConfigDict(extra="forbid")

    study: str = ""
    variant: str = ""
    pretrain: int | str | None = None
    intermediate: str | None = None
    downstream: int | None = None
    seed: int | str | None = None


class Scores(_Part):
    """What was measured on held-out images; pre-training knows the loss alone."""

    loss: float = Field(ge=0)


class Classification(Scores):
    """Of an intermediate task: accuracy, and that of always naming the commonest class, or the commonest at a place."""

    accuracy: Fraction | None = None
    chance: Fraction | None = None
    chance_position: Fraction | None = None


class PixelScores(_Part):
    """Of predictions for all test pixels."""

    pixel_accuracy: Fraction
    miou: Fraction
    miou_per_image: Fraction


class Segmentation(Scores, PixelScores):
    """Of segmentation, over all test pixels.

    Attributes:
        class_iou: None for a class that occurs neither in the truth nor in the predictions.
        miou_per_image: mean over images of each image's mean IoU, absent classes counted as 0 (as the released code).
        confusion: pixels by truth (rows) and prediction (columns), classes in the order of `class_iou`.
        chance: of naming the training masks' commonest class (`majority`), or the commonest at each pixel (`position`);
            empty in results of older versions.
    """

    class_iou: dict[str, Fraction | None]
    confusion: list[list[Annotated[int, Field(ge=0)]]]
    chance: dict[Literal["majority", "position"], PixelScores] = {}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """Scores that do not follow from the confusion matrix were not written by a run."""
        classes, matrix = list(self.class_iou), self.confusion
        if len(matrix) != len(classes) or any(len(row) != len(classes) for row in matrix):
            raise ValueError(f"confusion is not a {len(classes)} x {len(classes)} matrix")
        right = [matrix[i][i] for i in range(len(classes))]
        truth, predicted = [sum(row) for row in matrix], [sum(column) for column in zip(*matrix, strict=True)]
        unions = [t + p - r for t, p, r in zip(truth, predicted, right, strict=True)]
        iou = [r / u if u else None for r, u in zip(right, unions, strict=True)]
        present = [value for value in iou if value is not None]
        expected: dict[str, float | None] = {f"class_iou.{n}": v for n, v in zip(classes, iou, strict=True)}
        expected |= {"pixel_accuracy": sum(right) / max(sum(truth), 1), "miou": sum(present) / max(len(present), 1)}
        recorded = {f"class_iou.{name}": value for name, value in self.class_iou.items()}
        recorded |= {"pixel_accuracy": self.pixel_accuracy, "miou": self.miou}
        for name, value in expected.items():
            found = recorded[name]
            if value != found and (value is None or found is None or abs(found - value) > _TOLERANCE):
                raise ValueError(f"{name} is {found}, but the confusion matrix says {value}")
        return self


class GeometryScores(_Part):
    """Of an encoder's patch tokens.

    Attributes:
        probe_chance: accuracy of the commonest class, `probe_chance_position` of the commonest at each place.
        similarity_by_distance: by Manhattan distance on the patch grid, from 0.
    """

    within_image_variance: float = Field(ge=0)
    across_image_variance: float = Field(ge=0)
    probe_accuracy: Fraction
    probe_accuracy_training: Fraction
    probe_chance: Fraction | None = None
    probe_chance_position: Fraction | None = None
    similarity_by_distance: list[float | None]


SCORES: dict[str, type[_Part]] = {
    "pretrain": Scores,
    "intermediate": Classification,
    "finetune": Segmentation,
    "geometry": GeometryScores,
}


class Budget(_Part):
    """What the training was given: different images, passes over them, updates, images shown (repeats counted)."""

    images: int
    epochs: float
    steps: int
    samples_seen: int
    batch_size: int


class Cost(_Part):
    """What the job cost; a resumed job counts all its parts."""

    train_seconds: float = Field(ge=0)
    evaluate_seconds: float = Field(ge=0)
    startup_seconds: float = Field(ge=0)
    images_per_second: float = Field(ge=0)
    peak_memory_mb: float = Field(ge=0)
    resumes: int = Field(ge=0)


class Provenance(_Part):
    """Where the numbers come from.

    Attributes:
        key: fingerprint of everything that defines the run (`viny.grid.Job.key`); None in results of format 1.
        code: fingerprint of the code that computed the numbers. settings: of `settings`.
        run_key: fingerprint of the run with its inputs and its way of computing, under which its state is kept.
        inputs: checksums of what was read: `store` (the rows in use) and, if there is one, `encoder`.
        compute: threads, attention kernel, what float32 products were computed in, and the like.
    """

    viny: str
    commit: str | None
    code: str
    settings: str
    key: str | None = None
    run_key: str
    seed: int
    python: str
    packages: dict[str, str | None]
    inputs: dict[str, str]
    device: Literal["cpu", "cuda"]
    device_name: str
    compute: dict[str, Any] = {}
    host: str
    command: list[str] = []
    started: str
    finished: str


class Result(_Part):
    """A metrics.json; `outputs` has the SHA-256 of every file written beside it."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    version: int = Field(alias="schema")
    stage: Literal["pretrain", "intermediate", "finetune", "geometry"]
    coordinates: Coordinates
    metrics: Any
    budget: Budget
    cost: Cost
    settings: dict[str, Any]
    provenance: Provenance
    outputs: dict[str, Sha256] = {}

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, document: Any) -> Any:
        """The metrics in the type of their stage; format 1 in the words of format 2."""
        if not isinstance(document, dict) or not isinstance(document.get("budget"), dict):
            return document
        budget = dict(document["budget"])
        if "image_passes" in budget:
            budget["samples_seen"] = budget.pop("image_passes")
        kind = SCORES.get(str(document.get("stage")))
        metrics = document.get("metrics")
        return {**document, "budget": budget, "metrics": kind.model_validate(metrics) if kind else metrics}

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not all(isinstance(part, dict) for name, part in self.settings.items() if name != "seeding"):
            raise ValueError("settings are not sections with keys")
        shown = self.cost.images_per_second * self.cost.train_seconds
        if self.stage != "geometry" and not math.isclose(shown, self.budget.samples_seen, rel_tol=0.01):
            raise ValueError(
                f"images_per_second times train_seconds is {shown:,.0f}, not {self.budget.samples_seen:,} images"
            )
        return self

    @property
    def seconds(self) -> float:
        """Device time of the whole job."""
        return self.cost.startup_seconds + self.cost.train_seconds + self.cost.evaluate_seconds


def record(
    folder: Path,
    job: Job,
    *,
    metrics: dict[str, Any],
    budget: dict[str, float],
    cost: dict[str, float],
    provenance: dict[str, Any],
) -> None:
    """Write `metrics.json` into the folder that holds the job's other files.

    Args:
        metrics: what was measured. budget: what the training was given. cost: what it took (`Cost`).
        provenance: what the job itself does not say of where its numbers come from (`Provenance`).
    """
    result = {
        "schema": VERSION,
        "stage": job.stage,
        "coordinates": {"study": job.study, "variant": job.variant, **job.coordinates},
        "metrics": metrics,
        "budget": budget,
        "cost": cost,
        "settings": job.recorded_settings,
        "provenance": {
            **environment(),
            "code": job.code,
            "settings": fingerprint(job.recorded_settings),
            "key": job.key,
            **provenance,
            "finished": utc_now(),
        },
        "outputs": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
    }
    Result.model_validate(result)
    (folder / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")


def utc_now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_file(path: Path) -> Result | None:
    """What a metrics.json says, or None if there is none.

    Raises:
        VinyError: the file is damaged or of another format.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise VinyError(f"{path} is damaged ({error}); delete it and run snakemake again") from None
    version = document.get("schema") if isinstance(document, dict) else None
    if version not in (1, VERSION):
        raise VinyError(
            f"{path} has format {version}, this version of viny reads 1 and {VERSION}; delete it and run snakemake "
            "again, or use the version that wrote it"
        )
    try:
        return Result.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the document"
        raise VinyError(f"{path} is damaged ({where}: {first['msg']}); delete it and run snakemake again") from None


def read_result(job: Job) -> Result | None:
    """A job's result, or None if it has not been written.

    Raises:
        VinyError: the file is damaged, of another format, or belongs to another job.
    """
    path = job.metrics
    result = read_file(path)
    if result is None:
        return None
    found = {axis: getattr(result.coordinates, axis) for axis in job.coordinates}
    if result.stage != job.stage or found != dict(job.coordinates):
        raise VinyError(
            f"{path} belongs to {result.stage} {_place(found)}, not to {job.stage} {_place(job.coordinates)}; "
            "it was moved or copied: delete it and run snakemake again"
        )
    if result.coordinates.variant != job.variant:
        made = f"the variant {result.coordinates.variant}" if result.coordinates.variant else "the study itself"
        here = f"the variant {job.variant}" if job.variant else "the study itself"
        raise VinyError(f"{path} was made for {made}, not {here}; delete it and run snakemake again")
    if (result.coordinates.study or job.study) != job.study:
        raise VinyError(
            f"{path} was made for the study {result.coordinates.study}, not {job.study}; move the folders of the other "
            f"study out of {job.root} and run snakemake again, or set `study: {result.coordinates.study}`"
        )
    return result


def read_history(job: Job) -> list[dict[str, Any]]:
    """A job's history.jsonl, one dictionary per epoch; empty if there is none."""
    path = job.folder / "history.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if not all(isinstance(row, dict) and all(isinstance(row.get(k), int | float) for k in HISTORY) for row in rows):
            raise ValueError(f"a line does not hold the numbers {', '.join(HISTORY)}")
        return rows
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise VinyError(f"{path} is damaged ({error}); delete its folder and run snakemake again") from None


def _place(coordinates: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in dict(coordinates).items())
