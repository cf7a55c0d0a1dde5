"""Losses and metrics that leave out ignored pixels; segmentation metrics come from confusion matrices of pixel counts.

Labels are class numbers 0..K-1, or IGNORE. Rows of a confusion matrix are the truth, columns the prediction. Shares
and IoU are 0..1.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from viny.datasets.store import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, ignored: int = IGNORE) -> Tensor:
    """Mean cross-entropy of (B, K, ...) logits over the labels (B, ...) that are not `ignored`; 0 if all are."""
    labels = labels.long()
    # Summed outside: for pixels, the sum inside rounds differently each time on a GPU.
    total = F.cross_entropy(logits.float(), labels, ignore_index=ignored, reduction="none").sum()
    return total / (labels != ignored).sum().clamp(min=1)


def confusion_per_image(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """Pixel counts of each image: (B, H, W) labels and predictions -> (B, K, K) int64. Never waits for the device."""
    b = len(truth)
    counted = (truth != IGNORE).flatten(1).long()
    cell = truth.long().flatten(1) * classes + prediction.long().flatten(1)  # (B, pixels)
    counts = torch.zeros(b, classes * classes, dtype=torch.int64, device=truth.device)
    return counts.scatter_add(1, cell * counted, counted).view(b, classes, classes)


def pixel_accuracy(confusion: Tensor) -> float:
    """Share of pixels whose prediction is the truth; NaN for an empty matrix."""
    return (confusion.diagonal().sum().double() / confusion.sum()).item()


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class: (..., K, K) -> (..., K) float64.

    NaN for a class that is neither in the truth nor in the prediction.
    """
    intersection = confusion.diagonal(dim1=-2, dim2=-1)
    union = confusion.sum(dim=-1) + confusion.sum(dim=-2) - intersection
    return intersection.double() / union.double()


def mean_iou(confusion: Tensor) -> float:
    """Data-set mIoU: the mean of `class_iou` over the classes that occur in truth or prediction."""
    return class_iou(confusion).nanmean().item()


def iou_per_image(confusion: Tensor) -> Tensor:
    """Mean IoU of each image by itself: (B, K, K) -> (B,) float64; NaN for an image without counted pixels.

    A class that an image's truth and prediction both lack counts as 0, as in the released code, which gives a perfect
    prediction of an image with two of three classes 2/3.
    """
    iou = class_iou(confusion).nan_to_num(0.0).mean(dim=-1)
    return torch.where(confusion.sum(dim=(-2, -1)) > 0, iou, torch.nan)


def segmentation_scores(confusion: Tensor) -> dict[str, float]:
    """The scores of metrics.json from the pixel counts of each image (B, K, K)."""
    total = confusion.sum(dim=0)
    return {
        "pixel_accuracy": pixel_accuracy(total),
        "miou": mean_iou(total),
        "miou_per_image": iou_per_image(confusion).nanmean().item(),
    }


def blind_answers(labels: Iterable[Tensor], classes: int, ignored: int = IGNORE) -> dict[str, Tensor]:
    """What is best answered without looking at an image, from training labels (B, ...): class numbers (...).

    `majority` is the commonest class everywhere; `position`, where an image has several labels, the commonest at each
    place (the majority where no label counts).
    """
    counts, shape = torch.zeros(1, dtype=torch.int64), torch.Size()
    for batch in labels:
        shape, flat = batch.shape[1:], batch.long().flatten(1) if batch.dim() > 1 else batch.long()[:, None]
        place = classes * torch.arange(flat.shape[1], device=flat.device)
        found = (place + flat)[flat != ignored].bincount(minlength=classes * flat.shape[1])
        counts = counts.to(found.device) + found
    by_place = counts.view(-1, classes)
    majority = _commonest(by_place.sum(dim=0))
    answers = {"majority": majority.expand(shape)}
    if shape:
        answers["position"] = torch.where(by_place.sum(dim=1) > 0, _commonest(by_place), majority).view(shape)
    return answers


def share_right(answers: Tensor, labels: Tensor, ignored: int = IGNORE) -> float:
    """Share of the labels (B, ...) that count which `answers`, of the same shape or (...), get right."""
    return (answers == labels)[labels != ignored].double().mean().item()


def class_counts(masks: Tensor, patch_size: int, classes: int) -> Tensor:
    """Pixels of each class in each patch: (B, S, S) labels -> (B, N, K) int64; ignored pixels count nowhere."""
    b, height, width = masks.shape
    rows, columns = height // patch_size, width // patch_size
    pixels = masks.view(b, rows, patch_size, columns, patch_size).transpose(2, 3).reshape(b, rows * columns, -1)
    label = pixels.long().clamp(max=classes)  # IGNORE becomes a class of its own, which is dropped
    counts = torch.zeros(b, rows * columns, classes + 1, dtype=torch.int64, device=masks.device)
    return counts.scatter_add(2, label, torch.ones_like(label))[..., :classes]


def majority_labels(masks: Tensor, patch_size: int, classes: int) -> Tensor:
    """Most frequent class of each patch, of equals the lower: (B, S, S) -> (B, N) int64, IGNORE if none counts."""
    counts = class_counts(masks, patch_size, classes)
    return torch.where(counts.sum(dim=-1) > 0, _commonest(counts), IGNORE)


def _commonest(counts: Tensor) -> Tensor:
    """Number of the largest of the counts (..., K), of equals the first: (...) int64."""
    classes = counts.shape[-1]
    return (counts * classes - torch.arange(classes, device=counts.device)).argmax(dim=-1)
