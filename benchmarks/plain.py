"""The study's arithmetic written plainly, as a peer to measure against and to check against.

Every patch is embedded, masked or not, all tokens go through all of every block, attention is two matrix products and
a softmax, everything is predicted and the loss picks the masked patches. Parameters have viny's names, so that
`load_state_dict` makes both compute the same.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads, self.scale = heads, head_width**-0.5
        self.qkv = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.proj = nn.Linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        b, n, _ = x.shape
        q, k, v = (part.view(b, n, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        weights = torch.softmax(q @ k.transpose(2, 3) * self.scale, dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


class Mlp(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, width: int, heads: int, head_width: int, hidden: int):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), Attention(width, heads, head_width)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> (B, N, width)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    """Flat patches between two norms."""

    def __init__(self, patch: int, width: int):
        super().__init__()
        self.patch = patch
        self.norm_in, self.proj = nn.LayerNorm(3 * patch**2), nn.Linear(3 * patch**2, width)
        self.norm = nn.LayerNorm(width)

    def cut(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, N, patch * patch * 3)."""
        b, c, s, _ = images.shape
        grid = images.view(b, c, s // self.patch, self.patch, s // self.patch, self.patch)
        return grid.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, self.patch**2 * c)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, N, patch * patch * 3) -> (B, N, width)."""
        return self.norm(self.proj(self.norm_in(patches)))


class Encoder(nn.Module):
    """The Vision Transformer, from the settings of `model`."""

    def __init__(self, *, image_size=128, patch_size=16, width=128, depth=12, heads=8, head_width=64, mlp_width=512):
        super().__init__()
        self.patch_embed = PatchEmbed(patch_size, width)
        self.pos_embed = nn.Parameter(torch.randn(1, (image_size // patch_size) ** 2 + 1, width) * 0.02)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.Sequential(*(Block(width, heads, head_width, mlp_width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embedded patches (B, N, width) -> tokens (B, N, width)."""
        return self.norm(self.blocks(tokens + self.pos_embed[:, 1:]))


class SimMIM(nn.Module):
    """Masked image modeling."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(encoder.norm.weight.shape))
        self.decoder = nn.Linear(len(encoder.norm.weight), encoder.patch_embed.proj.in_features)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Images (B, 3, S, S), mask (B, N) bool -> mean absolute error over the pixels of masked patches."""
        patches = self.encoder.patch_embed.cut(images)
        tokens = torch.where(mask[..., None], self.mask_token, self.encoder.patch_embed(patches))
        return F.l1_loss(self.decoder(self.encoder(tokens))[mask], patches[mask])


class Segmenter(nn.Module):
    """Per-pixel classification."""

    def __init__(self, encoder: Encoder, classes: int = 3):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.head = nn.Linear(len(encoder.norm.weight), encoder.patch_embed.patch**2 * classes)

    def forward(self, images: Tensor, truth: Tensor) -> Tensor:
        """Images (B, 3, S, S), truth (B, S, S) int64 -> mean cross-entropy over pixels."""
        patch, b, s = self.encoder.patch_embed.patch, len(images), images.shape[-1]
        logits = self.head(self.encoder(self.encoder.patch_embed(self.encoder.patch_embed.cut(images))))
        logits = logits.view(b, s // patch, s // patch, patch, patch, self.classes)
        return F.cross_entropy(logits.permute(0, 5, 1, 3, 2, 4).reshape(b, self.classes, s, s), truth)
