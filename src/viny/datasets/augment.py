"""Augmentation in batches, on the device that trains.

Random numbers are drawn for a whole epoch at once (`draw_*`, on the CPU, from a generator) and applied batch by batch
(on any device), so that the draws do not depend on the device and the training loop never waits for them.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
GRAY = (0.2989, 0.587, 0.114)

_CROP_ATTEMPTS = 10  # as torchvision's RandomResizedCrop


def draw_flips(count: int, generator: torch.Generator) -> Tensor:
    """Which images to flip horizontally: (count,) bool, each with probability 1/2."""
    return torch.rand(count, generator=generator) < 0.5


def draw_contrast(count: int, strength: float, generator: torch.Generator) -> Tensor:
    """Contrast factors (count,), uniform in [1 - strength, 1 + strength] (torchvision's ColorJitter)."""
    return 1 + strength * (2 * torch.rand(count, generator=generator) - 1)


def draw_crops(
    aspect: Tensor, scale: tuple[float, float], ratio: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Crop boxes of RandomResizedCrop, sampled in the geometry of the original images.

    Args:
        aspect: (N,) width / height of the originals; the stored images are squashed to a square.
        scale: range of the crop's share of the area. ratio: range of its width / height in original pixels.

    Returns:
        (N, 4) left, top, width, height as fractions of the image, all in 0..1. As in torchvision, the first of ten
        candidates that fits is taken; if none does, the largest central crop within the ratio's range.
    """
    n = len(aspect)
    uniform = torch.rand(n, _CROP_ATTEMPTS, 2, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * uniform[..., 0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    relative_ratio = torch.exp(low + (high - low) * uniform[..., 1]) / aspect[:, None]
    width, height = torch.sqrt(area * relative_ratio), torch.sqrt(area / relative_ratio)
    fits = (width <= 1) & (height <= 1)
    first = fits.int().argmax(dim=1, keepdim=True)
    clamped = aspect.clamp(*ratio) / aspect  # width / height of the fallback, relative to the image's own
    width = torch.where(fits.any(1), width.gather(1, first)[:, 0], clamped.clamp(max=1))
    height = torch.where(fits.any(1), height.gather(1, first)[:, 0], (1 / clamped).clamp(max=1))
    place = torch.rand(n, 2, generator=generator)
    place = torch.where(fits.any(1, keepdim=True), place, torch.full_like(place, 0.5))
    return torch.stack([place[:, 0] * (1 - width), place[:, 1] * (1 - height), width, height], dim=1)


def crop_and_resize(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cut each image's box and resize it to `size` with antialiased bilinear interpolation.

    Args:
        images: (B, S, S, 3) uint8. boxes: (B, 4) as from `draw_crops`; rounded to whole stored pixels.

    Returns:
        (B, 3, size, size) uint8 on the CPU, float32 with values 0..255 on other devices.
    """
    pixels = pixel_boxes(boxes, images.shape[1])
    if images.device.type != "cpu":
        return resample(images, pixels, size)
    images = images.permute(0, 3, 1, 2)
    out = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for i, (left, top, width, height) in enumerate(pixels.tolist()):
        crop = images[i : i + 1, :, top : top + height, left : left + width]
        out[i] = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
    return out


def pixel_boxes(boxes: Tensor, side: int) -> Tensor:
    """Fractions to whole pixels of a `side` x `side` image: (B, 4) int64 left, top, width, height; never empty."""
    extent = (boxes[:, 2:] * side).round().clamp(1, side)
    corner = torch.minimum((boxes[:, :2] * side).round(), side - extent)
    return torch.cat([corner, extent], dim=1).long()


def resample(images: Tensor, pixels: Tensor, size: int) -> Tensor:
    """`crop_and_resize` as two matrix products a batch: no loop, any device; float32 values 0..255."""
    columns = _weights(pixels[:, 0], pixels[:, 2], images.shape[2], size)
    rows = _weights(pixels[:, 1], pixels[:, 3], images.shape[1], size)
    planes = images.permute(0, 3, 1, 2).float()
    return rows[:, None] @ planes @ columns[:, None].transpose(-1, -2)


def _weights(start: Tensor, length: Tensor, side: int, size: int) -> Tensor:
    """Weights (B, size, side) of an antialiased triangle filter over [start, start + length)."""
    scale = (length.float() / size)[:, None, None]
    start = start[:, None, None]
    center = start + (torch.arange(size, device=start.device)[None, :, None] + 0.5) * scale
    position = torch.arange(side, device=start.device)[None, None, :]
    weight = (1 - ((position + 0.5 - center) / scale.clamp(min=1)).abs()).clamp(min=0)
    inside = (position >= start) & (position < start + length[:, None, None])
    weight = weight * inside
    return weight / weight.sum(dim=-1, keepdim=True)


def flip(images: Tensor, flips: Tensor) -> Tensor:
    """Flip those images (..., W) whose entry of `flips` (B,) is true."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(flips.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)
    flipped = images.clone()  # one by one, which is faster here
    for i in flips.nonzero()[:, 0].tolist():
        flipped[i] = images[i].flip(-1)
    return flipped


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend float images (B, 3, H, W) in 0..1 with their mean gray value (torchvision's adjust_contrast)."""
    means = images.mean(dim=(2, 3), keepdim=True)
    gray = (means * _per_channel(GRAY, images.device)).sum(dim=1, keepdim=True)
    return torch.lerp(gray, images, factors.view(-1, 1, 1, 1)).clamp_(0, 1)


def unit_range(images: Tensor) -> Tensor:
    """Values 0..255 of any type to float32 0..1; channels-last (B, H, W, 3) uint8 rows become (B, 3, H, W)."""
    if images.shape[-1] == 3 and images.shape[1] != 3:
        images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, copy=True).div_(255)


def normalize_(images: Tensor) -> Tensor:
    """Subtract ImageNet's mean and divide by its standard deviation, in place; images (B, 3, H, W) in 0..1."""
    return images.sub_(_per_channel(IMAGENET_MEAN, images.device)).div_(_per_channel(IMAGENET_STD, images.device))


def denormalize(images: Tensor) -> Tensor:
    """The inverse of `normalize_`, in 0..1."""
    return images * _per_channel(IMAGENET_STD, images.device) + _per_channel(IMAGENET_MEAN, images.device)


def to_bytes(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1 as uint8 (B, H, W, 3)."""
    return (images * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor:
    """`values` as float32 (1, 3, 1, 1), filled in on the device: a copy to a GPU would make the host wait for it."""
    return torch.cat([torch.full((1, 1, 1, 1), value, device=device) for value in values], dim=1)
