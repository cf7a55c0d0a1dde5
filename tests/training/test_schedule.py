"""Budget and learning rate against PyTorch's own MultiStepLR and Table A1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from viny.config.sections import Finetuning
from viny.training.schedule import Schedule


def schedule(images=250, batch_size=64, epochs=100, steps=None, gamma=0.5, milestones=(70, 90, 95)):
    settings = Finetuning(
        batch_size=batch_size,
        epochs=epochs,
        steps=steps,
        learning_rate=2e-3,
        weight_decay=1e-4,
        gamma=gamma,
        milestones=milestones,
    )
    return Schedule(images, settings)


def test_learning_rate_is_that_of_multisteplr():
    made = schedule()
    optimizer = made.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(made.settings.milestones), made.settings.gamma)
    step = 0
    for _ in range(made.settings.epochs):
        for _ in range(made.steps_per_epoch):
            assert made.learning_rate_at(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            optimizer.step()
            step += 1
        reference.step()


def test_the_paper_shows_157_6_million_images():
    pretraining = 3 * sum(schedule(n, epochs=100).samples_seen for n in (45_000, 100_000, 200_000))
    intermediate = 9 * schedule(14_034, epochs=200).samples_seen
    finetuning = 21 * sum(schedule(n).samples_seen for n in (250, 500, 1000, 2000, 4000, 6000))
    assert (pretraining + intermediate + finetuning) / 1e6 == pytest.approx(157.6, abs=0.2)


@given(images=st.integers(1, 300), batch_size=st.integers(1, 80), steps=st.integers(1, 200))
def test_passes_are_what_a_loop_over_batches_would_show(images, batch_size, steps):
    sizes = [min(batch_size, images - start) for start in range(0, images, batch_size)]
    shown = sum(sizes[step % len(sizes)] for step in range(steps))
    assert schedule(images, batch_size, steps=steps).samples_seen == shown


def test_steps_keep_the_shape_of_the_schedule():
    made = schedule(steps=1000)
    assert made.total_steps == 1000
    assert [made.learning_rate_at(s) for s in (0, 699, 700, 899, 900, 949, 950)] == pytest.approx(
        [2e-3, 2e-3, 1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    )
