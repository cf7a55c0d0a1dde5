"""Masked autoencoding (He et al., 2022): the encoder sees visible patches only, one more block predicts the others."""

from typing import Any

import torch
from torch import Tensor, nn

from viny.config.sections import Pretraining as Settings
from viny.encoders.base import initialize, patchify, pick
from viny.encoders.vit import Block, ViNy
from viny.tasks.base import Batch, ImageTask

__all__ = ["Settings", "Task"]


class Autoencoder(nn.Module):
    """ViNy, a block as decoder, and the mean absolute error of masked patches."""

    def __init__(self, encoder: ViNy, masked: int, generator: torch.Generator):
        super().__init__()
        self.encoder, self.masked, self.mask = encoder, masked, nn.Parameter(torch.zeros(encoder.width))
        self.decoder = Block(encoder.width, heads=2, head_width=16, mlp_width=2 * encoder.width)
        self.pixels = nn.Linear(encoder.width, 3 * encoder.patch_size**2)
        initialize(self.decoder, generator)
        initialize(self.pixels, generator)

    def forward(self, images: Tensor, order: Tensor) -> Tensor:
        patches = pick(patchify(images, self.encoder.patch_size), order)
        positions = pick(self.encoder.pos_embed[:, 1:].expand(len(images), -1, -1), order)
        tokens = self.encoder.patch_embed(patches[:, : -self.masked]) + positions[:, : -self.masked]
        for block in self.encoder.blocks:
            tokens = block(tokens)
        hidden = self.mask + positions[:, -self.masked :]
        tokens = self.decoder(torch.cat([self.encoder.norm(tokens), hidden], dim=1), slice(-self.masked, None))
        return (self.pixels(tokens) - patches[:, -self.masked :]).abs().mean()


class Task(ImageTask):
    """Pre-training; the augmentation is that of SimMIM without crops."""

    def make_model(self) -> Autoencoder:
        assert isinstance(self.encoder, ViNy)
        return Autoencoder(self.encoder, round(self.settings.mask_ratio * self.encoder.patches), self.stream("head"))

    def sample_epoch(self, epoch: int) -> Batch:
        noise = torch.rand(self.images, self.encoder.patches, generator=self.stream("mask", epoch))
        return super().sample_epoch(epoch) | {"order": noise.argsort(dim=1)}

    def loss(self, batch: Batch) -> Tensor:
        return self.model(self.prepare(batch)["image"], batch["order"])

    @torch.inference_mode()
    def evaluate(self) -> dict[str, Any]:
        noise = torch.rand(self.tests, self.encoder.patches, generator=self.stream("heldout"))
        images = torch.cat([batch["image"] for batch in self.test_batches()])
        return {"loss": self.model(images, noise.argsort(dim=1).to(self.device)).item()}
