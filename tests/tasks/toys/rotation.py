"""Rotation prediction (Gidaris et al., 2018): by how many quarter turns was the image turned? It needs no labels."""

import torch
from torch import Tensor

from viny.config.sections import Intermediate as Settings
from viny.encoders.heads import Classifier
from viny.tasks.base import Batch, ImageTask

__all__ = ["Settings", "Task"]


class Task(ImageTask):
    """Classification of four turns from the class token."""

    def make_model(self) -> Classifier:
        return Classifier(self.encoder, 4, self.stream("head"))

    def labels(self, batch: Batch) -> Tensor:
        return batch["turns"]

    def sample_epoch(self, epoch: int) -> Batch:
        """Order, flips and contrast, and the turns of each image."""
        turns = torch.randint(4, (self.images,), generator=self.stream("turns", epoch))
        return super().sample_epoch(epoch) | {"turns": turns}

    def prepare(self, batch: Batch) -> Batch:
        """The images turned; test images, which come without random numbers, by turns."""
        batch = super().prepare(batch)
        images = batch["image"]
        number = torch.arange(len(images), device=images.device)
        turns = batch.setdefault("turns", number % 4)
        turned = torch.stack([images.rot90(k, (2, 3)) for k in range(4)])
        return batch | {"image": turned[turns, number]}
