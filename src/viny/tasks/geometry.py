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
from viny.encoders.base import Encoder
from viny.errors import VinyError
from viny.logs import log
from viny.tasks.base import TEST_BATCH, StoreTask
from viny.tasks.metrics import IGNORE, blind_answers, class_counts, majority_labels, share_right

__all__ = ["Settings", "Task"]

MAPPED_IMAGES = 4
PROBE_DECAY = 1e-5  # of squared weights, so that the best probe exists even where classes can be told apart fully
PROBE_TOLERANCE = 1e-5  # of the gradient's largest entry; the loss is of the order of 1


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
        """What was looked at, as metrics.json records it: each image once; the probe takes frozen tokens."""
        n = self.images
        return {"images": n, "epochs": 1, "steps": 0, "samples_seen": self.tests + n, "batch_size": TEST_BATCH}

    def evaluate(self) -> dict[str, Any]:
        """The scores of metrics.json.

        Accuracies are shares of the test images' patches, also `probe_chance` and `probe_chance_position`: those of the
        training patches' commonest class, and of the commonest at each place. A probe that does not beat them says
        nothing about the encoder.
        """
        self.tokens, labels = self._tokens_and_labels(self.first_test, self.tests)
        tokens, training_labels = self._tokens_and_labels(self.first, self.images)
        probe, iterations = train_probe(tokens, training_labels, len(self.classes), self.settings.probe_iterations)
        self.similarity, self.error = similarity_by_distance(self.tokens)
        within, across = variances(self.tokens)
        blind = blind_answers([training_labels], len(self.classes))
        return {
            "within_image_variance": within,
            "across_image_variance": across,
            "probe_accuracy": accuracy(probe, self.tokens, labels),
            "probe_accuracy_training": accuracy(probe, tokens, training_labels),
            "probe_iterations": iterations,
            "probe_chance": share_right(blind["majority"], labels),
            "probe_chance_position": share_right(blind["position"], labels),
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


def train_probe(tokens: Tensor, labels: Tensor, classes: int, most: int) -> tuple[nn.Linear, int]:
    """A linear classifier of tokens, trained to convergence, and the iterations that took.

    Logistic regression by L-BFGS on all tokens at once: it has one optimum, so no learning rate and no random number
    matters. Tokens are scaled to unit variance in each dimension, which the classifier takes back in the end.

    Args:
        most: iterations after which it stops in any case, with a warning.
    """
    counted = labels != IGNORE
    features, labels = tokens[counted].double(), labels[counted]
    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-12)
    features = (features - mean) / scale
    probe = nn.Linear(features.shape[1], classes, device=tokens.device, dtype=torch.float64)
    nn.init.zeros_(probe.weight)
    nn.init.zeros_(probe.bias)
    search: dict[str, Any] = {"line_search_fn": "strong_wolfe", "tolerance_change": 0.0, "history_size": 20}
    optimizer = torch.optim.LBFGS(
        probe.parameters(), max_iter=most, max_eval=2 * most, tolerance_grad=PROBE_TOLERANCE, **search
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(probe(features), labels) + PROBE_DECAY * probe.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    iterations = optimizer.state[probe.weight]["n_iter"]
    if iterations >= most:
        log.warning(f"the probe has not converged in {most:,} iterations; raise geometry.probe_iterations")
    with torch.no_grad():
        probe.weight.div_(scale)
        probe.bias.sub_(probe.weight @ mean)
    return probe.to(tokens.dtype), iterations


@torch.no_grad()
def accuracy(probe: nn.Linear, tokens: Tensor, labels: Tensor) -> float:
    """Share of the patches that count whose class the probe finds, 0..1."""
    return share_right(probe(tokens).argmax(dim=-1), labels)
