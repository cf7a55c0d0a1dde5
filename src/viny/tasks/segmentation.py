"""Segmentation: the class of each pixel, from the token of its patch (Section 3.4, Table A1)."""

import math
from collections import defaultdict
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

        Beside them `miou_per_image`, the released code's number: averaged over images, absent classes as 0. And
        `chance`, the scores of predictions that see no image: the training masks' commonest class, and that of each
        pixel.
        """
        loss, every = 0.0, defaultdict(list)
        blind = metrics.blind_answers(self.training_labels(), len(self.classes))
        for batch in self.test_batches():
            scores, truth = self.scores(batch["image"]), batch["mask"]
            loss += metrics.cross_entropy(scores, truth).item() * int((truth != IGNORE).sum())
            for name, answers in {"model": scores.argmax(dim=1), **blind}.items():
                each = metrics.confusion_per_image(truth, answers.expand(truth.shape), len(self.classes))
                every[name].append(each)
        per_image = {name: torch.cat(each) for name, each in every.items()}
        self.confusions = per_image.pop("model")  # (tests, K, K)
        self.test_miou = metrics.iou_per_image(self.confusions).cpu()
        confusion = self.confusions.sum(dim=0)
        iou = [None if math.isnan(value) else value for value in metrics.class_iou(confusion).tolist()]
        return {
            "loss": loss / int(confusion.sum()),
            **metrics.segmentation_scores(self.confusions),
            "class_iou": dict(zip(self.classes, iou, strict=True)),
            "confusion": confusion.tolist(),
            "chance": {name: metrics.segmentation_scores(each) for name, each in per_image.items()},
        }

    @torch.inference_mode()
    def write(self, folder: Path) -> None:
        """Weights; confusions.npz: the pixel counts of each test image; examples.npz: some images and predictions.

        The examples are the first test images and the best, median and worst predictions.
        """
        super().write(folder)
        names = [self.store.names[self.first_test + number] for number in range(self.tests)]
        counts = self.confusions.cpu().numpy().astype(np.int32)
        np.savez_compressed(folder / "confusions.npz", names=np.array(names), confusions=counts)
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
            names=np.array(names)[numbers],
            iou=self.test_miou[numbers].numpy(),
            kind=np.array([kind for kind, those in chosen.items() for _ in those]),
            classes=np.array(self.classes),
        )
