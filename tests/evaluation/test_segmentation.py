"""Segmentation metrics against scikit-learn and torchmetrics, and cases done by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from torchmetrics.classification import MulticlassJaccardIndex

from viny.evaluation.segmentation import (
    class_iou,
    confusion_per_image,
    iou_per_image,
    mean_iou,
    pixel_accuracy,
)


def labels(seed, images=5, side=12, classes=3):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (images, side, side), generator=generator, dtype=torch.uint8)
    keep = torch.rand(truth.shape, generator=generator) < 0.6
    other = torch.randint(0, classes, truth.shape, generator=generator, dtype=torch.uint8)
    return truth, torch.where(keep, truth, other)


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 2, 3]))
@settings(max_examples=25, deadline=None)
def test_agrees_with_scikit_learn(seed, images, classes):
    truth, prediction = labels(seed, images, side=6, classes=classes)
    confusion = confusion_per_image(truth, prediction)
    assert confusion.dtype == torch.int64
    total = confusion.sum(dim=0)
    t, p = truth.flatten().numpy(), prediction.flatten().numpy()
    assert total.tolist() == sklearn.confusion_matrix(t, p, labels=[0, 1, 2]).tolist()
    assert pixel_accuracy(total) == pytest.approx(sklearn.accuracy_score(t, p))
    occurring = sorted(set(t) | set(p))
    assert mean_iou(total) == pytest.approx(sklearn.jaccard_score(t, p, labels=occurring, average="macro"))
    for index in range(images):
        t, p = truth[index].flatten().numpy(), prediction[index].flatten().numpy()
        assert confusion[index].tolist() == sklearn.confusion_matrix(t, p, labels=[0, 1, 2]).tolist()
        expected = sklearn.jaccard_score(t, p, labels=[0, 1, 2], average="macro", zero_division=0)
        assert iou_per_image(confusion, absent="zero")[index].item() == pytest.approx(expected)
        expected = sklearn.jaccard_score(t, p, labels=sorted(set(t) | set(p)), average="macro")
        assert iou_per_image(confusion)[index].item() == pytest.approx(expected)


def test_agrees_with_torchmetrics():
    truth, prediction = labels(0)
    total = confusion_per_image(truth, prediction).sum(dim=0)
    by_class = MulticlassJaccardIndex(num_classes=3, average=None)(prediction.long(), truth.long())
    torch.testing.assert_close(class_iou(total).float(), by_class)
    assert mean_iou(total) == pytest.approx(by_class.mean().item())


def test_small_case_by_hand():
    truth = torch.tensor([[[0, 0], [1, 2]]])
    prediction = torch.tensor([[[0, 1], [1, 1]]])
    confusion = confusion_per_image(truth, prediction)
    assert confusion[0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]  # rows are the truth
    assert class_iou(confusion[0]).tolist() == pytest.approx([1 / 2, 1 / 3, 0])
    assert pixel_accuracy(confusion[0]) == 0.5
    assert mean_iou(confusion[0]) == pytest.approx(5 / 18)


def test_a_perfect_prediction_of_two_classes_is_two_thirds_in_the_release():
    truth = torch.tensor([[[0, 1], [1, 0]]])
    confusion = confusion_per_image(truth, truth)
    assert iou_per_image(confusion, absent="zero").item() == pytest.approx(2 / 3)
    assert iou_per_image(confusion).item() == 1
    assert mean_iou(confusion.sum(0)) == 1
    assert class_iou(confusion[0])[2].isnan()


def test_the_data_set_weighs_pixels_and_the_image_mean_weighs_images():
    truth = torch.zeros(2, 10, 10, dtype=torch.uint8)
    truth[0, 0, 0] = 1  # one pixel of class 1, missed
    confusion = confusion_per_image(truth, torch.zeros_like(truth))
    assert mean_iou(confusion.sum(0)) == pytest.approx((199 / 200 + 0) / 2)
    assert iou_per_image(confusion).mean().item() == pytest.approx((0.99 / 2 + 1) / 2)


def test_unknown_way_to_count_absent_classes():
    with pytest.raises(ValueError, match="'nan'"):
        iou_per_image(torch.zeros(1, 3, 3), absent="nan")


def test_counting_needs_no_look_at_values():
    truth = torch.zeros(2, 4, 4, dtype=torch.uint8, device="meta")
    assert confusion_per_image(truth, truth).shape == (2, 3, 3)
