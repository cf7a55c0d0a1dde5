"""How long a stage trains and with which optimizer and learning rate (Table A1)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """Budget, optimizer and MultiStepLR of one run.

    The budget is `epochs` passes over the images or, if `steps` is given, that many updates. Milestones are
    in epochs; with `steps` they keep their place relative to the whole run.
    """

    images: int
    batch_size: int
    epochs: int
    steps: int | None
    optimizer: str
    learning_rate: float
    weight_decay: float
    gamma: float
    milestones: tuple[int, ...]

    @classmethod
    def from_settings(cls, images: int, values: dict) -> "Schedule":
        """Pick the schedule's keys from a stage's settings."""
        keys = ("batch_size", "epochs", "steps", "optimizer", "learning_rate", "weight_decay", "gamma")
        return cls(images, *(values[key] for key in keys), milestones=tuple(values["milestones"]))

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass; the last batch of a pass may be smaller."""
        return -(-self.images // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.steps or self.epochs * self.steps_per_epoch

    @property
    def passes(self) -> int:
        """Passes over the images in the whole run; the last may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def image_passes(self) -> int:
        """Images shown in the whole run, repeats counted."""
        full, rest = divmod(self.total_steps, self.steps_per_epoch)
        return full * self.images + min(rest * self.batch_size, self.images)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of update `step` (0-based): multiplied by gamma at each milestone passed."""
        passed = sum(step >= round(m / self.epochs * self.total_steps) for m in self.milestones)
        return self.learning_rate * self.gamma**passed

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW or Adam over all parameters, fused into one kernel."""
        kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[self.optimizer]
        return kind(
            parameters,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            fused=True,
        )
