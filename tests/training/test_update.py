"""Captured steps are the steps: same bits whatever changes from one to the next, and a way out where it fails."""

import signal

import pytest
import torch
from tape import Tape
from test_loop import CPU, Regression, run, weights, without_time

from viny.config.sections import Compute, Finetuning
from viny.training.loop import Interrupted
from viny.training.schedule import Schedule
from viny.training.update import Execution

RATE = 2**-7  # the same in single precision, in which a captured step reads it
# Three batches a pass, the last one smaller; the learning rate changes when both sizes have been captured.
SETTINGS = Finetuning(batch_size=8, epochs=8, learning_rate=RATE, weight_decay=1e-2, gamma=0.5, milestones=(4, 6))
SCHEDULE = Schedule(20, SETTINGS)


class Waiting(Regression):
    """A regression whose loss asks for a number."""

    def loss(self, batch):
        return super().loss(batch) * (1.0 if batch["x"].sum().item() > -1e9 else 2.0)


def captured(tmp_path, task, schedule=SCHEDULE, precision="fp32"):
    tape = Tape()
    return tape, run(tmp_path, task, schedule, execution=Execution(CPU, precision, capture=tape))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_captured_steps_are_those_that_are_not(tmp_path, optimizer, precision):
    schedule = Schedule(20, SETTINGS.model_copy(update={"optimizer": optimizer}))
    plain, task = Regression(), Regression()
    expected = run(tmp_path / "plain", plain, schedule, execution=Execution(CPU, precision))
    tape, position = captured(tmp_path / "captured", task, schedule, precision)
    assert (tape.recorded, tape.replayed) == (2, 24 - 2 * 3)
    assert torch.equal(weights(task), weights(plain))
    assert without_time(position.history) == without_time(expected.history)


def test_an_interrupted_captured_run_ends_with_the_same_bits(tmp_path):
    whole = Regression()
    run(tmp_path / "whole", whole, SCHEDULE)

    class Stopping:
        """Asks for a stop in the middle of a captured run."""

        def __init__(self):
            self.tape = Tape()

        def __call__(self, work):
            replay, result = self.tape(work)

            def stop():
                replay()
                if self.tape.replayed == 4:
                    signal.raise_signal(signal.SIGTERM)

            return stop, result

    with pytest.raises(Interrupted):
        run(tmp_path / "parts", Regression(), SCHEDULE, execution=Execution(CPU, capture=Stopping()))
    task = Regression()
    _, position = captured(tmp_path / "parts", task)
    assert position.resumes == 1
    assert torch.equal(weights(task), weights(whole))


def test_a_step_that_cannot_be_captured_is_computed_with_a_warning(tmp_path, caplog):
    plain, task = Regression(), Waiting()
    run(tmp_path / "plain", plain, SCHEDULE)
    tape, _ = captured(tmp_path / "captured", task)
    assert tape.replayed == 0
    assert torch.equal(weights(task), weights(plain))
    assert caplog.text.count("steps of 8 images cannot be captured (aten._local_scalar_dense.default waits") == 1
    assert "steps of 4 images" in caplog.text
    assert "compute.cuda_graphs" in caplog.text


def test_numbers_of_python_are_captured_as_they_were(tmp_path):
    """What the stand-in is for: a step that computes with such a number is found out."""
    plain, task = (Regression(on_step=lambda step, loss: loss * (1 + step / 10)) for _ in range(2))
    run(tmp_path / "plain", plain, SCHEDULE)
    captured(tmp_path / "captured", task)
    assert not torch.equal(weights(task), weights(plain))


def test_settings_choose_the_capture_of_the_device():
    assert Execution.from_settings(CPU, "fp32", Compute()).capture is None
    assert Execution.from_settings(torch.device("cuda"), "fp32", Compute()).capture is not None
    assert Execution.from_settings(torch.device("cuda"), "fp32", Compute(cuda_graphs=False)).capture is None
