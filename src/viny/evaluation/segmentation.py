"""Segmentation metrics, all from confusion matrices of integer pixel counts (rows: truth, columns: prediction)."""

import torch
from torch import Tensor


def confusion_per_image(truth: Tensor, prediction: Tensor, classes: int = 3) -> Tensor:
    """Pixel counts of each image: (B, H, W) labels and predictions, 0..classes-1 -> (B, classes, classes) int64.

    Entry [i, t, p] counts the pixels of image i with truth t and prediction p. Never waits for the device.
    """
    b = len(truth)
    cell = truth.long().flatten(1) * classes + prediction.long().flatten(1)  # (B, pixels)
    counts = torch.zeros(b, classes * classes, dtype=torch.int64, device=truth.device)
    return counts.scatter_add(1, cell, torch.ones_like(cell)).view(b, classes, classes)


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of pixels whose prediction is the truth, 0..1; NaN for an empty matrix."""
    return (confusion.diagonal().sum().double() / confusion.sum()).item()


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class over all pixels counted: (C, C) -> (C,) float64, 0..1.

    NaN for a class that is neither in the truth nor in the prediction.
    """
    intersection, union = _intersection_and_union(confusion)
    return intersection / union


def mean_iou(confusion: Tensor) -> float:
    """Data-set mIoU, 0..1: the mean of `class_iou` over the classes that occur in truth or prediction."""
    return class_iou(confusion).nanmean().item()


def iou_per_image(confusion: Tensor, absent: str = "skip") -> Tensor:
    """Mean IoU of each image by itself: (B, C, C) -> (B,) float64, 0..1.

    Args:
        confusion: one matrix an image.
        absent: what a class counts that an image's truth and prediction both lack. `skip` leaves it out of that
            image's mean; `zero` counts it as 0, as the authors' release does, which gives a perfect prediction of
            an image with two classes 2/3.
    """
    if absent not in ("skip", "zero"):
        raise ValueError(f"absent {absent!r} is neither 'skip' nor 'zero'")
    intersection, union = _intersection_and_union(confusion)
    iou = intersection / union
    return iou.nan_to_num(0.0).mean(dim=-1) if absent == "zero" else iou.nanmean(dim=-1)


def _intersection_and_union(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Both (..., C) float64; 0/0 later marks classes that do not occur."""
    intersection = confusion.diagonal(dim1=-2, dim2=-1).double()
    union = confusion.sum(dim=-1) + confusion.sum(dim=-2) - confusion.diagonal(dim1=-2, dim2=-1)
    return intersection, union.double()
