"""What a GPU is given: steps of every kind of run can be recorded, and losses neither wait for it nor copy to it."""

import functools

import pytest
import torch
from tape import Tape
from tiny import MODEL, RUNS, SHORT
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from viny.data import augment
from viny.operations.calibrate import make_task
from viny.settings import defaults
from viny.stages import run as stage_run
from viny.training.update import Execution

KINDS = {kind: kind if stage == kind else f"{stage} {kind}" for kind, (stage, _) in RUNS.items()}
CUDA = torch.device("cuda", 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", RUNS)
def test_recorded_stages_end_with_the_same_bits(kind, precision, stages, monkeypatch):
    monkeypatch.setattr(augment, "_one_by_one", lambda images: False)  # as on a GPU
    how = {"precision": precision, "attention": "fused", "learning_rate": 2**-8, "gamma": 0.5}
    plain = stages.run(kind, **how)
    tape = Tape()
    monkeypatch.setattr(
        stage_run.Execution, "from_settings", lambda device, precision, _: Execution(device, precision, recorder=tape)
    )
    recorded = stages.run(kind, "recorded", **how)
    assert tape.replayed > 0
    assert recorded.repeatable == plain.repeatable


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


def on_a_gpu(module: torch.nn.Module) -> None:
    """Give a module parameters on a GPU that is not there: they have shapes and devices, but no values."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            part.register_parameter(name, torch.nn.Parameter(torch.empty(value.shape, device=CUDA)))


@pytest.mark.parametrize("kind", RUNS)
def test_the_loss_on_a_gpu_never_waits(kind, monkeypatch):
    monkeypatch.setattr(augment, "_kept_on_device", functools.cache(augment._on_device))
    stage, _, task_name = KINDS[kind].partition(" ")
    asked = {"model": MODEL, "store_pixels": 20, "compute": defaults("compute")}
    values = defaults(f"{stage}.{task_name}".rstrip(".")) | SHORT | {"heldout_images": 64, "test_images": 64}
    task = make_task(KINDS[kind], values, asked, 16, torch.device("cpu"))
    batch = {name: values[:8] for name, values in task.draw(0).items()}
    batch |= task.read(batch.pop("row"))
    with FakeTensorMode():
        on_a_gpu(task.model)
        batch = {name: torch.empty(v.shape, dtype=v.dtype, device=CUDA) for name, v in batch.items()}
        task.loss(batch)  # constants are copied once
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
