"""Classification of patches by the commonest class of their pixels (`spatial_pets` of the paper's second version)."""

from torch import Tensor

from viny.config.sections import Intermediate as Settings
from viny.encoders.heads import PatchClassifier
from viny.tasks.base import Batch, ImageTask
from viny.tasks.metrics import majority_labels

__all__ = ["Settings", "Task"]


class Task(ImageTask):
    """Linear classifier of patch tokens and encoder, trained together."""

    truth = "mask"
    head = PatchClassifier

    def labels(self, batch: Batch) -> Tensor:
        return majority_labels(batch["mask"], self.encoder.patch_size, len(self.classes))
