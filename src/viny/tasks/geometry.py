"""Geometry of an encoder's patch tokens (the paper's second version, its Table 2); a measurement, nothing is trained.

Everything is measured on the test images, the linear probe trained on the training images. Tokens are (N, P, D): N
images, P patches of a g x g grid in row-major order, D dimensions; their labels (N, P), some of them IGNORE.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viny.config.sections import Geometry as Settings
from viny.datasets import augment
from viny.encoders.base import Encoder, initialize
from viny.errors import VinyError
from viny.tasks.base import TEST_BATCH, StoreTask
from viny.tasks.metrics import IGNORE, class_counts, cross_entropy, majority_labels

__all__ = ["Settings", "Task"]

MAPPED_IMAGES = 4
PROBE_BATCH = 64


class Task(StoreTask):
    """Variances, similarity by distance and accuracy of a linear probe of a frozen encoder's tokens."""

    truth = "mask"
    trainable = False

    def make_model(self) -> Encoder:
        if self.tests < 2:
            raise VinyError(f"geometry compares images, and {self.tests} is too few; set test_images to 2 or more")
        return self.encoder

    @property
    def budget(self) -> dict[str, int]:
        """What the probe was given, as metrics.json records it."""
        epochs, n = self.settings.probe_epochs, self.images
        steps, seen = -(-n // PROBE_BATCH) * epochs, self.tests + n + n * epochs
        return {"images": n, "epochs": epochs, "steps": steps, "samples_seen": seen, "batch_size": PROBE_BATCH}

    def evaluate(self) -> dict[str, Any]:
        """The scores of metrics.json; accuracies are shares of patches beside `probe_chance`, their commonest class."""
        self.tokens, labels = self._tokens_and_labels(self.first_test, self.tests)
        tokens, training_labels = self._tokens_and_labels(self.first, self.images)
        probe = train_probe(tokens, training_labels, len(self.classes), self.settings, self.stream("probe"))
        self.similarity, self.error = similarity_by_distance(self.tokens)
        within, across = variances(self.tokens)
        counted = labels[labels != IGNORE]
        return {
            "within_image_variance": within,
            "across_image_variance": across,
            "probe_accuracy": accuracy(probe, self.tokens, labels),
            "probe_accuracy_training": accuracy(probe, tokens, training_labels),
            "probe_chance": int(counted.bincount().max()) / len(counted),
            "similarity_by_distance": self.similarity.tolist(),
        }

    def write(self, folder: Path) -> None:
        """similarity.npz: similarity by distance, and heat maps of some test images from one patch of each class."""
        masks = self.read(self.first_test + torch.arange(min(MAPPED_IMAGES, self.tests)))["mask"]
        chosen = [
            (number, kind, patch)
            for number, mask in enumerate(masks)
            for kind, patch in reference_patches(mask, self.encoder.patch_size, self.classes).items()
        ]
        maps = [F.cosine_similarity(self.tokens[number], self.tokens[number, [patch]]) for number, _, patch in chosen]
        side = round(self.encoder.patches**0.5)
        np.savez_compressed(
            folder / "similarity.npz",
            images=self.store.images[[self.first_test + number for number, _, _ in chosen]],
            kind=np.array([kind for _, kind, _ in chosen], dtype=str),
            reference=np.array([patch for _, _, patch in chosen], dtype=np.int64),
            maps=np.array([each.cpu().numpy().reshape(side, side) for each in maps], dtype=np.float32),
            distances=np.arange(len(self.similarity)),
            mean=self.similarity.cpu().numpy(),
            se=self.error.cpu().numpy(),
        )

    def _tokens_and_labels(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Tokens of unaugmented images, and the majority labels of their patches."""
        tokens, labels = [], []
        with torch.inference_mode():
            for numbers in torch.arange(count).split(TEST_BATCH):
                batch = self.read(first + numbers)
                tokens.append(self.encoder.patch_tokens(augment.normalize_(self.fitted(batch["image"]))))
                labels.append(majority_labels(batch["mask"], self.encoder.patch_size, len(self.classes)))
        return torch.cat(tokens).clone(), torch.cat(labels).clone()  # normal tensors, to train the probe on


def variances(tokens: Tensor) -> tuple[float, float]:
    """Variance of tokens over an image's patches, and of the mean token over images; means over all else, unbiased."""
    tokens = tokens.double()
    return tokens.var(dim=1).mean().item(), tokens.mean(dim=1).var(dim=0).mean().item()


def similarity_by_distance(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity of two patches of one image as a function of their Manhattan distance on the grid.

    Each image gives one value a distance, its mean over all such pairs; images are the sample.

    Returns:
        Mean and standard error over images for distances 0..2(g-1), both (2g - 1,) float64. Distance 0 is a patch with
        itself, 1 by definition.
    """
    n, p, _ = tokens.shape
    place = grid_places(p).to(tokens.device)
    distance = (place[:, None] - place).abs().sum(dim=-1)  # (P, P)
    pairs = F.one_hot(distance.flatten()).double()  # (P * P, distances)
    unit = F.normalize(tokens.double(), dim=-1)
    similarity = (unit @ unit.transpose(1, 2)).flatten(1)  # (N, P * P)
    by_image = similarity @ (pairs / pairs.sum(dim=0))  # (N, distances)
    return by_image.mean(dim=0), by_image.std(dim=0) / n**0.5


def grid_places(patches: int) -> Tensor:
    """Row and column of each patch, (P, 2)."""
    side = torch.arange(round(patches**0.5))
    return torch.cartesian_prod(side, side)


def reference_patches(mask: Tensor, patch_size: int, classes: list[str]) -> dict[str, int]:
    """For each class that occurs in a mask (S, S), by name, the number of the patch to compare the others with.

    It is the patch with most pixels of the class, of equals the nearest to their center; of a class `background` one of
    the four corners.
    """
    counts = class_counts(mask[None], patch_size, len(classes))[0].double().cpu()  # (P, K)
    place = grid_places(len(counts)).double()
    last, found = place.max(), {}
    corner = ((place == 0) | (place == last)).all(dim=1)
    for name, count in zip(classes, counts.T, strict=True):
        off_center = (place - (place * count[:, None]).sum(dim=0) / count.sum()).norm(dim=1)
        candidates = count * corner if name == "background" else count
        if candidates.any():  # counts are whole numbers, so less than 1 decides between equals
            found[name] = int((candidates - off_center / (2 * last + 2)).argmax())
    return found


def train_probe(
    tokens: Tensor, labels: Tensor, classes: int, settings: Settings, generator: torch.Generator
) -> nn.Linear:
    """A linear classifier of tokens; the CPU generator gives initial weights and the order of images."""
    probe = nn.Linear(tokens.shape[-1], classes)
    initialize(probe, generator)
    probe.to(tokens.device)
    optimizer = torch.optim.Adam(probe.parameters(), lr=settings.probe_learning_rate)
    for _ in range(settings.probe_epochs):
        for batch in torch.randperm(len(tokens), generator=generator).to(tokens.device).split(PROBE_BATCH):
            optimizer.zero_grad()
            cross_entropy(probe(tokens[batch]).flatten(0, 1), labels[batch].flatten()).backward()
            optimizer.step()
    return probe


@torch.no_grad()
def accuracy(probe: nn.Linear, tokens: Tensor, labels: Tensor) -> float:
    """Share of the patches that count whose class the probe finds, 0..1."""
    counted = labels != IGNORE
    return (probe(tokens).argmax(dim=-1) == labels)[counted].double().mean().item()
