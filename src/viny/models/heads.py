"""Heads on the encoder and their losses: classification, segmentation, per-patch classification (Section 3.2)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viny.models.encoder import ViNy
from viny.models.layers import initialize, unpatchify

SEGMENTATION_CLASSES = 3  # foreground, background, ambiguous border
SEGMENTATION_LOSSES = ("per_pixel", "log_softmax_over_pixels")


class Classifier(nn.Module):
    """Encoder and a linear layer on its class token."""

    def __init__(self, encoder: ViNy, classes: int, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.head = nn.Linear(encoder.embed_dim, classes)
        initialize(self.head, generator, encoder.initialization)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> class logits (B, classes)."""
        return self.head(self.encoder.class_token(images))


class Segmenter(nn.Module):
    """Encoder and a linear layer that turns each patch token into class logits of the patch's pixels."""

    def __init__(self, encoder: ViNy, classes: int = SEGMENTATION_CLASSES, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.patch_size = encoder.patch_embed.patch_size[0]
        self.head = nn.Linear(encoder.embed_dim, self.patch_size**2 * classes)
        initialize(self.head, generator, encoder.initialization)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> pixel logits (B, classes, S, S)."""
        return unpatchify(self.head(self.encoder.patch_tokens(images)), self.patch_size)


class PatchClassifier(nn.Module):
    """Encoder and a linear layer that gives each patch token class logits (`spatial_pets` of the second version)."""

    def __init__(self, encoder: ViNy, classes: int = SEGMENTATION_CLASSES, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.head = nn.Linear(encoder.embed_dim, classes)
        initialize(self.head, generator, encoder.initialization)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, S, S) -> patch logits (B, N, classes)."""
        return self.head(self.encoder.patch_tokens(images))


def classification_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of (B, classes) logits against labels (B,) or soft targets (B, classes)."""
    return F.cross_entropy(logits.float(), targets)


def mixup_targets(labels: Tensor, partners: Tensor, share: Tensor | float, classes: int) -> Tensor:
    """Soft targets of MixUp: `share` of the own label and the rest of the partner's, (B,), (B,) -> (B, classes)."""
    numbers = torch.arange(classes, device=labels.device)
    own, other = ((x[:, None] == numbers).float() for x in (labels, partners))
    return share * own + (1 - share) * other


def patch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of (B, N, classes) patch logits against (B, N) labels."""
    return F.cross_entropy(logits.float().flatten(0, 1), labels.long().flatten())


def segmentation_scores(logits: Tensor, loss: str = "per_pixel") -> Tensor:
    """What loss and argmax are taken on, (B, classes, S, S) -> the same shape, float32.

    `per_pixel` leaves the logits alone. `log_softmax_over_pixels` is the authors' release: a log-softmax over the
    pixels of each class, so that classes compete for pixels before they compete within one.
    """
    if loss == "per_pixel":
        return logits.float()
    if loss == "log_softmax_over_pixels":
        return logits.float().flatten(2).log_softmax(dim=-1).view_as(logits)
    raise ValueError(f"loss {loss!r} is not one of {SEGMENTATION_LOSSES}")


def segmentation_loss(logits: Tensor, truth: Tensor, loss: str = "per_pixel") -> Tensor:
    """Mean per-pixel cross-entropy over classes of (B, classes, S, S) logits against (B, S, S) labels."""
    return F.cross_entropy(segmentation_scores(logits, loss), truth.long())
