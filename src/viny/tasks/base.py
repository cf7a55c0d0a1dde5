"""What a task is, and what tasks on images have in common.

A task is a module of this package with `Settings`, its section of the study file, and a class `Task`. Most tasks derive
it from `ImageTask` and name the head that they train and its truth; `patches` is the shortest example.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from viny.datasets import augment
from viny.datasets.rows import Rows
from viny.datasets.store import Store
from viny.encoders.base import Encoder
from viny.encoders.checkpoints import save_model, write_timm_config
from viny.encoders.heads import Head
from viny.errors import VinyError
from viny.tasks.metrics import IGNORE, blind_answers, cross_entropy, share_right
from viny.training.rng import torch_stream

Batch = dict[str, Tensor]
TEST_BATCH = 250


@dataclass(frozen=True)
class Context:
    """What a task is given."""

    settings: Any  # the job's section of the study file, a `Settings` of the task
    store: Store
    encoder: Encoder  # where training starts, on the device
    device: torch.device
    seed: int
    images: int  # number of training images
    tests: int  # number of test images
    checkpoint: str = ""  # name of the file of weights; that of the task if empty
    share: float = 1.0  # of the GPU's memory; the rest is for the jobs beside it


class StoreTask:
    """A task on a store: trained on the images behind the test images, measured on the test images.

    With `test_set: moving`, as in the released code, the first `images` rows are trained on and the test images follow.

    Attributes:
        classes: names of the classes of the truth.
        model: what is trained, on the device.

    Raises:
        VinyError: the store lacks images, labels or masks that the task needs, or has no pixel that counts.
    """

    truth: str = ""  # what it reads beside the images, `label` (of images), `mask` or nothing
    trainable = True  # false for a measurement
    checkpoint = "encoder.safetensors"  # file of weights; `model.safetensors` holds the whole model, others the encoder

    def __init__(self, context: Context):
        self.settings, self.store, self.encoder = context.settings, context.store, context.encoder
        self.device, self.seed, self.images, self.tests = context.device, context.seed, context.images, context.tests
        self.checkpoint = context.checkpoint or self.checkpoint
        self.first, self.first_test = self.store.tests, 0
        if getattr(self.settings, "test_set", "fixed") == "moving":
            self.first, self.first_test = 0, self.images
        used = max(self.first + self.images, self.first_test + self.tests)
        if self.store.count < used:
            raise VinyError(f"{self.store.folder} holds {self.store.count:,} images, but {used:,} are needed")
        arrays = {"image": self.store.images} | ({self.truth: self._truth()} if self.truth else {})
        self._rows = {name: Rows(array, used, self.device, context.share) for name, array in arrays.items()}
        self.classes = {"label": self.store.classes, "mask": self.store.mask_classes}.get(self.truth, [])
        self.model = self.make_model().to(self.device)

    def make_model(self) -> nn.Module:
        """The model on `self.encoder`; its other weights are drawn from `self.stream("head")`."""
        raise NotImplementedError

    def stream(self, *names: str | int) -> torch.Generator:
        """A source of random numbers, for each name another."""
        return torch_stream(self.seed, *names)

    def shuffled(self, epoch: int) -> Tensor:
        """The rows of the training images in the order of pass `epoch`."""
        return self.first + torch.randperm(self.images, generator=self.stream("order", epoch))

    def read(self, rows: Tensor) -> Batch:
        """The stored images (B, S, S, 3) and their truth, on the device."""
        return {name: values[rows] for name, values in self._rows.items()}

    def prefetch(self, rows: Tensor) -> None:
        """Have what is to be read next brought from the disk."""
        for values in self._rows.values():
            values.prefetch(rows)

    def fitted(self, images: Tensor) -> Tensor:
        """Whole stored images (B, S, S, 3) at the encoder's size, (B, 3, s, s) in 0..1."""
        size = self.encoder.image_size
        if images.shape[1] != size:
            whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=images.device).expand(len(images), 4)
            images = augment.crop_and_resize(images, whole, size)
        return augment.unit_range(images)

    def write(self, folder: Path) -> None:
        """Write the weights into `folder`, the encoder's or the whole model's, and the config.json that timm reads."""
        whole = self.checkpoint == "model.safetensors"
        save_model(self.model if whole else self.encoder, folder / self.checkpoint)
        if not (whole and "timm" in self.encoder.sizes):  # whose names timm does not know
            class_token = getattr(self.model, "uses_class_token", False)
            write_timm_config(folder, self.encoder, class_token, getattr(self.settings, "normalize", True))

    def _truth(self) -> np.ndarray:
        """The labels or masks of all rows, once they are known to be of use."""
        store, size = self.store, self.encoder.image_size
        array = store.labels if self.truth == "label" else store.masks
        if array is None:
            raise VinyError(f"{store.folder} holds images of {store.name} without {self.truth}s; name a set with them")
        if self.truth == "mask":
            if store.pixels != size:
                raise VinyError(f"{store.folder} holds masks of {store.pixels} pixels, but model.image_size is {size}")
            for first, count, of in ((self.first, self.images, "training"), (self.first_test, self.tests, "test")):
                if all((mask == IGNORE).all() for mask in array[first : first + count]):
                    raise VinyError(
                        f"{store.folder}: the {count:,} {of} images of {store.name} have no pixel that is not ignored"
                    )
        return array


class ImageTask(StoreTask):
    """A task with flips and contrast jitter as augmentation that classifies images, patches or pixels."""

    head: type[Head]  # with the encoder, the model, unless the task makes another
    ignored = IGNORE  # label of what counts neither in the loss nor in the metrics

    def make_model(self) -> nn.Module:
        return self.head(self.encoder, len(self.classes), self.stream("head"))

    def labels(self, batch: Batch) -> Tensor:
        """Labels of what the model classifies, (B, ...) class numbers or `ignored`, from a batch with its truth."""
        return batch[self.truth]

    def sample_epoch(self, epoch: int) -> Batch:
        """All random numbers of a pass (0-based), on the CPU: the rows in their order, flips and contrast."""
        return {"row": self.shuffled(epoch)} | self.draw("augment", epoch, self.images)

    def draw(self, name: str, epoch: int, count: int) -> Batch:
        """Flips and contrast of `count` images, from the stream `name`."""
        stream, strength = self.stream(name, epoch), getattr(self.settings, "contrast", 0.0)
        flips = augment.draw_flips(count, stream)
        return {"flip": flips, "contrast": augment.draw_contrast(count, strength, stream)}

    def prepare(self, batch: Batch) -> Batch:
        """The model's input (B, 3, S, S) in place of stored images; flips and contrast, if there are, are applied."""
        images, changed = self.fitted(batch["image"]), {}
        if "flip" in batch:
            images = augment.adjust_contrast(augment.flip(images, batch["flip"]), batch["contrast"])
            if "mask" in batch:
                changed["mask"] = augment.flip(batch["mask"], batch["flip"])
        changed["image"] = augment.normalize_(images) if getattr(self.settings, "normalize", True) else images
        return batch | changed

    def scores(self, images: Tensor) -> Tensor:
        """What loss and argmax are taken on, with classes second: (B, 3, S, S) -> (B, K, ...)."""
        logits = self.model(images)
        return logits.mT if logits.dim() == 3 else logits

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy over the labels that count, a scalar."""
        batch = self.prepare(batch)
        return cross_entropy(self.scores(batch["image"]), self.labels(batch), self.ignored)

    def test_batches(self) -> Iterator[Batch]:
        """All test images with their truth, as the model takes them."""
        for numbers in torch.arange(self.tests).split(TEST_BATCH):
            yield self.test_batch(numbers)

    def test_batch(self, numbers: Tensor) -> Batch:
        """Test images by their number 0..tests-1."""
        return self.prepare(self.read(self.first_test + numbers))

    def training_labels(self) -> Iterator[Tensor]:
        """The labels of all training images without augmentation, (B, ...) a batch."""
        for numbers in torch.arange(self.images).split(TEST_BATCH):
            yield self.labels(self.prepare(self.read(self.first + numbers)))

    @torch.inference_mode()
    def evaluate(self) -> dict[str, Any]:
        """Loss and accuracy on the test images.

        Beside them `chance`, the accuracy of the training labels' commonest class, and for several labels an image
        `chance_position`, that of the commonest at each place.
        """
        loss, found, truth = 0.0, [], []
        for batch in self.test_batches():
            scores, labels = self.scores(batch["image"]), self.labels(batch).long()
            loss += cross_entropy(scores, labels, self.ignored).item() * int((labels != self.ignored).sum())
            found.append(scores.argmax(dim=1))
            truth.append(labels)
        labels = torch.cat(truth)
        blind = blind_answers(self.training_labels(), scores.shape[1], self.ignored)
        right = {name: share_right(answers, labels, self.ignored) for name, answers in blind.items()}
        chance = {"chance": right.pop("majority")} | {f"chance_{name}": share for name, share in right.items()}
        accuracy = share_right(torch.cat(found), labels, self.ignored)
        return {"loss": loss / int((labels != self.ignored).sum()), "accuracy": accuracy, **chance}
