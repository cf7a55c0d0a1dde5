"""The released architecture written plainly from its description, with the release's tensor names.

Shares no code with viny: einsum attention, patches cut with loops, all tokens through all layers.
"""

import torch
from torch import nn
from torch.nn import functional as F


class PlainAttention(nn.Module):
    def __init__(self, width, heads, head_width):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.layernorm = nn.LayerNorm(width)
        self.to_qkv = nn.Linear(width, heads * head_width * 3, bias=False)
        self.fc_out = nn.Sequential(nn.Linear(heads * head_width, width), nn.Dropout(0.0))

    def forward(self, x):
        inner = self.heads * self.head_width
        qkv = self.to_qkv(self.layernorm(x))
        out = []
        for head in range(self.heads):
            at = head * self.head_width
            q, k, v = (qkv[..., part * inner + at : part * inner + at + self.head_width] for part in range(3))
            weights = torch.softmax(torch.einsum("bid,bjd->bij", q, k) / self.head_width**0.5, dim=2)
            out.append(torch.einsum("bij,bjd->bid", weights, v))
        return self.fc_out(torch.cat(out, dim=2))


class PlainMlp(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.network = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Dropout(0.0),
            nn.Linear(hidden, width),
            nn.Dropout(0.0),
        )

    def forward(self, x):
        return self.network(x)


class PlainTransformer(nn.Module):
    def __init__(self, width, depth, heads, head_width, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.ModuleList([PlainAttention(width, heads, head_width), PlainMlp(width, hidden)]) for _ in range(depth)
        )

    def forward(self, x):
        for attention, mlp in self.layers:
            x = attention(x) + x
            x = mlp(x) + x
        return self.norm(x)


class Flatten(nn.Module):
    def __init__(self, patch):
        super().__init__()
        self.patch = patch

    def forward(self, images):
        p = self.patch
        rows = []
        for top in range(0, images.shape[2], p):
            for left in range(0, images.shape[3], p):
                block = images[:, :, top : top + p, left : left + p]
                rows.append(block.permute(0, 2, 3, 1).flatten(1))
        return torch.stack(rows, dim=1)


class PlainVit(nn.Module):
    def __init__(self, image=128, patch=16, width=128, depth=12, heads=8, head_width=64, hidden=512, classes=0):
        super().__init__()
        values, patches = patch * patch * 3, (image // patch) ** 2
        self.to_patch_embedding = nn.Sequential(
            Flatten(patch), nn.LayerNorm(values), nn.Linear(values, width), nn.LayerNorm(width)
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, patches + 1, width))
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.transformer = PlainTransformer(width, depth, heads, head_width, hidden)
        if classes:
            self.head = nn.Linear(width, classes)

    def patch_tokens(self, images):
        return self.transformer(self.to_patch_embedding(images) + self.pos_embedding[:, 1:])

    def class_token(self, images):
        tokens = self.to_patch_embedding(images)
        tokens = torch.cat([self.cls_token.expand(len(images), 1, -1), tokens], dim=1) + self.pos_embedding
        return self.transformer(tokens)[:, 0]


class PlainSimMIM(nn.Module):
    """Mask token in place of the embedding of each masked patch; everything is computed for all patches."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder
        _, linear = encoder.to_patch_embedding[1:3]
        self.mask_token = nn.Parameter(torch.randn(linear.out_features))
        self.decoder = nn.Linear(linear.out_features, linear.in_features)

    def forward(self, images, mask):
        patches = self.encoder.to_patch_embedding[0](images)
        embedded = self.encoder.to_patch_embedding(images)
        tokens = torch.where(mask[..., None], self.mask_token, embedded) + self.encoder.pos_embedding[:, 1:]
        predicted = self.decoder(self.encoder.transformer(tokens))
        return F.l1_loss(predicted[mask], patches[mask])


def randomize(module, seed):
    """Random values everywhere, norms and biases too, so that no term can hide."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            scale = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.3
            norm = "norm" in name or name.endswith(("embedding.1.weight", "embedding.3.weight", "network.0.weight"))
            parameter.copy_(noise * scale + (1.0 if norm and name.endswith("weight") else 0.0))
    return module
