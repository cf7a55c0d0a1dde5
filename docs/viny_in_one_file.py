"""The experiment in one file: pre-train a small Vision Transformer on images without labels, fine-tune it on few.

    python docs/viny_in_one_file.py

It draws shapes, hides half of the patches of 1,000 images and learns to predict their pixels (SimMIM), then learns to
segment from 24 labeled images, once from random weights and once from the pre-trained encoder, and prints both mIoU. It
needs torch and no other file; tests keep it equal to what the package computes.

Shapes: b images of s x s pixels, n = (s / p)^2 patches of p x p pixels, tokens of width w, k classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = ("background", "disc", "square")
SIZES = {"image": 32, "patch": 8, "width": 64, "depth": 2, "heads": 4, "head_width": 16, "mlp_width": 128}


# ---- The data: discs and squares on stripes.
def draw_shapes(count: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Normalized images (count, 3, size, size), and the class of each pixel (count, size, size)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle, phase = torch.rand(2, count, 1, 1) * 6.28
    stripes = torch.sin((x * angle.cos() + y * angle.sin()) * 0.6 + phase)  # (count, size, size)
    images = torch.rand(count, 3, 1, 1) * 0.5 + 0.2 * stripes[:, None]
    truth = torch.zeros(count, size, size, dtype=torch.long)
    for kind in (1, 2):
        center, radius = torch.rand(2, count, 1, 1) * (size - 12) + 6, torch.rand(count, 1, 1) * 4 + 4
        across, down = (x - center[0]).abs(), (y - center[1]).abs()
        inside = across**2 + down**2 < radius**2 if kind == 1 else torch.maximum(across, down) < radius * 0.9
        images = torch.where(inside[:, None], torch.rand(count, 3, 1, 1) * 0.6 + 0.4, images)
        truth[inside] = kind
    return (images + 0.05 * torch.randn(images.shape) - 0.45) / 0.25, truth


def patchify(images: Tensor, p: int) -> Tensor:
    """(b, c, s, s) -> (b, n, p * p * c): patches row by row; within one by row, column, channel."""
    b, c, s, _ = images.shape
    images = images.reshape(b, c, s // p, p, s // p, p)  # (b, c, patch row, row, patch column, column)
    return images.permute(0, 2, 4, 3, 5, 1).reshape(b, -1, p * p * c)


# ---- The encoder: a ViT whose patch embedding lies between two LayerNorms and whose heads have a width of their own.
def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer with first weights as timm draws them for Vision Transformers."""
    layer = nn.Linear(inputs, outputs, bias)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.qkv = linear(width, 3 * heads * head_width, bias=False)
        self.proj = linear(heads * head_width, width)

    def forward(self, x: Tensor) -> Tensor:  # (b, n, w) -> (b, n, w)
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)  # (b, heads, n, hw)
        weights = (q @ k.transpose(-1, -2) / self.head_width**0.5).softmax(dim=-1)  # (b, heads, n, n)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, -1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int, mlp_width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, head_width)
        self.mlp = nn.ModuleDict({"fc1": linear(width, mlp_width), "fc2": linear(mlp_width, width)})

    def forward(self, x: Tensor) -> Tensor:  # (b, n, w) -> (b, n, w)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self, image=128, patch=16, width=128, depth=12, heads=8, head_width=64, mlp_width=512):  # the paper's
        super().__init__()
        self.patch, self.patches, self.width, self.values = patch, (image // patch) ** 2, width, 3 * patch**2
        norms = {"norm_in": nn.LayerNorm(self.values), "norm": nn.LayerNorm(width)}
        self.patch_embed = nn.ModuleDict({"proj": linear(self.values, width), **norms})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))  # used in image classification alone
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + self.patches, width) * 0.02)  # its first row too
        self.blocks = nn.ModuleList(Block(width, heads, head_width, mlp_width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor, mask: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """Images (b, 3, s, s) -> patch tokens (b, n, w); where `mask` (b, n) is true, patches are hidden."""
        x = patchify(images, self.patch)  # (b, n, 3 * p * p)
        for name in ("norm_in", "proj", "norm"):
            x = self.patch_embed[name](x)  # (b, n, w) in the end
        if mask is not None and mask_token is not None:
            x = torch.where(mask[..., None], mask_token, x)
        x = x + self.pos_embed[:, 1:]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


# ---- Pre-training (SimMIM): hide half of the patches of every image, predict their pixels.
class SimMIM(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.randn(encoder.width) * 0.02)
        self.decoder = linear(encoder.width, encoder.values)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Mean absolute error over the pixels of hidden patches: images (b, 3, s, s), mask (b, n) -> a scalar."""
        predicted = self.decoder(self.encoder(images, mask, self.mask_token))  # (b, n, 3 * p * p)
        return F.l1_loss(predicted[mask], patchify(images, self.encoder.patch)[mask])

    def loss(self, images: Tensor, _truth: Tensor) -> Tensor:
        return self(images, torch.rand(len(images), self.encoder.patches).argsort(dim=1) < self.encoder.patches // 2)


# ---- Fine-tuning: a linear layer on each token gives the logits of its patch's pixels.
class Segmenter(nn.Module):
    def __init__(self, encoder: Encoder, classes: int):
        super().__init__()
        self.encoder, self.classes = encoder, classes
        self.head = linear(encoder.width, encoder.patch**2 * classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (b, 3, s, s) -> logits (b, k, s, s)."""
        x, (b, _, s, _), p = self.head(self.encoder(images)), images.shape, self.encoder.patch  # x: (b, n, p * p * k)
        x = x.reshape(b, s // p, s // p, p, p, self.classes)  # (b, patch row, patch column, row, column, k)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(b, self.classes, s, s)

    def loss(self, images: Tensor, truth: Tensor) -> Tensor:
        return F.cross_entropy(self(images), truth)  # over the pixels of all images


def mean_iou(truth: Tensor, prediction: Tensor, classes: int) -> float:
    """Intersection over union of each class, over all pixels of all images; the mean of the classes that occur."""
    counts = torch.bincount((truth * classes + prediction).flatten(), minlength=classes**2).reshape(classes, classes)
    hits = counts.diagonal().double()  # (k,)
    return (hits / (counts.sum(0) + counts.sum(1) - hits)).nanmean().item()


# ---- Training: AdamW on random batches; the learning rate falls to a tenth for the last quarter.
def train(model: nn.Module, images: Tensor, truth: Tensor, epochs: int, batch: int, rate: float, decay: float) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [epochs * 3 // 4], gamma=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch):
            loss = model.loss(images[rows], truth[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()


def main(unlabeled=1000, labeled=24, tested=200, epochs=(60, 20)) -> list[float]:
    """Print and return the mIoU without and with pre-training."""
    torch.manual_seed(0)
    (images, unused), (few, truth), (new, new_truth) = (draw_shapes(count) for count in (unlabeled, labeled, tested))
    scores = []
    for pretrained in (False, True):
        encoder = Encoder(**SIZES)
        if pretrained:
            train(SimMIM(encoder), images, unused, epochs[0], batch=32, rate=2e-3, decay=0.05)
        model = Segmenter(encoder, len(CLASSES))
        train(model, few, truth, epochs[1], batch=8, rate=2e-3, decay=1e-4)
        with torch.no_grad():
            scores.append(mean_iou(new_truth, model(new).argmax(dim=1), len(CLASSES)))
        print(f"mIoU {'with' if pretrained else 'without'} pre-training: {scores[-1]:.3f}")
    return scores


if __name__ == "__main__":
    main()
