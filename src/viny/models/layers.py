"""Parts of ViNy that differ from timm's: patch embedding with two LayerNorms, block; how weights are drawn."""

import torch
from timm.layers import Mlp, PatchEmbed
from torch import Tensor, nn

from viny.models.attention import Attention

NORM_EPS = 1e-5
INITIALIZATIONS = ("timm", "pytorch")


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into flat patches, (B, C, H, W) -> (B, N, patch_size * patch_size * C).

    Patches are in row-major order; within a patch the order is row, column, channel.
    """
    b, c, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    images = images.reshape(b, c, rows, patch_size, columns, patch_size)
    return images.permute(0, 2, 4, 3, 5, 1).reshape(b, rows * columns, patch_size * patch_size * c)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """Put the patches of square images together again, (B, N, patch_size * patch_size * C) -> (B, C, H, W)."""
    b, n, values = patches.shape
    grid, channels = round(n**0.5), values // patch_size**2
    patches = patches.reshape(b, grid, grid, patch_size, patch_size, channels)
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, grid * patch_size, grid * patch_size)


class NormPatchEmbed(PatchEmbed):
    """Flat patch -> LayerNorm -> Linear -> LayerNorm (timm's is a convolution without the norms)."""

    def __init__(self, img_size: int, patch_size: int, in_chans: int, embed_dim: int, **_unused):
        nn.Module.__init__(self)
        self.patch_size = (patch_size, patch_size)
        self.img_size, self.grid_size, self.num_patches = self._init_img_size(img_size)
        self.dynamic_img_pad = False
        values = patch_size * patch_size * in_chans
        self.norm_in = nn.LayerNorm(values, eps=NORM_EPS)
        self.proj = nn.Linear(values, embed_dim)
        self.norm = nn.LayerNorm(embed_dim, eps=NORM_EPS)

    def embed(self, patches: Tensor) -> Tensor:
        """Flat patches (B, any number, patch_size * patch_size * C) -> tokens (B, same number, width)."""
        return self.norm(self.proj(self.norm_in(patches)))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, S, S) -> tokens (B, N, width)."""
        if images.shape[-2:] != self.img_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, the model takes {self.img_size}")
        return self.embed(patchify(images, self.patch_size[0]))


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP (exact GELU), each with a residual; no dropout."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, mlp_dim: int, mode: str = "auto"):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, head_dim, mode)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, mlp_dim)

    def forward(self, tokens: Tensor, asking: slice | None = None) -> Tensor:
        """Tokens (B, N, width) -> new values of the tokens `asking` (all, if None), (B, asking, width)."""
        kept = tokens if asking is None else tokens[:, asking]
        kept = kept + self.attn(self.norm1(tokens), asking)
        return kept + self.mlp(self.norm2(kept))


def initialize(module: nn.Module, generator: torch.Generator | None = None, how: str = "timm") -> None:
    """Draw the weights of Linear layers, and set those of LayerNorm to 1 and 0; other parameters are left alone.

    The same generator state gives the same weights.

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
