"""What every encoder offers, images as patches, and how weights are drawn."""

import torch
from torch import Tensor, nn

from viny.datasets.augment import IMAGENET_MEAN, IMAGENET_STD


class Encoder(nn.Module):
    """A Vision Transformer with one token per patch; images are square and normalized with ImageNet's statistics."""

    kind = "encoder"  # what files call it
    image_size: int  # side in pixels
    patch_size: int
    patches: int  # number N of patches of an image, in row-major order
    width: int  # of a token
    initialization: str  # how weights are drawn, `timm` or `pytorch`; heads and mask token follow the encoder
    sizes: dict[str, int | str]  # the keys of the study file's `model` section that build it again
    # Mean and standard deviation per channel of the images that its weights take in timm.
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = (IMAGENET_MEAN, IMAGENET_STD)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Tokens of all patches after the final norm: (B, 3, S, S) -> (B, N, width)."""
        raise NotImplementedError

    def class_token(self, images: Tensor) -> Tensor:
        """The class token after the final norm: (B, 3, S, S) -> (B, width)."""
        raise NotImplementedError

    def masked_tokens(self, images: Tensor, order: Tensor, masked: int, mask_token: Tensor) -> Tensor:
        """Tokens of the masked patches when `mask_token` takes the place of their embeddings (SimMIM, Section 3.2).

        Args:
            images: (B, 3, S, S). mask_token: (width,).
            order: (B, N) int64, for each image a permutation of its patches whose last `masked` entries are masked.

        Returns:
            (B, masked, width) after the final norm, in the order of those entries.
        """
        raise NotImplementedError

    def set_attention(self, mode: str) -> None:
        """Choose the kernel: `fused` (PyTorch's), `explicit` (matrix products), or `auto`, fused on CUDA only."""
        raise NotImplementedError

    def adapted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict that was not written by viny, with positions for this size of image."""
        raise NotImplementedError


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into flat patches, (B, C, H, W) -> (B, N, patch_size * patch_size * C).

    Patches are in row-major order; within a patch the order is row, column, channel.
    """
    b, c, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    images = images.reshape(b, c, rows, patch_size, columns, patch_size)
    return images.permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, patch_size * patch_size * c)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse for square images, (B, N, patch_size * patch_size * C) -> (B, C, H, W)."""
    b, n, values = patches.shape
    grid, channels = round(n**0.5), values // patch_size**2
    patches = patches.reshape(b, grid, grid, patch_size, patch_size, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, grid * patch_size, grid * patch_size)


def pick(x: Tensor, index: Tensor) -> Tensor:
    """Rows of each sample by their number: (B, N, D), (B, M) int64 -> (B, M, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def initialize(module: nn.Module, generator: torch.Generator | None = None, how: str = "timm") -> None:
    """Draw the weights of Linear layers, and set those of LayerNorm to 1 and 0; other parameters are left alone.

    Args:
        how: `timm`, as timm does for Vision Transformers: truncated normal 0.02, biases 0; `pytorch`, as nn.Linear
            does by itself: weights and biases uniform within 1 / sqrt(inputs).
    """
    for part in module.modules():
        if isinstance(part, nn.LayerNorm):
            part.reset_parameters()
        elif isinstance(part, nn.Linear) and how == "pytorch":
            bound = part.in_features**-0.5
            for values in part.parameters():
                nn.init.uniform_(values, -bound, bound, generator=generator)
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def initialize_embedding(values: Tensor, generator: torch.Generator | None, how: str) -> None:
    """Draw an embedding in place: truncated normal 0.02 (`timm`), or standard normal (`pytorch`)."""
    if how == "pytorch":
        nn.init.normal_(values, generator=generator)
    else:
        nn.init.trunc_normal_(values, std=0.02, generator=generator)
