"""What a GPU is given: steps of every kind of job can be captured, and losses neither wait for it nor copy to it."""

import pytest
import torch
from tape import Tape
from tiny import KINDS
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from viny import job as viny_job
from viny.datasets import augment
from viny.datasets.store import Store
from viny.training.update import Execution

CUDA = torch.device("cuda", 0)


def as_on_a_gpu(monkeypatch):
    """Let a CPU compute augmentations as other devices do, without a loop over images."""

    def crop_and_resize(images, boxes, size):
        return augment.resample(images, augment.pixel_boxes(boxes, images.shape[1]), size)

    def flip(images, flips):
        return torch.where(flips.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)

    monkeypatch.setattr(augment, "crop_and_resize", crop_and_resize)
    monkeypatch.setattr(augment, "flip", flip)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_captured_jobs_end_with_the_same_bits(kind, precision, jobs, monkeypatch):
    as_on_a_gpu(monkeypatch)
    # Rates that are the same in single precision, in which a captured step reads them.
    how = {"precision": precision, "learning_rate": 2**-8, "gamma": 0.5, "compute": {"attention": "fused"}}
    plain, tape = jobs.run(kind, "plain", **how), Tape()
    monkeypatch.setattr(
        viny_job.Execution, "from_settings", lambda device, precision, _: Execution(device, precision, capture=tape)
    )
    captured = jobs.run(kind, "captured", **how)
    assert tape.replayed > 0
    assert captured.repeatable == plain.repeatable


class Watch(TorchDispatchMode):
    """Complains about operations that make a GPU and its host wait for each other."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        devices = [
            {value.device.type for value in tree_leaves(tree) if isinstance(value, torch.Tensor) and value.dim()}
            for tree in ((args, kwargs), result)
        ]
        assert devices[0] | devices[1] <= {"cuda"}, f"{func} between {devices[0]} and {devices[1]}"
        return result


def move_to_gpu(module: torch.nn.Module) -> None:
    """Give a module parameters on a GPU that is not there: they have shapes and devices, but no values."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            part.register_parameter(name, torch.nn.Parameter(torch.empty(value.shape, device=CUDA)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_on_a_gpu_never_waits(kind, jobs):
    job = jobs.job(kind)
    task = viny_job._make_task(job, Store.open(job.store.folder), 16, 1, torch.device("cpu"), "fused")
    batch = {name: values[:8] for name, values in task.sample_epoch(0).items()}
    batch |= task.read(batch.pop("row"))
    with FakeTensorMode():
        move_to_gpu(task.model)
        batch = {name: torch.empty(v.shape, dtype=v.dtype, device=CUDA) for name, v in batch.items()}
        with Watch():
            assert task.loss(batch).device == CUDA


def test_what_waits_for_a_gpu_is_found():
    with FakeTensorMode():
        values = torch.empty(8, device=CUDA)
        for wait in (lambda: values.sum().item(), lambda: values[values > 0], lambda: values.cpu(), values.tolist):
            with pytest.raises((AssertionError, DataDependentOutputException, DynamicOutputShapeException)), Watch():
                wait()
        with pytest.raises(AssertionError), Watch():
            torch.tensor([1.0, 2.0], device=CUDA)
