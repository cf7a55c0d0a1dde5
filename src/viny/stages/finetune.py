"""Downstream segmentation of Oxford-IIIT Pet, trained and measured in one job (Section 3.4, Table A1).

    python -m viny.stages.finetune --store MANIFEST --encoder FILE --images 250 --seed 1 --output FOLDER

Writes model.safetensors, metrics.json, history.jsonl and examples.npz.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from viny.stages import run as stage  # isort: skip, the first import starts the clock

import numpy as np
import torch
from torch import Tensor

from viny import console, settings
from viny.data import augment
from viny.data.rows import Rows
from viny.data.store import Store
from viny.errors import command
from viny.evaluation import segmentation
from viny.models.files import save_model
from viny.models.heads import SEGMENTATION_CLASSES, Segmenter, segmentation_loss, segmentation_scores
from viny.training.streams import torch_stream

CLASSES = ("foreground", "background", "border")
_EVALUATION_BATCH = 250


class Segmentation:
    """Per-pixel classification of the rows behind the test images; measured on the test images.

    With `test_set: fixed` rows [0, test_images) are the test set and the next `images` rows are trained on. With
    `moving`, as in the authors' release, the first `images` rows are trained on and the test set follows them.
    """

    def __init__(self, request: stage.Request, store: Store, images: int, device: torch.device, seed: int):
        self.values, self.store, self.device, self.seed = request.values, store, device, seed
        self.images, self.tested = images, request.values["test_images"]
        fixed = self.values["test_set"] == "fixed"
        self.first, self.first_test = (self.tested, 0) if fixed else (0, images)
        head = torch_stream(seed, "head")
        self.model = Segmenter(stage.starting_encoder(request, seed), generator=head).to(device)
        self.rows = Rows(store.images, self.tested + images, device)
        self.masks = Rows(store.masks, self.tested + images, device)

    def draw(self, epoch: int) -> dict[str, Tensor]:
        """Order, flips and contrast of one pass; with frozen augmentation an image keeps its draw of the first."""
        order = torch.randperm(self.images, generator=torch_stream(self.seed, "order", epoch))
        if self.values["augmentation"] == "frozen":
            flips, contrast = (values[order] for values in self._augmentation("augment", 0, self.images))
        else:
            flips, contrast = self._augmentation("augment", epoch, self.images)
        return {"row": self.first + order, "flip": flips, "contrast": contrast}

    def read(self, row: Tensor) -> dict[str, Tensor]:
        """The stored images and masks."""
        return {"image": self.rows[row], "mask": self.masks[row]}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over pixels."""
        images = self._prepare(batch["image"], batch["flip"], batch["contrast"])
        truth = augment.flip(batch["mask"], batch["flip"])
        return segmentation_loss(self.model(images), truth, self.values["loss"])

    @torch.inference_mode()
    def evaluate(self) -> dict[str, Any]:
        """Loss, pixel accuracy, IoU per class, mIoU over the data set, confusion matrix.

        Beside it `miou_per_image`, the release's number: averaged over images, with absent classes as 0.
        """
        confusion = torch.zeros(SEGMENTATION_CLASSES, SEGMENTATION_CLASSES, dtype=torch.int64, device=self.device)
        loss, per_image = 0.0, []
        for images, truth in self._test_batches():
            logits = self.model(images)
            prediction = segmentation_scores(logits, self.values["loss"]).argmax(dim=1)
            loss += segmentation_loss(logits, truth, self.values["loss"]).item() * len(images)
            each = segmentation.confusion_per_image(truth, prediction, SEGMENTATION_CLASSES)
            confusion += each.sum(dim=0)
            per_image.append(segmentation.iou_per_image(each, absent="zero"))
        self.test_miou = torch.cat(per_image).cpu()
        iou = segmentation.class_iou(confusion).tolist()
        return {
            "loss": loss / self.tested,
            "pixel_accuracy": segmentation.pixel_accuracy(confusion),
            "class_iou": {name: None if math.isnan(value) else value for name, value in zip(CLASSES, iou, strict=True)},
            "miou": segmentation.mean_iou(confusion),
            "miou_per_image": self.test_miou.double().mean().item(),
            "confusion": confusion.tolist(),
        }

    @torch.inference_mode()
    def write(self, folder: Path) -> None:
        """The model, and examples: the first test images and the best, median and worst predictions."""
        save_model(self.model, folder / "model.safetensors")
        ranked = self.test_miou.argsort(descending=True).tolist()
        half = len(ranked) // 2
        chosen = {"first": range(min(4, self.tested)), "best": ranked[:2], "median": ranked[half : half + 2]}
        chosen["worst"] = ranked[-4:]
        kinds = [kind for kind, numbers in chosen.items() for _ in numbers]
        numbers = torch.tensor([number for numbers in chosen.values() for number in numbers])
        images, truth = self._test_images(numbers)
        row = (self.first_test + numbers).numpy()
        prediction = segmentation_scores(self.model(images), self.values["loss"]).argmax(dim=1)
        np.savez_compressed(
            folder / "examples.npz",
            images=(augment.denormalize(images) if self.values["normalize"] else _to_bytes(images)).cpu().numpy(),
            truth=truth.cpu().numpy(),
            prediction=prediction.byte().cpu().numpy(),
            names=np.array([self.store.names[i] for i in row]),
            iou=self.test_miou[numbers].numpy(),
            kind=np.array(kinds),
        )

    def _augmentation(self, name: str, epoch: int, count: int) -> tuple[Tensor, Tensor]:
        stream = torch_stream(self.seed, name, epoch)
        return augment.draw_flips(count, stream), augment.draw_contrast(count, self.values["contrast"], stream)

    def _prepare(self, images: Tensor, flips: Tensor, contrast: Tensor | None) -> Tensor:
        images = augment.flip(augment.unit_range(images), flips)
        if contrast is not None:
            images = augment.adjust_contrast(images, contrast)
        return augment.normalize_(images) if self.values["normalize"] else images

    def _test_images(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Input and truth of test images by their number 0..tested-1."""
        stored = self.read(self.first_test + numbers)
        flips, contrast = torch.zeros(len(numbers), dtype=torch.bool), None
        if self.values["augment_test"]:
            all_flips, all_contrast = self._augmentation("augment_test", 0, self.tested)
            flips, contrast = all_flips[numbers], all_contrast[numbers].to(self.device)
        flips = flips.to(self.device)
        return self._prepare(stored["image"], flips, contrast), augment.flip(stored["mask"], flips)

    def _test_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, self.tested, _EVALUATION_BATCH):
            yield self._test_images(torch.arange(start, min(start + _EVALUATION_BATCH, self.tested)))


def _to_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte().permute(0, 2, 3, 1)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = stage.parser("Segmentation of Oxford-IIIT Pet.", "finetune")
    parser.add_argument(
        "--images", type=stage.positive, required=True, metavar="N", help="number of labeled training images"
    )
    args = parser.parse_args(argv)
    console.open_log(args.log)
    store = Store.open(args.store)
    values, model = settings.from_args(args, "finetune"), settings.from_args(args, "model")
    stage.require(store, values["test_images"] + args.images, model["image_size"], masks=True)
    request = stage.Request("finetune", args, "finetune", values, model, stage.checksums(args, store=store))
    return stage.run(
        request, args.images, [store], lambda device, seed: Segmentation(request, store, args.images, device, seed)
    )


if __name__ == "__main__":
    sys.exit(main())
