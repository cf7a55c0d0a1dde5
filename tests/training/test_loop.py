"""The loop learns, resumes to the bit, stops on request and on NaN."""

import os
import signal

import pytest
import torch
from torch import nn

from viny.config.sections import Finetuning
from viny.errors import FinalError
from viny.training.loop import Interrupted, train
from viny.training.rng import torch_stream
from viny.training.schedule import Schedule
from viny.training.state import RunState
from viny.training.update import Execution


class Regression:
    """A small regression with a random number in every step; `on_step` may interfere."""

    def __init__(self, images=20, on_step=None):
        self.images, self.on_step, self.steps = images, on_step, 0
        self.had, self.asked = [], []
        self.model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        for parameter in self.model.parameters():
            nn.init.normal_(parameter, std=0.5, generator=torch_stream(0, "init", parameter.numel()))
        self.x = torch.randn(images, 4, generator=torch_stream(0, "x"))

    def sample_epoch(self, epoch):
        return {
            "row": torch.randperm(self.images, generator=torch_stream(1, "order", epoch)),
            "noise": 0.1 * torch.randn(self.images, 4, generator=torch_stream(1, "noise", epoch)),
        }

    def read(self, rows):
        self.had.append(rows.tolist())
        return {"x": self.x[rows]}

    def prefetch(self, rows):
        self.asked.append(rows.tolist())

    def loss(self, batch):
        x = batch["x"]
        self.steps += 1
        loss = (self.model(x + batch["noise"])[:, 0] - x.sum(dim=1)).square().mean()
        return self.on_step(self.steps, loss) if self.on_step else loss


SETTINGS = Finetuning(batch_size=8, epochs=6, learning_rate=1e-2, weight_decay=1e-2, gamma=0.5, milestones=(3, 5))
SCHEDULE = Schedule(20, SETTINGS)
CPU = torch.device("cpu")
ON_CPU = Execution(CPU)


def run(tmp_path, task, schedule=SCHEDULE, save_every=60.0, execution=ON_CPU):
    state = RunState(tmp_path / "state", "toy", {"run": 1}, tmp_path / "out")
    with state.lock():
        return train(task, schedule, execution, state, "toy", save_every)


def weights(task):
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def without_time(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in history]


def test_it_learns_and_records_every_epoch(tmp_path):
    position = run(tmp_path, Regression())
    losses = [row["loss"] for row in position.history]
    assert len(losses) == 6
    assert losses[-1] < 0.8 * losses[0]
    assert position.samples == 120
    assert position.step == 18


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_the_rest_ends_with_the_same_bits(tmp_path, number):
    whole = Regression()
    expected = run(tmp_path / "whole", whole)

    def interrupt(step, loss):
        if step in (1, 5):
            os.kill(os.getpid(), number)
        return loss

    parts = 0
    while True:
        task = Regression(on_step=interrupt)
        parts += 1
        try:
            position = run(tmp_path / "parts", task)
            break
        except Interrupted as interruption:
            assert interruption.signum == number
    assert parts > 3
    assert torch.equal(weights(task), weights(whole))
    assert without_time(position.history) == without_time(expected.history)
    assert position.resumes == parts - 1
    assert position.seconds >= position.history[-1]["seconds"] > 0


def test_steps_instead_of_epochs_end_in_the_middle_of_a_pass(tmp_path):
    position = run(tmp_path, Regression(), Schedule(20, SETTINGS.model_copy(update={"steps": 7})))
    assert position.step == 7
    assert [row["step"] for row in position.history] == [3, 6, 7]
    assert position.samples == 48


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    task = Regression(on_step=lambda step, loss: loss * float("nan") if step == 10 else loss)
    with pytest.raises(FinalError, match=r"toy: the loss is nan in epoch 4 .*learning_rate"):
        run(tmp_path, task, save_every=0.0)
    healthy = Regression()
    with pytest.raises(FinalError, match="it failed so before"):
        run(tmp_path, healthy)
    next((tmp_path / "state").glob("*/failed.txt")).unlink()
    run(tmp_path, healthy)
    assert torch.isfinite(weights(healthy)).all()


def test_bf16_trains_with_float32_parameters(tmp_path):
    task = Regression()
    state = RunState(tmp_path / "state", "toy", {"run": 1}, tmp_path / "out")
    with state.lock():
        position = train(task, SCHEDULE, Execution(CPU, "bf16"), state, "toy")
    assert position.history[-1]["loss"] < position.history[0]["loss"]
    assert all(p.dtype == torch.float32 for p in task.model.parameters())


def test_what_a_step_reads_was_asked_for_by_the_step_before(tmp_path):
    task = Regression()
    run(tmp_path, task)
    each = SCHEDULE.steps_per_epoch
    for first in range(0, len(task.had), each):
        assert task.asked[first : first + each] == [*task.had[first + 1 : first + each], []]
