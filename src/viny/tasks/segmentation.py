"""Segmentation: the class of each pixel, from the token of its patch (Section 3.4, Table A1)."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from viny.config.sections import Finetuning as Settings
from viny.datasets import augment
from viny.encoders.heads import Segmenter
from viny.tasks import metrics
from viny.tasks.base import Batch, ImageTask
from viny.tasks.metrics import IGNORE

__all__ = ["Settings", "Task"]


class Task(ImageTask):
    """Linear segmentation head and encoder, trained together."""

    truth = "mask"
    head = Segmenter
    checkpoint = "model.safetensors"

    def sample_epoch(self, epoch: int) -> Batch:
        """With frozen augmentation an image keeps its draw of the first pass."""
        drawn = super().sample_epoch(epoch)
        if self.settings.augmentation == "frozen":
            place = drawn["row"] - self.first
            drawn |= {name: values[place] for name, values in self.draw("augment", 0, self.images).items()}
        return drawn

    def scores(self, images: Tensor) -> Tensor:
        """What loss and argmax are taken on, (B, 3, S, S) -> (B, K, S, S) float32.

        With `log_softmax_over_pixels`, the released code's, classes compete for all pixels of an image (ignored ones
        too) before they compete within one; else these are the logits.
        """
        logits = self.model(images).float()
        if self.settings.loss == "log_softmax_over_pixels":
            return logits.flatten(2).log_softmax(dim=-1).view_as(logits)
        return logits

    def test_batch(self, numbers: Tensor) -> Batch:
        """Test images by their number; with `augment_test` flipped and jittered, as in the released code."""
        batch = self.read(self.first_test + numbers)
        if self.settings.augment_test:
            drawn = self.draw("augment_test", 0, self.tests)
            batch |= {name: values[numbers].to(self.device) for name, values in drawn.items()}
        return self.prepare(batch)

    @torch.inference_mode()
    def evaluate(self) -> dict[str, Any]:
        """Scores of the confusion matrix of all test pixels that are not ignored.

        Beside them `miou_per_image`, the released code's number: averaged over images, absent classes as 0.
        """
        loss, each = 0.0, []
        for batch in self.test_batches():
            scores, truth = self.scores(batch["image"]), batch["mask"]
            loss += metrics.cross_entropy(scores, truth).item() * int((truth != IGNORE).sum())
            each.append(metrics.confusion_per_image(truth, scores.argmax(dim=1), len(self.classes)))
        per_image = torch.cat(each)
        confusion, self.test_miou = per_image.sum(dim=0), metrics.iou_per_image(per_image).cpu()
        iou = [None if math.isnan(value) else value for value in metrics.class_iou(confusion).tolist()]
        return {
            "loss": loss / int(confusion.sum()),
            "pixel_accuracy": metrics.pixel_accuracy(confusion),
            "class_iou": dict(zip(self.classes, iou, strict=True)),
            "miou": metrics.mean_iou(confusion),
            "miou_per_image": self.test_miou.nanmean().item(),
            "confusion": confusion.tolist(),
        }

    @torch.inference_mode()
    def write(self, folder: Path) -> None:
        """Weights, and examples.npz: the first test images and the best, median and worst predictions."""
        super().write(folder)
        ranked = self.test_miou.argsort(descending=True)
        ranked = ranked[~self.test_miou[ranked].isnan()]
        half, first = len(ranked) // 2, torch.arange(min(4, self.tests))
        chosen = {"first": first, "best": ranked[:2], "median": ranked[half : half + 2], "worst": ranked[-4:]}
        numbers = torch.cat(list(chosen.values()))
        batch = self.test_batch(numbers)
        images = augment.denormalize(batch["image"]) if self.settings.normalize else batch["image"]
        np.savez_compressed(
            folder / "examples.npz",
            images=augment.to_bytes(images).cpu().numpy(),
            truth=batch["mask"].cpu().numpy(),
            prediction=self.scores(batch["image"]).argmax(dim=1).byte().cpu().numpy(),
            names=np.array([self.store.names[row] for row in (self.first_test + numbers).tolist()]),
            iou=self.test_miou[numbers].numpy(),
            kind=np.array([kind for kind, those in chosen.items() for _ in those]),
            classes=np.array(self.classes),
        )
