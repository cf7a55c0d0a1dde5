"""SimMIM pre-training (Section 3.2): predict the pixels of masked patches from the visible ones.

Masks are given as an order of the patches: for each image a permutation of 0..N-1 whose last `masked` entries are the
masked patches. Shapes are then static and only what the loss needs is computed:
only visible patches are embedded, tokens stay in that order (a transformer does not mind), and the
last block and the decoder work on masked tokens alone. Loss and gradients are those of the plain computation.
"""

import torch
from torch import Tensor, nn

from viny.errors import VinyError
from viny.models.encoder import ViNy
from viny.models.layers import initialize, patchify, unpatchify

LOSSES = ("mean", "divided_by_masked_patches")


class SimMIM(nn.Module):
    """An encoder with mask token and linear decoder.

    Args:
        encoder: the encoder to pre-train.
        mask_ratio: share of patches to mask; exactly `round(mask_ratio * N)` of them in every image.
        loss: `mean` over masked pixels (the paper's text), or `divided_by_masked_patches`, which divides that
            once more by the number of masked patches as the authors' release does.
        generator: source of the mask token's and the decoder's first weights.
    """

    def __init__(
        self,
        encoder: ViNy,
        mask_ratio: float = 0.5,
        loss: str = "mean",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if loss not in LOSSES:
            raise VinyError(f"pretrain.loss {loss!r} is unknown; choose one of {', '.join(LOSSES)}")
        self.encoder = encoder
        self.patch_size = encoder.patch_embed.patch_size[0]
        self.patches = encoder.patch_embed.num_patches
        self.masked = round(mask_ratio * self.patches)
        if not 0 < self.masked < self.patches:
            amount = "all" if self.masked else "none"
            raise VinyError(f"pretrain.mask_ratio {mask_ratio} masks {amount} of {self.patches} patches")
        self.loss = loss
        self.mask_token = nn.Parameter(torch.empty(encoder.embed_dim))
        self.decoder = nn.Linear(encoder.embed_dim, encoder.patch_embed.proj.in_features)
        initialize(self.decoder, generator, encoder.initialization)
        if encoder.initialization == "pytorch":
            nn.init.normal_(self.mask_token, generator=generator)
        else:
            nn.init.trunc_normal_(self.mask_token, std=0.02, generator=generator)

    def forward(self, images: Tensor, order: Tensor) -> Tensor:
        """Loss: mean absolute error over all pixels of masked patches, a scalar.

        Args:
            images: normalized images (B, 3, S, S).
            order: (B, N) int64, see the module's description; `random_masks` makes it.
        """
        predicted, target = self._predict(images, order)
        loss = (predicted - target).abs().mean()  # in float32: autocast leaves the target alone
        return loss / self.masked if self.loss == "divided_by_masked_patches" else loss

    def reconstruct(self, images: Tensor, order: Tensor) -> Tensor:
        """The images with masked patches replaced by their prediction, (B, 3, S, S), normalized as the input."""
        predicted, _ = self._predict(images, order)
        patches = patchify(images, self.patch_size)
        masked = order[:, -self.masked :, None].expand_as(predicted)
        return unpatchify(patches.scatter(1, masked, predicted.to(patches.dtype)), self.patch_size)

    def pixel_mask(self, order: Tensor) -> Tensor:
        """Which pixels are masked: (B, N) order -> (B, S, S) bool."""
        mask = mask_from_order(order, self.masked)[..., None].expand(-1, -1, self.patch_size**2)
        return unpatchify(mask, self.patch_size)[:, 0]

    def _predict(self, images: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Predicted and true pixels of the masked patches, both (B, masked, patch_size * patch_size * 3)."""
        b, visible = len(images), self.patches - self.masked
        patches = _reorder(patchify(images, self.patch_size), order)
        positions = _reorder(self.encoder.patch_positions.expand(b, -1, -1), order)
        embedded = self.encoder.patch_embed.embed(patches[:, :visible])
        masks = self.mask_token.expand(b, self.masked, -1).to(embedded.dtype)
        tokens = torch.cat([embedded, masks], dim=1) + positions
        return self.decoder(self.encoder.transform(tokens, slice(visible, None))), patches[:, visible:]


def random_masks(noise: Tensor) -> Tensor:
    """Random patch orders from uniform noise (B, N) -> (B, N) int64: each row a permutation, all equally likely."""
    return noise.argsort(dim=1)


def mask_from_order(order: Tensor, masked: int) -> Tensor:
    """(B, N) order -> (B, N) bool, True for the `masked` patches at the end of each row."""
    mask = torch.zeros_like(order, dtype=torch.bool)
    return mask.scatter(1, order[:, order.shape[1] - masked :], True)


def order_from_mask(mask: Tensor) -> Tensor:
    """(B, N) bool with the same number of True in every row -> (B, N) order with the masked patches last."""
    return mask.to(torch.uint8).argsort(dim=1, stable=True)


def _reorder(x: Tensor, order: Tensor) -> Tensor:
    """Reorder the rows of each sample: (B, N, D) -> (B, N, D)."""
    return x.gather(1, order[..., None].expand_as(x))
