"""ViNy, the paper's small Vision Transformer (Section 3.1): 4,842,880 parameters at its own sizes.

Heads have a width of their own, and the patch embedding lies between two LayerNorms. Parameter names are timm's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from viny.encoders.base import Encoder, initialize, initialize_embedding, patchify, pick
from viny.errors import VinyError

NORM_EPS = 1e-5


class ViNy(Encoder):
    """The encoder; its class token takes part in `class_token` only, as in SimMIM and segmentation it is absent.

    Sizes are those of the study file's section `model`; initial weights come from `generator`, see `initialize`.

    Raises:
        VinyError: the patches do not fill the image.
    """

    def __init__(
        self,
        image_size: int = 128,
        patch_size: int = 16,
        width: int = 128,
        depth: int = 12,
        heads: int = 8,
        head_width: int = 64,
        mlp_width: int = 512,
        initialization: str = "timm",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if image_size % patch_size:
            raise VinyError(
                f"model: image_size {image_size} is not a multiple of patch_size {patch_size}; choose sizes that divide"
            )
        self.image_size, self.patch_size, self.width = image_size, patch_size, width
        self.patches, self.initialization = (image_size // patch_size) ** 2, initialization
        self.sizes = {"image_size": image_size, "patch_size": patch_size, "width": width, "depth": depth}
        self.sizes |= {"heads": heads, "head_width": head_width, "mlp_width": mlp_width}
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.patches, width))
        self.patch_embed = PatchEmbed(patch_size, width)
        self.blocks = nn.ModuleList(Block(width, heads, head_width, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        initialize(self, generator, initialization)
        initialize_embedding(self.pos_embed, generator, initialization)
        nn.init.normal_(self.cls_token, std=1.0 if initialization == "pytorch" else 1e-6, generator=generator)

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self._transform(self.patch_embed(self._patchify(images)) + self.pos_embed[:, 1:])

    def class_token(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(self._patchify(images))
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self._transform(tokens, slice(0, 1))[:, 0]

    def masked_tokens(self, images: Tensor, order: Tensor, masked: int, mask_token: Tensor) -> Tensor:
        # Tokens stay in the given order, so shapes are static, and only visible patches are embedded.
        visible = self.patches - masked
        embedded = self.patch_embed(pick(self._patchify(images), order[:, :visible]))
        masks = mask_token.expand(len(images), masked, -1).to(embedded.dtype)
        positions = pick(self.pos_embed[:, 1:].expand(len(images), -1, -1), order)
        return self._transform(torch.cat([embedded, masks], dim=1) + positions, slice(visible, None))

    def set_attention(self, mode: str) -> None:
        for part in self.modules():
            if isinstance(part, Attention):
                part.mode = mode

    def _patchify(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, the model takes {self.image_size}")
        return patchify(images, self.patch_size)

    def _transform(self, tokens: Tensor, queries: slice | None = None) -> Tensor:
        """All blocks and the final norm; the last block computes the tokens `queries` alone, which changes no value."""
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        return self.norm(last(tokens, queries))


class PatchEmbed(nn.Module):
    """Flat patches (B, N, patch_size * patch_size * 3) -> LayerNorm -> Linear -> LayerNorm, (B, N, width)."""

    def __init__(self, patch_size: int, width: int):
        super().__init__()
        values = patch_size * patch_size * 3
        self.norm_in = nn.LayerNorm(values, eps=NORM_EPS)
        self.proj = nn.Linear(values, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)

    def forward(self, patches: Tensor) -> Tensor:
        return self.norm(self.proj(self.norm_in(patches)))


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP, each with a residual; no dropout."""

    def __init__(self, width: int, heads: int, head_width: int, mlp_width: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads, head_width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens: Tensor, queries: slice | None = None) -> Tensor:
        """Tokens (B, N, width) -> new values of the tokens `queries` (all, if None), (B, queries, width)."""
        kept = tokens if queries is None else tokens[:, queries]
        kept = kept + self.attn(self.norm1(tokens), queries)
        return kept + self.mlp(self.norm2(kept))


class Attention(nn.Module):
    """Multi-head self-attention; qkv without bias, rows ordered q, k, v.

    `mode` says how softmax(QK)V is computed, not what; `auto` is fused on CUDA and explicit elsewhere.
    """

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads, self.head_width, self.mode = heads, head_width, "auto"
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.proj = nn.Linear(heads * head_width, width)

    def forward(self, tokens: Tensor, queries: slice | None = None) -> Tensor:
        """Let the tokens `queries` (all, if None) attend to all `tokens`, (B, N, width) -> (B, queries, width)."""
        if queries is None:
            q, k, v = self._by_head(self.qkv(tokens))
        else:
            inner = self.heads * self.head_width
            (q,) = self._by_head(F.linear(tokens[:, queries], self.qkv.weight[:inner]))
            k, v = self._by_head(F.linear(tokens, self.qkv.weight[inner:]))
        if self.mode == "fused" or (self.mode == "auto" and tokens.is_cuda):
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q * self.head_width**-0.5) @ k.mT
            mixed = scores.softmax(dim=-1, dtype=scores.dtype) @ v  # autocast would widen it
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, N, parts * heads * head_width) -> (parts, B, heads, N, head_width), copied once for all products."""
        return x.unflatten(2, (-1, self.heads, self.head_width)).permute(2, 0, 3, 1, 4).contiguous()


class Mlp(nn.Module):
    """Linear -> exact GELU -> Linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))
