"""Classification of whole images from the class token, with MixUp (Section 3.3)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from viny.config.sections import Intermediate as Settings
from viny.encoders.heads import Classifier
from viny.tasks.base import Batch, ImageTask
from viny.training.rng import numpy_stream

__all__ = ["Settings", "Task"]


class Task(ImageTask):
    """Linear classifier and encoder, trained together; the intermediate tasks of the paper throw the head away."""

    truth = "label"
    head = Classifier
    ignored = -1  # none: 255 is a class like any other

    def sample_epoch(self, epoch: int) -> Batch:
        """With MixUp also one share per batch: the weight of each image's own pixels."""
        drawn = super().sample_epoch(epoch)
        if alpha := self.settings.mixup:
            n, size = self.images, self.settings.batch_size
            shares = numpy_stream(self.seed, "mixup", epoch).beta(alpha, alpha, n)[: -(-n // size)]
            drawn["share"] = torch.tensor(shares, dtype=torch.float32).repeat_interleave(size)[:n]
        return drawn

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy; with MixUp, image i is mixed with the i-th from the end of the batch."""
        if "share" not in batch:
            return super().loss(batch)
        images, labels, share = self.prepare(batch)["image"], batch["label"], batch["share"][0]
        logits = self.model(share * images + (1 - share) * images.flip(0))
        numbers = torch.arange(len(self.classes), device=labels.device)
        own, partner = ((x[:, None] == numbers).float() for x in (labels, labels.flip(0)))
        return F.cross_entropy(logits.float(), share * own + (1 - share) * partner)
