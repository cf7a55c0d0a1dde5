"""The intermediate task between pre-training and segmentation (Section 3.3, Table A1; second version).

    python -m viny.stages.intermediate --task cls_intel --store TRAIN --test-store TEST --encoder FILE --seed 1 ...

`cls_intel` classifies scenes, `cls_pets` breeds, `spatial_pets` the majority trimap class of each patch. The tasks on
Oxford-IIIT Pet train on the rows behind the segmentation's test images and are measured on those test images.
A new task needs a section in the schema, a store in `viny.study` and a class here.
Writes encoder.safetensors (the head is thrown away), metrics.json and history.jsonl.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viny.stages import run as stage  # isort: skip, the first import starts the clock

import numpy as np
import torch
from torch import Tensor

from viny import console, settings
from viny.data import augment
from viny.data.rows import Rows
from viny.data.store import Store
from viny.errors import VinyError, command
from viny.evaluation.geometry import majority_labels
from viny.models.files import save_encoder
from viny.models.heads import (
    SEGMENTATION_CLASSES,
    Classifier,
    PatchClassifier,
    classification_loss,
    mixup_targets,
    patch_loss,
)
from viny.training.streams import numpy_stream, torch_stream

TASKS = ("cls_intel", "cls_pets", "spatial_pets")
_EVALUATION_BATCH = 250


@dataclass(frozen=True)
class Split:
    """Rows [first, first + count) of a store."""

    store: Store
    first: int
    count: int


class Supervision:
    """What the tasks share: order, flips, contrast, and the images of a batch."""

    def __init__(self, request: stage.Request, train: Split, test: Split, device: torch.device, seed: int):
        self.values, self.train, self.test, self.device, self.seed = request.values, train, test, device, seed
        self.rows = Rows(train.store.images, train.first + train.count, device)
        self.test_rows = Rows(test.store.images, test.first + test.count, device)

    def draw(self, epoch: int) -> dict[str, Tensor]:
        """Order, flips, contrast and MixUp shares of one pass."""
        n, batch = self.train.count, self.values["batch_size"]
        stream = torch_stream(self.seed, "augment", epoch)
        draws = {
            "row": self.train.first + torch.randperm(n, generator=torch_stream(self.seed, "order", epoch)),
            "flip": augment.draw_flips(n, stream),
            "contrast": augment.draw_contrast(n, self.values["contrast"], stream),
        }
        if self.values["mixup"]:
            shares = numpy_stream(self.seed, "mixup", epoch).beta(self.values["mixup"], self.values["mixup"], n)
            share_of_batch = torch.tensor(shares[: -(-n // batch)], dtype=torch.float32)
            draws["share"] = share_of_batch.repeat_interleave(batch)[:n]
        return draws

    def images(self, batch: dict[str, Tensor]) -> Tensor:
        """Augmented, normalized images (B, 3, S, S)."""
        images = augment.flip(augment.unit_range(batch["image"]), batch["flip"])
        return augment.normalize_(augment.adjust_contrast(images, batch["contrast"]))

    def test_batches(self):
        """Row numbers and normalized images of the test split, batch by batch."""
        stop = self.test.first + self.test.count
        for start in range(self.test.first, stop, _EVALUATION_BATCH):
            row = torch.arange(start, min(start + _EVALUATION_BATCH, stop))
            yield row, augment.normalize_(augment.unit_range(self.test_rows[row]))

    def write(self, folder: Path) -> None:
        """The encoder; the head has done its work."""
        save_encoder(self.model.encoder, folder / "encoder.safetensors")


class ImageClassification(Supervision):
    """Classes of whole images from the class token, with MixUp."""

    def __init__(self, request: stage.Request, train: Split, test: Split, device: torch.device, seed: int):
        super().__init__(request, train, test, device, seed)
        self.classes = len(train.store.classes)
        head = torch_stream(seed, "head")
        self.model = Classifier(stage.starting_encoder(request, seed), self.classes, generator=head).to(device)
        self.labels = Rows(train.store.labels, train.first + train.count, device)
        self.test_labels = Rows(test.store.labels, test.first + test.count, device)

    def read(self, row: Tensor) -> dict[str, Tensor]:
        """The stored images and their classes."""
        return {"image": self.rows[row], "label": self.labels[row]}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy; with MixUp, image i is mixed with the i-th from the end of the batch."""
        images, labels = self.images(batch), batch["label"]
        if "share" not in batch:
            return classification_loss(self.model(images), labels)
        share = batch["share"][0]
        images = share * images + (1 - share) * images.flip(0)
        targets = mixup_targets(labels, labels.flip(0), share, self.classes)
        return classification_loss(self.model(images), targets)

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy on the test split, and the accuracy of always naming its commonest class."""
        loss = correct = 0.0
        for row, images in self.test_batches():
            logits, labels = self.model(images), self.test_labels[row]
            loss += classification_loss(logits, labels).item() * len(row)
            correct += (logits.argmax(dim=1) == labels).sum().item()
        used = self.test.store.labels[self.test.first : self.test.first + self.test.count]
        return {
            "loss": loss / self.test.count,
            "accuracy": correct / self.test.count,
            "chance": np.bincount(used).max().item() / self.test.count,
        }


class PatchClassification(Supervision):
    """The majority trimap class of each patch."""

    def __init__(self, request: stage.Request, train: Split, test: Split, device: torch.device, seed: int):
        super().__init__(request, train, test, device, seed)
        head = torch_stream(seed, "head")
        self.model = PatchClassifier(stage.starting_encoder(request, seed), generator=head).to(device)
        self.patch_size = request.model["patch_size"]
        self.masks = Rows(train.store.masks, train.first + train.count, device)
        self.test_masks = Rows(test.store.masks, test.first + test.count, device)

    def read(self, row: Tensor) -> dict[str, Tensor]:
        """The stored images and masks."""
        return {"image": self.rows[row], "mask": self.masks[row]}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Cross-entropy over patches."""
        masks = augment.flip(batch["mask"], batch["flip"])
        return patch_loss(self.model(self.images(batch)), majority_labels(masks, self.patch_size))

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Loss and accuracy over the patches of the test split, and the share of their commonest class."""
        loss = correct = 0.0
        counts = torch.zeros(SEGMENTATION_CLASSES, device=self.device)
        patches = 0
        for row, images in self.test_batches():
            logits, labels = self.model(images), majority_labels(self.test_masks[row], self.patch_size)
            loss += patch_loss(logits, labels).item() * labels.numel()
            correct += (logits.argmax(dim=-1) == labels).sum().item()
            counts += labels.flatten().bincount(minlength=SEGMENTATION_CLASSES)
            patches += labels.numel()
        return {"loss": loss / patches, "accuracy": correct / patches, "chance": counts.max().item() / patches}


def splits(args: argparse.Namespace, store: Store, images: int | None) -> tuple[Split, Split]:
    """Which rows the task trains on and is measured on.

    Raises:
        VinyError: a store is missing, or too small.
    """
    if args.test_store:
        test_store = Store.open(args.test_store)
        if test_store.classes != store.classes:
            raise VinyError(
                f"{args.test_store} has other classes than {args.store}: {test_store.classes}, {store.classes}"
            )
        count = store.count if images is None else images
        stage.require(store, count)
        return Split(store, 0, count), Split(test_store, 0, test_store.count)
    if not args.test_images:
        raise VinyError(f"--task {args.task} needs --test-store, or --test-images rows of --store to be measured on")
    stage.require(store, args.test_images + (images or 1))
    count = store.count - args.test_images if images is None else images
    return Split(store, args.test_images, count), Split(store, 0, args.test_images)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    task, *_ = _task_parser().parse_known_args(argv)
    section = f"intermediate.{task.task}"
    parser = stage.parser("Intermediate task between pre-training and segmentation.", section, parents=[_task_parser()])
    parser.add_argument("--test-store", type=Path, metavar="MANIFEST", help="manifest of the test images")
    parser.add_argument(
        "--test-images",
        type=stage.positive,
        metavar="N",
        help="without a test store: the first N rows of the store, never trained on",
    )
    args = parser.parse_args(argv)
    console.open_log(args.log)
    store = Store.open(args.store)
    values = settings.from_args(args, section)
    model = settings.from_args(args, "model")
    train, test = splits(args, store, values["images"])
    for split in (train, test):
        rows, masks = split.first + split.count, args.task == "spatial_pets"
        stage.require(split.store, rows, model["image_size"], masks)
    kind = PatchClassification if args.task == "spatial_pets" else ImageClassification
    inputs = stage.checksums(args, store=store, test_store=test.store)
    request = stage.Request("intermediate", args, section, values, model, inputs)
    return stage.run(
        request, train.count, [train.store, test.store], lambda device, seed: kind(request, train, test, device, seed)
    )


def _task_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help="the task; it decides which settings follow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
