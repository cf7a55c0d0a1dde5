"""What the training stages have in common as commands: flags, run identity, training, results.

Results of every stage: a model as safetensors, `metrics.json` (see `schemas/metrics.schema.yaml`), `history.jsonl`
with one line per epoch and, where a stage has pictures to show, `examples.npz`.
"""

import time

STARTED = time.perf_counter()  # before the imports below, which cost seconds

import argparse  # noqa: E402
import contextlib  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import secrets  # noqa: E402
from collections.abc import Callable, Iterator, Sequence  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from datetime import UTC, datetime  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any, Protocol  # noqa: E402

import torch  # noqa: E402

from viny import console, settings  # noqa: E402
from viny.data.store import Store  # noqa: E402
from viny.errors import VinyError  # noqa: E402
from viny.models.encoder import ViNy, build_encoder  # noqa: E402
from viny.models.files import load_encoder  # noqa: E402
from viny.provenance import code_fingerprint, environment, file_sha256, fingerprint  # noqa: E402
from viny.training.device import device_name, float32_products, peak_memory_mb, select_device  # noqa: E402
from viny.training.gpu_slots import take_gpu  # noqa: E402
from viny.training.loop import Interrupted, Position, Task, train  # noqa: E402
from viny.training.schedule import Schedule  # noqa: E402
from viny.training.state import RunState  # noqa: E402
from viny.training.streams import torch_stream  # noqa: E402
from viny.training.update import Execution  # noqa: E402

METRICS_VERSION = 1
COORDINATES = ("study", "variant", "pretrain", "intermediate", "downstream", "seed")


class StageTask(Task, Protocol):
    """What a stage trains, and how it is measured and kept."""

    def evaluate(self) -> dict[str, Any]:
        """The `metrics` of metrics.json, measured on held-out images."""
        ...

    def write(self, folder: Path) -> None:
        """Write the model and examples into `folder`."""
        ...


@dataclass(frozen=True)
class Request:
    """A stage's command line, read.

    Attributes:
        values: the stage's own settings. model: the `model` section.
        inputs: role of each input (`store`, `encoder`, ...) and its checksum.
    """

    stage: str
    args: argparse.Namespace
    section: str
    values: dict[str, Any]
    model: dict[str, Any]
    inputs: dict[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that define the run."""
        return {"model": self.model, self.section: self.values, "seeding": self.args.seeding}


def parser(
    description: str, *sections: str, parents: Sequence[argparse.ArgumentParser] = ()
) -> argparse.ArgumentParser:
    """A parser with the flags that all stages share and those of `sections`, `model` and `compute`."""
    made = argparse.ArgumentParser(description=description, parents=parents)
    made.add_argument("--store", type=Path, required=True, metavar="MANIFEST", help="manifest of the decoded images")
    made.add_argument("--encoder", type=Path, metavar="FILE", help="encoder to start from; random weights without it")
    made.add_argument("--seed", type=int, required=True, metavar="N", help="seed of everything random in this run")
    made.add_argument(
        "--coordinates",
        type=read_coordinates,
        default={},
        metavar="KEY=VALUE,...",
        help="place of the run in its study, recorded in metrics.json",
    )
    made.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where the results go")
    made.add_argument(
        "--state-dir",
        type=Path,
        metavar="FOLDER",
        help="where the state of an interrupted run is kept (default: .state beside the output)",
    )
    made.add_argument("--save-every", type=float, default=60.0, metavar="S", help="seconds between saved states")
    made.add_argument("--log", type=Path, metavar="FILE", help="repeat all messages in this file")
    settings.add_flags(made, *sections, "model", "seeding", "compute")
    return made


def read_coordinates(text: str) -> dict[str, int | str]:
    """`pretrain=256,intermediate=none` -> `{"pretrain": 256, "intermediate": "none"}`."""
    pairs = [part.split("=", 1) for part in text.split(",") if part]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value,key=value")
    unknown = [key for key, _ in pairs if key not in COORDINATES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(COORDINATES)}")
    numbers = [key for key, value in pairs if key in ("pretrain", "downstream") and not value.isdecimal()]
    if numbers:
        raise argparse.ArgumentTypeError(f"{numbers[0]} in {text!r} is not a number")
    return {key: int(value) if value.isdecimal() and key not in ("study", "variant") else value for key, value in pairs}


def positive(text: str) -> int:
    """A number of images on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def run(
    request: Request,
    images: int,
    stores: Sequence[Store],
    make_task: Callable[[torch.device, int], StageTask],
) -> int:
    """Train, measure and write the results, or put back those of a finished run; returns the exit code.

    Args:
        images: number of training images.
        stores: verified against their checksums before training.
        make_task: builds the task for a device and a seed.
    """
    args = request.args
    job = Job(request, images)
    device, label, state = job.device, job.label, job.state
    with state.lock():
        if job.finished_before():
            return 0
        for store in stores:
            store.verify()
        seed = args.seed if args.seeding == "everything" else state.once("seed", lambda: secrets.randbits(31))
        schedule = Schedule.from_settings(images, request.values)
        execution = Execution.from_settings(device, request.values["precision"], job.compute)
        try:
            with _enough_memory(label, request.section):
                task = make_task(device, seed)
                startup = time.perf_counter() - STARTED
                position = train(task, schedule, execution, state, label, args.save_every)
                clock = time.perf_counter()
                task.model.eval()
                measured = task.evaluate()
        except Interrupted as interruption:
            console.say(f"{label}: {interruption}; the state is saved, the same command carries on")
            return 128 + interruption.signum
        if not math.isfinite(measured["loss"]):  # the last update can spoil weights whose training loss was finite
            raise VinyError(f"{label}: the loss is {measured['loss']} after training; lower learning_rate")
        cost = _cost(position, startup, time.perf_counter() - clock, device)
        with state.finishing() as folder:
            task.write(folder)
            (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in position.history))
            job.write_metrics(folder, measured, _budget(schedule, position), cost, seed)
    return 0


@contextlib.contextmanager
def _enough_memory(label: str, section: str) -> Iterator[None]:
    """Say what to change when memory runs out, on a GPU or for want of a smaller model."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        gpu = isinstance(error, torch.OutOfMemoryError)
        if not gpu and isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        advice = "let fewer jobs share a GPU (compute.jobs_per_gpu)" if gpu else "take a smaller `model`"
        raise VinyError(
            f"{label}: the device has not enough memory ({str(error).split('.')[0]}); lower {section}.batch_size, "
            f"or {advice}"
        ) from error


class Job:
    """What defines a request as a run of its own, and how its results are described.

    Args:
        images: number of training images.
    """

    def __init__(self, request: Request, images: int):
        args = request.args
        self.request = request
        self.started = datetime.now(UTC)
        self.compute = settings.from_args(args, "compute")
        take_gpu(self.compute["device"], self.compute.pop("jobs_per_gpu"))
        self.device = select_device(*(self.compute[key] for key in ("device", "threads", "matmul_precision")))
        place = (f"{axis}={value}" for axis, value in args.coordinates.items() if axis != "study")
        self.label = " ".join([request.stage, *place])
        self.code = code_fingerprint(f"viny.stages.{request.stage}")
        del self.compute["device"]  # `auto` says nothing; the kind of device that it found does
        self.compute["float32_products"] = float32_products(self.device)
        identity = {
            "coordinates": args.coordinates,
            "images": images,
            "seed": args.seed,
            "settings": request.settings,
            "code": self.code,
            "inputs": request.inputs,
            "device": self.device.type,
            "compute": self.compute,
            "torch": torch.__version__,
        }
        self.state = RunState(args.state_dir or args.output.parent / ".state", request.stage, identity, args.output)

    def finished_before(self) -> bool:
        """Whether this very run had finished; its results are then put back where they belong."""
        if not self.state.export():
            return False
        console.say(f"{self.label}: finished before; its results are back in {self.request.args.output}")
        return True

    def write_metrics(
        self, folder: Path, measured: dict[str, Any], budget: dict[str, Any], cost: dict[str, Any], seed: int
    ) -> None:
        """Write metrics.json beside the other results in `folder`, and say the scores."""
        scores = ", ".join(f"{name} {value:.4f}" for name, value in measured.items() if isinstance(value, float))
        console.say(f"{self.label}: {scores}")
        document = {
            "schema": METRICS_VERSION,
            "stage": self.request.stage,
            "coordinates": self.request.args.coordinates,
            "metrics": measured,
            "budget": budget,
            "cost": cost,
            "settings": self.request.settings,
            "provenance": {
                **environment(),
                "code": self.code,
                "settings": fingerprint(self.request.settings),
                "run_key": self.state.key,
                "seed": seed,
                "inputs": self.request.inputs,
                "device": self.device.type,
                "device_name": device_name(self.device),
                "compute": self.compute,
                "started": self.started.isoformat(timespec="seconds"),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            "outputs": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        }
        (folder / "metrics.json").write_text(json.dumps(document, indent=1) + "\n")


def starting_encoder(request: Request, seed: int) -> ViNy:
    """The encoder that the run starts from: the given file's, or random weights of the seed.

    Raises:
        VinyError: the file's encoder has other sizes than the settings.
    """
    attention = request.args.attention
    if not request.args.encoder:
        return build_encoder(**request.model, attention=attention, generator=torch_stream(seed, "init"))
    encoder = load_encoder(request.args.encoder)
    different = [
        f"{key} {encoder.model_section[key]}, not {value}"
        for key, value in request.model.items()
        if encoder.model_section.get(key, value) != value  # how weights were drawn is no part of a model file
    ]
    if different:
        raise VinyError(
            f"{request.args.encoder} holds an encoder of other sizes than the settings: {'; '.join(different)}"
        )
    encoder.set_attention(attention)
    encoder.initialization = request.model["initialization"]  # for what is put on it
    return encoder


def require(store: Store, rows: int, pixels: int | None = None, masks: bool = False) -> None:
    """Check that a store holds the rows that a run needs, in the resolution that it needs, with `masks` if it must.

    Raises:
        VinyError: it does not.
    """
    if store.count < rows:
        raise VinyError(f"{store.manifest} vouches for {store.count:,} images, but the run needs {rows:,}")
    if pixels is not None and store.pixels != pixels:
        raise VinyError(f"{store.manifest} holds images of {store.pixels} pixels, but model.image_size is {pixels}")
    if masks and store.masks is None:
        raise VinyError(f"{store.manifest} holds images of {store.dataset} without trimaps; name a store of pets")


def checksums(args: argparse.Namespace, **stores: Store) -> dict[str, str]:
    """Checksums of a run's inputs: its stores and, if it has one, its encoder."""
    inputs = {role: store.checksum for role, store in stores.items()}
    if args.encoder:
        if not args.encoder.is_file():
            raise VinyError(f"--encoder: there is no file {args.encoder}")
        inputs["encoder"] = file_sha256(args.encoder)
    return inputs


def _budget(schedule: Schedule, position: Position) -> dict[str, Any]:
    return {
        "images": schedule.images,
        "epochs": schedule.total_steps / schedule.steps_per_epoch,
        "steps": position.step,
        "image_passes": position.images,
        "batch_size": schedule.batch_size,
    }


def _cost(position: Position, startup: float, evaluation: float, device: torch.device) -> dict[str, Any]:
    return {
        "train_seconds": position.seconds,
        "evaluate_seconds": evaluation,
        "startup_seconds": startup,
        "images_per_second": position.images / max(position.seconds, 1e-9),
        "peak_memory_mb": peak_memory_mb(device),
        "resumes": position.resumes,
    }
