"""Geometry of patch tokens, as in the second version of the paper.

Tokens are (N, P, D): N images, P patches of a square grid in row-major order, D dimensions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viny.models.heads import SEGMENTATION_CLASSES, patch_loss
from viny.models.layers import initialize

FOREGROUND, BACKGROUND, BORDER = range(3)


def within_image_variance(tokens: Tensor) -> float:
    """Variance over an image's patches (divided by P - 1), mean over images and dimensions."""
    return tokens.double().var(dim=1).mean().item()


def across_image_variance(tokens: Tensor) -> float:
    """Variance over images of the mean token of each image (divided by N - 1), mean over dimensions."""
    return tokens.double().mean(dim=1).var(dim=0).mean().item()


def similarity_by_distance(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine similarity of two patches of one image as a function of their Manhattan distance on the grid.

    Each image gives one value a distance, its mean over all such pairs; images are the sample.

    Returns:
        Mean and standard error over images for distances 0..2(g-1), both (2g - 1,) float64; g = sqrt(P).
        Distance 0 is a patch with itself, 1 by definition. The error is NaN for a single image.
    """
    n, p, _ = tokens.shape
    side = torch.arange(p, device=tokens.device)
    row, column = side // grid_side(p), side % grid_side(p)
    distance = (row[:, None] - row).abs() + (column[:, None] - column).abs()  # (P, P)
    pairs = F.one_hot(distance.flatten()).double()  # (P * P, distances)
    unit = F.normalize(tokens.double(), dim=-1)
    similarity = (unit @ unit.transpose(1, 2)).flatten(1)  # (N, P * P)
    by_image = similarity @ (pairs / pairs.sum(dim=0))  # (N, distances)
    error = by_image.std(dim=0) / n**0.5 if n > 1 else torch.full_like(by_image[0], torch.nan)
    return by_image.mean(dim=0), error


def similarity_map(tokens: Tensor, reference: int) -> Tensor:
    """Cosine similarity of one image's patch `reference` to all its patches: (P, D) -> (g, g)."""
    side = grid_side(len(tokens))
    return F.cosine_similarity(tokens, tokens[reference][None], dim=-1).view(side, side)


def grid_side(patches: int) -> int:
    """Side g of the square grid that `patches` patches form."""
    side = round(patches**0.5)
    if side * side != patches:
        raise ValueError(f"{patches} patches do not form a square grid")
    return side


def class_shares(masks: Tensor, patch_size: int, classes: int = SEGMENTATION_CLASSES) -> Tensor:
    """Share of each class among the pixels of each patch: (N, S, S) labels -> (N, P, classes), 0..1."""
    return _class_counts(masks, patch_size, classes).double() / patch_size**2


def majority_labels(masks: Tensor, patch_size: int, classes: int = SEGMENTATION_CLASSES) -> Tensor:
    """Most frequent class of each patch, of equals the lower number: (N, S, S) labels -> (N, P) int64."""
    counts = _class_counts(masks, patch_size, classes)
    return (counts * classes - torch.arange(classes, device=masks.device)).argmax(dim=-1)


def reference_patches(mask: Tensor, patch_size: int) -> dict[str, int]:
    """Patches whose similarity maps are worth a look: one background corner, foreground interior and border patch.

    Of the four corners the one with most background; of all patches the one with most foreground, of equals the one
    nearest to the foreground's center; and the one with most border pixels. A kind whose class does not occur
    there is left out.

    Args:
        mask: (S, S) labels 0 foreground, 1 background, 2 border.
        patch_size: pixels.

    Returns:
        `background`, `foreground`, `border` -> patch number, row-major.
    """
    shares = class_shares(mask[None], patch_size)[0].cpu()  # (P, 3)
    side = grid_side(len(shares))
    corners = torch.tensor([0, side - 1, side * (side - 1), side * side - 1])
    found = {}
    if (background := shares[corners, BACKGROUND]).max() > 0:
        found["background"] = corners[background.argmax()].item()
    if (foreground := shares[:, FOREGROUND]).max() > 0:
        place = torch.stack([torch.arange(len(shares)) // side, torch.arange(len(shares)) % side], dim=1).double()
        center = (place * foreground[:, None]).sum(dim=0) / foreground.sum()
        off_center = (place - center).norm(dim=1)
        found["foreground"] = torch.where(foreground == foreground.max(), off_center, torch.inf).argmin().item()
    if (border := shares[:, BORDER]).max() > 0:
        found["border"] = border.argmax().item()
    return found


@dataclass(frozen=True)
class ProbeAccuracy:
    """Share of patches that the linear probe gets right, 0..1: on held-out images and on those it was trained on."""

    held_out: float
    training: float


def probe_accuracy(
    tokens: Tensor,
    labels: Tensor,
    held_out_tokens: Tensor,
    held_out_labels: Tensor,
    epochs: int = 5,
    learning_rate: float = 1e-2,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> ProbeAccuracy:
    """Train a linear classifier of patch tokens with Adam, the encoder frozen, and measure it.

    Args:
        tokens: (N, P, D) of the training images; held_out_tokens: of other images.
        labels: (N, P) classes, see `majority_labels`; held_out_labels alike.
        epochs: passes over the training images.
        learning_rate: of Adam.
        batch_size: images in an update.
        generator: CPU generator of the probe's first weights and the order of images.
    """
    probe = nn.Linear(tokens.shape[-1], SEGMENTATION_CLASSES)
    initialize(probe, generator)
    probe.to(tokens.device)
    optimizer = torch.optim.Adam(probe.parameters(), lr=learning_rate)
    for _ in range(epochs):
        for batch in torch.randperm(len(tokens), generator=generator).to(tokens.device).split(batch_size):
            optimizer.zero_grad()
            patch_loss(probe(tokens[batch]), labels[batch]).backward()
            optimizer.step()
    with torch.no_grad():
        shares = [
            (probe(x).argmax(dim=-1) == y).double().mean().item()
            for x, y in ((held_out_tokens, held_out_labels), (tokens, labels))
        ]
    return ProbeAccuracy(*shares)


def _class_counts(masks: Tensor, patch_size: int, classes: int) -> Tensor:
    """Pixels of each class in each patch: (N, S, S) -> (N, P, classes) int64."""
    n, height, width = masks.shape
    rows, columns = height // patch_size, width // patch_size
    cells = masks.view(n, rows, patch_size, columns, patch_size).transpose(2, 3).flatten(3).flatten(1, 2)
    return torch.stack([(cells == label).sum(dim=-1) for label in range(classes)], dim=-1)
