"""Linear heads on an encoder: classes of images, of patches, of pixels (Sections 3.3 and 3.4)."""

import torch
from torch import Tensor, nn

from viny.encoders.base import Encoder, initialize, unpatchify


class Head(nn.Module):
    """An encoder and a linear layer on its tokens, with initial weights from `generator`."""

    kind: str  # its name in files
    dense = False  # whether a token classifies all pixels of its patch
    uses_class_token = False

    def __init__(self, encoder: Encoder, classes: int, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.head = nn.Linear(encoder.width, classes * (encoder.patch_size**2 if self.dense else 1))
        initialize(self.head, generator, encoder.initialization)


class Classifier(Head):
    """Images (B, 3, S, S) -> class logits (B, classes), from the class token."""

    kind = "classifier"
    uses_class_token = True

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder.class_token(images))


class PatchClassifier(Head):
    """Images (B, 3, S, S) -> patch logits (B, N, classes)."""

    kind = "patch_classifier"

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder.patch_tokens(images))


class Segmenter(Head):
    """Images (B, 3, S, S) -> pixel logits (B, classes, S, S), each pixel's from the token of its patch."""

    kind = "segmenter"
    dense = True

    def forward(self, images: Tensor) -> Tensor:
        return unpatchify(self.head(self.encoder.patch_tokens(images)), self.encoder.patch_size)


HEADS: dict[str, type[Head]] = {head.kind: head for head in (Classifier, PatchClassifier, Segmenter)}
