"""SimMIM pre-training (Section 3.2): predict the pixels of masked patches from the visible ones."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from viny.config.sections import Pretraining as Settings
from viny.datasets import augment
from viny.encoders.base import Encoder, initialize, initialize_embedding, patchify, pick, unpatchify
from viny.errors import VinyError
from viny.tasks.base import TEST_BATCH, Batch, StoreTask
from viny.training.rng import torch_stream

__all__ = ["Settings", "SimMIM", "Task"]

EXAMPLES = 8


class SimMIM(nn.Module):
    """An encoder with mask token and linear decoder.

    Masks are given as an order of the patches, (B, N): for each image a permutation of 0..N-1 whose last `masked`
    entries are the masked patches, so that shapes are static.

    Args:
        mask_ratio: share of patches to mask; exactly `round(mask_ratio * N)` of them in every image.
        generator: source of the initial weights of mask token and decoder.

    Raises:
        VinyError: the ratio masks all patches or none.
    """

    def __init__(self, encoder: Encoder, mask_ratio: float = 0.5, generator: torch.Generator | None = None):
        super().__init__()
        self.encoder, self.masked = encoder, round(mask_ratio * encoder.patches)
        if not 0 < self.masked < encoder.patches:
            amount = "all" if self.masked else "none"
            raise VinyError(f"mask_ratio {mask_ratio} masks {amount} of {encoder.patches} patches")
        self.mask_token = nn.Parameter(torch.empty(encoder.width))
        self.decoder = nn.Linear(encoder.width, 3 * encoder.patch_size**2)
        initialize(self.decoder, generator, encoder.initialization)
        initialize_embedding(self.mask_token, generator, encoder.initialization)

    def forward(self, images: Tensor, order: Tensor) -> Tensor:
        """Mean absolute error over all pixels of masked patches: (B, 3, S, S) images -> a scalar."""
        target = pick(patchify(images, self.encoder.patch_size), order[:, -self.masked :])
        return (self._predict(images, order) - target).abs().mean()  # in float32: autocast leaves the target alone

    def reconstruct(self, images: Tensor, order: Tensor) -> Tensor:
        """The images with masked patches replaced by their prediction, (B, 3, S, S), normalized as the input."""
        patches, predicted = patchify(images, self.encoder.patch_size), self._predict(images, order)
        hidden = order[:, -self.masked :, None].expand_as(predicted)
        return unpatchify(patches.scatter(1, hidden, predicted.to(patches.dtype)), self.encoder.patch_size)

    def pixel_mask(self, order: Tensor) -> Tensor:
        """Which pixels are masked: (B, N) order -> (B, S, S) bool."""
        mask = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, -self.masked :], True)
        return unpatchify(mask[..., None].expand(-1, -1, self.encoder.patch_size**2), self.encoder.patch_size)[:, 0]

    def _predict(self, images: Tensor, order: Tensor) -> Tensor:
        """Pixels of the masked patches, (B, masked, 3 * patch_size * patch_size)."""
        return self.decoder(self.encoder.masked_tokens(images, order, self.masked, self.mask_token))


class Task(StoreTask):
    """Masked image modeling; the test images are those held out to measure its loss."""

    model: SimMIM

    def make_model(self) -> SimMIM:
        self._aspect = torch.from_numpy(np.array(self.store.aspect))
        return SimMIM(self.encoder, self.settings.mask_ratio, self.stream("head"))

    def sample_epoch(self, epoch: int) -> Batch:
        """Order, crops, flips and mask noise of one pass."""
        row, stream = self.shuffled(epoch), self.stream("augment", epoch)
        return {
            "row": row,
            "crop": augment.draw_crops(self._aspect[row], self.settings.crop_scale, self.settings.crop_ratio, stream),
            "flip": augment.draw_flips(self.images, stream),
            "noise": torch.rand(self.images, self.encoder.patches, generator=self.stream("mask", epoch)),
        }

    def loss(self, batch: Batch) -> Tensor:
        """The error on masked patches of randomly cropped and flipped images."""
        images = augment.crop_and_resize(batch["image"], batch["crop"], self.encoder.image_size)
        images = augment.normalize_(augment.unit_range(augment.flip(images, batch["flip"])))
        return self._scaled(self.model(images, batch["noise"].argsort(dim=1)))

    @torch.inference_mode()
    def evaluate(self) -> dict[str, Any]:
        """Loss on the held-out images, whole and with masks that are the same for every run."""
        total = 0.0
        for numbers in torch.arange(self.tests).split(TEST_BATCH):
            total += self._scaled(self.model(*self._heldout(numbers))).item() * len(numbers)
        return {"loss": total / self.tests}

    @torch.inference_mode()
    def write(self, folder: Path) -> None:
        """The encoder, and examples.npz: reconstructions of the first held-out images."""
        super().write(folder)
        count = min(EXAMPLES, self.tests)
        images, order = self._heldout(torch.arange(count))
        np.savez_compressed(
            folder / "examples.npz",
            images=augment.to_bytes(augment.denormalize(images)).cpu().numpy(),
            mask=self.model.pixel_mask(order).cpu().numpy(),
            reconstruction=augment.to_bytes(augment.denormalize(self.model.reconstruct(images, order))).cpu().numpy(),
            names=np.array(self.store.names[:count]),
        )

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss / self.model.masked if self.settings.loss == "divided_by_masked_patches" else loss

    def _heldout(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Held-out images by their number, and their patch orders."""
        images = augment.normalize_(self.fitted(self.read(self.first_test + numbers)["image"]))
        stream = torch_stream(0, "heldout", int(numbers[0]))
        noise = torch.rand(len(numbers), self.encoder.patches, generator=stream)
        return images, noise.to(self.device).argsort(dim=1)
