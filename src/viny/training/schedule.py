"""How long a stage trains and with which optimizer and learning rate (Table A1)."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from viny.config.sections import Training


@dataclass(frozen=True)
class Schedule:
    """Budget, optimizer and MultiStepLR of a run on `images` training images.

    The budget is `epochs` passes over the images or, if `steps` is given, that many updates. Milestones are
    in epochs; with `steps` they keep their place relative to the whole run.
    """

    images: int
    settings: Training

    @property
    def steps_per_epoch(self) -> int:
        """Updates in one pass; the last batch of a pass may be smaller."""
        return -(-self.images // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        """Updates in the whole run."""
        return self.settings.steps or self.settings.epochs * self.steps_per_epoch

    @property
    def passes(self) -> int:
        """Passes over the images in the whole run; the last may be cut short."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def samples_seen(self) -> int:
        """Images shown in the whole run, repeats counted."""
        return self.settings.samples_seen(self.images)

    @property
    def budget(self) -> dict[str, float]:
        """What the run is given, as metrics.json records it (`viny.result.Budget`)."""
        return {
            "images": self.images,
            "epochs": self.total_steps / self.steps_per_epoch,
            "steps": self.total_steps,
            "samples_seen": self.samples_seen,
            "batch_size": self.settings.batch_size,
        }

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of update `step` (0-based): multiplied by gamma at each milestone passed."""
        milestones, epochs = self.settings.milestones, self.settings.epochs
        passed = sum(step >= round(m / epochs * self.total_steps) for m in milestones)
        return self.settings.learning_rate * self.settings.gamma**passed

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """AdamW or Adam over all parameters, fused into one kernel."""
        kind = torch.optim.AdamW if self.settings.optimizer == "adamw" else torch.optim.Adam
        return kind(parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True)
