"""One job of a study, of any stage: train, measure, record.

A job leaves its checkpoint, `metrics.json` (see `viny.result`), `history.jsonl` with one line per epoch if it trains,
and `examples.npz` where there are pictures to show. Killed at any instant and started again, it carries on and ends
with the same bits.
"""

import contextlib
import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import torch

from viny import encoders, tasks
from viny.config.sections import Compute, Training
from viny.datasets.leaks import refuse as refuse_leaks
from viny.datasets.store import Store
from viny.errors import FinalError, VinyError
from viny.files import file_sha256
from viny.grid import Job
from viny.logs import log
from viny.processes import age
from viny.result import read_result, record, utc_now
from viny.tasks.base import Context
from viny.training.device import attention_kernel, device_name, float32_products, peak_memory_mb, select_device
from viny.training.gpu_slots import one_gpu
from viny.training.loop import Position, train
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution


def run_job(job: Job, compute: Compute, save_every: float = 60.0) -> None:
    """Train, measure and write the results of a job, or put back those of a finished run.

    The state of the training is saved every `save_every` seconds.

    Raises:
        Interrupted: a signal stopped the training; its state is saved.
        VinyError: something has to be fixed first.
        FinalError: trying again gives the same: the settings do not fit the images or the encoder, or the loss is not
            finite.
    """
    started = utc_now()
    with one_gpu(compute):
        device = select_device(compute)
        store = Store.open(job.store.folder)
        refuse_leaks(job.store)
        images = _training_images(job, store)
        inputs, how = _inputs(job, store, images), _how(compute, device)
        identity = {"job": job.name, "run": job.key, "images": images, "inputs": inputs, "compute": how}
        identity |= {"device": device.type, "torch": torch.__version__}
        state = RunState(job.state, job.stage, identity, job.folder)
        with state.lock():
            if _finished_before(job, state, inputs):
                log.info(f"{job.name}: finished before; its results are in {job.folder}")
                return
            store.verify(store.tests + images)
            seed = job.seed if job.seeding == "everything" else _random_seed(state)
            with _enough_memory(job):
                task = _make_task(job, store, images, seed, device, how["attention"], 1 / compute.jobs_per_gpu)
                startup = age()
                if task.trainable:
                    assert isinstance(job.settings, Training)
                    schedule = Schedule(images, job.settings)
                    execution = Execution.from_settings(device, job.settings.precision, compute)
                    position, budget = train(task, schedule, execution, state, job.name, save_every), schedule.budget
                else:
                    position, budget = Position(), task.budget
                metrics, evaluation = _measured(job, task)
            cost = {
                "train_seconds": position.seconds,
                "evaluate_seconds": evaluation,
                "startup_seconds": startup,
                "images_per_second": position.samples / max(position.seconds, 1e-9),
                "peak_memory_mb": peak_memory_mb(device),
                "resumes": position.resumes,
            }
            provenance = {"run_key": state.key, "seed": seed, "inputs": inputs, "compute": how, "started": started}
            provenance |= {"device": device.type, "device_name": device_name(device)}
            with state.finishing() as folder:
                task.write(folder)
                if task.trainable:
                    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in position.history))
                record(folder, job, metrics=metrics, budget=budget, cost=cost, provenance=provenance)


def _training_images(job: Job, store: Store) -> int:
    """Number of training images of a job: as many as it names, else all of the store."""
    there = store.count - store.tests
    images = there if job.images is None else job.images
    if not 1 <= images <= there:
        needed = f"{max(images, 1):,} are needed"
        raise FinalError(f"{job.name}: {store.folder} holds {there:,} training images, {needed}")
    return images


def _inputs(job: Job, store: Store, images: int) -> dict[str, str]:
    """Checksums of what a job reads; timm's own weights go by their name."""
    inputs = {"store": store.checksum(store.tests + images)}
    if job.encoder:
        if not job.encoder.is_file():
            raise VinyError(f"{job.name}: there is no encoder {job.encoder}")
        inputs["encoder"] = file_sha256(job.encoder)
    elif job.pretrained:
        inputs["encoder"] = f"timm:{job.pretrained}"
    return inputs


def _how(compute: Compute, device: torch.device) -> dict[str, Any]:
    """What changes numbers beside settings and inputs, as it really is, not as it was asked for."""
    return {
        "threads": torch.get_num_threads(),
        "attention": attention_kernel(compute.attention, device),
        "float32_products": float32_products(device),
        "compile": compute.compile,
        "cuda_graphs": compute.cuda_graphs and device.type == "cuda",
    }


def _finished_before(job: Job, state: RunState, inputs: dict[str, str]) -> bool:
    """Whether this run had finished: its results are put back, or are whole where they belong."""
    if state.export():
        return True
    try:
        result = read_result(job)
        if not result or (result.provenance.key, result.provenance.inputs) != (job.key, inputs):
            return False
        if any(file_sha256(job.folder / name) != value for name, value in result.outputs.items()):
            return False
        for name in (*result.outputs, job.checkpoint.name, job.metrics.name):
            os.utime(job.folder / name)  # newer than what it was made from
        return True
    except (VinyError, OSError):
        return False


def _random_seed(state: RunState) -> int:
    """The seed of a run that leaves it to chance: that of the saved state, else a new one."""
    saved = state.load()
    seed = int(saved["seed"]) if saved else secrets.randbits(31)
    state.kept["seed"] = seed
    return seed


def _make_task(
    job: Job, store: Store, images: int, seed: int, device: torch.device, attention: str, share: float = 1.0
) -> Any:
    """The job's task on its encoder.

    Raises:
        FinalError: images, encoder and settings do not fit together.
    """
    try:
        encoder = encoders.load_start(job, seed)
        if isinstance(job.coordinates["pretrain"], int):  # an encoder that the study does not train has its own sizes
            _check_sizes(encoder, job)
        encoder.set_attention(attention)
        context = Context(
            settings=job.settings,
            store=store,
            encoder=encoder.to(device),
            device=device,
            seed=seed,
            images=images,
            tests=store.tests,
            checkpoint=job.checkpoint.name,
            share=share,
        )
        return tasks.load(job.task).Task(context)
    except VinyError as error:
        raise FinalError(f"{job.name}: {error}") from error


def _check_sizes(encoder: encoders.Encoder, job: Job) -> None:
    given = job.model.model_dump()
    other = {key: size for key, size in encoder.sizes.items() if given.get(key, size) != size}
    if other:
        said = "; ".join(f"{key} {size}, not {given[key]}" for key, size in other.items())
        raise VinyError(f"{job.encoder} holds an encoder of other sizes than the section `model`: {said}")


def _measured(job: Job, task: Any) -> tuple[dict[str, Any], float]:
    """The metrics of the trained model, and the seconds that measuring took."""
    began = time.perf_counter()
    task.model.eval()
    metrics = task.evaluate()
    seconds = time.perf_counter() - began
    if not math.isfinite(metrics.get("loss", 0.0)):  # the last update can spoil weights after a finite loss
        raise FinalError(f"{job.name}: the loss is {metrics['loss']} after training; lower learning_rate")
    scores = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if isinstance(value, float))
    log.info(f"{job.name}: {scores}")
    return metrics, seconds


@contextlib.contextmanager
def _enough_memory(job: Job) -> Iterator[None]:
    """Say what to change when memory runs out, on a GPU or for want of a smaller model."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        gpu = isinstance(error, torch.OutOfMemoryError)
        if not gpu and isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        advice = "let fewer jobs share a GPU (compute.jobs_per_gpu)" if gpu else "take a smaller `model`"
        raise VinyError(
            f"{job.name}: the device has not enough memory ({str(error).split('.')[0]}); "
            f"lower {job.section}.batch_size, or {advice}"
        ) from error
