"""Losses and metrics against scikit-learn and torchmetrics, and cases done by hand."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn
from task_store import MASK
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex

from viny.tasks.metrics import (
    IGNORE,
    blind_answers,
    class_counts,
    class_iou,
    confusion_per_image,
    cross_entropy,
    iou_per_image,
    majority_labels,
    mean_iou,
    pixel_accuracy,
    share_right,
)


def labels(seed, images=5, side=12, classes=3, ignored=0.0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, classes, (images, side, side), generator=generator, dtype=torch.uint8)
    keep = torch.rand(truth.shape, generator=generator) < 0.6
    other = torch.randint(0, classes, truth.shape, generator=generator, dtype=torch.uint8)
    prediction = torch.where(keep, truth, other)
    truth[torch.rand(truth.shape, generator=generator) < ignored] = IGNORE
    return truth, prediction


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([1, 2, 3, 7]), st.sampled_from([0.0, 0.3]))
@settings(max_examples=25, deadline=None)
def test_agrees_with_scikit_learn(seed, images, classes, ignored):
    truth, prediction = labels(seed, images, 6, classes, ignored)
    confusion, every = confusion_per_image(truth, prediction, 7), list(range(7))
    assert confusion.dtype == torch.int64
    total, counted = confusion.sum(dim=0), truth != IGNORE
    t, p = truth[counted].numpy(), prediction[counted].numpy()
    assert total.tolist() == sklearn.confusion_matrix(t, p, labels=every).tolist()
    assert pixel_accuracy(total) == pytest.approx(sklearn.accuracy_score(t, p))
    occurring = sorted(set(t) | set(p))
    assert mean_iou(total) == pytest.approx(sklearn.jaccard_score(t, p, labels=occurring, average="macro"))
    for index in range(images):
        t, p = truth[index][counted[index]].numpy(), prediction[index][counted[index]].numpy()
        expected = sklearn.jaccard_score(t, p, labels=every, average="macro", zero_division=0)
        assert iou_per_image(confusion)[index].item() == pytest.approx(expected)


def test_agrees_with_torchmetrics():
    truth, prediction = labels(0)
    total = confusion_per_image(truth, prediction, 3).sum(dim=0)
    by_class = MulticlassJaccardIndex(num_classes=3, average=None)(prediction.long(), truth.long())
    torch.testing.assert_close(class_iou(total).float(), by_class)
    assert mean_iou(total) == pytest.approx(by_class.mean().item())


def test_small_case_by_hand():
    truth = torch.tensor([[[0, 0, IGNORE], [1, 2, IGNORE]]])
    prediction = torch.tensor([[[0, 1, 2], [1, 1, 0]]])
    confusion = confusion_per_image(truth, prediction, 3)
    assert confusion[0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]  # rows are the truth
    assert class_iou(confusion[0]).tolist() == pytest.approx([1 / 2, 1 / 3, 0])
    assert pixel_accuracy(confusion[0]) == 0.5
    assert mean_iou(confusion[0]) == pytest.approx(5 / 18)


def test_a_perfect_prediction_of_two_classes_is_two_thirds_in_the_release():
    truth = torch.tensor([[[0, 1], [1, 0]], [[IGNORE, IGNORE], [IGNORE, IGNORE]]])
    confusion = confusion_per_image(truth, torch.zeros_like(truth) + (truth == 1), 3)
    assert iou_per_image(confusion)[0].item() == pytest.approx(2 / 3)
    assert iou_per_image(confusion)[1].isnan()  # nothing there to be right or wrong about
    assert mean_iou(confusion.sum(0)) == 1
    assert class_iou(confusion[0])[2].isnan()


def test_the_data_set_weighs_pixels():
    truth = torch.zeros(2, 10, 10, dtype=torch.uint8)
    truth[0, 0, 0] = 1  # one pixel of class 1, missed
    confusion = confusion_per_image(truth, torch.zeros_like(truth), 2)
    assert mean_iou(confusion.sum(0)) == pytest.approx((199 / 200 + 0) / 2)


def test_counting_needs_no_look_at_values():
    truth = torch.zeros(2, 4, 4, dtype=torch.uint8, device="meta")
    assert confusion_per_image(truth, truth, 3).shape == (2, 3, 3)
    assert majority_labels(truth, 2, 3).shape == (2, 4)


def test_cross_entropy_leaves_out_what_is_ignored():
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth, _ = labels(1, images=2, side=4, ignored=0.4)
    counted = truth != IGNORE
    expected = F.cross_entropy(logits.movedim(1, -1)[counted], truth[counted].long())
    loss = cross_entropy(logits, truth)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert not gradient.movedim(1, -1)[~counted].any()
    nothing = cross_entropy(logits, torch.full_like(truth, IGNORE))
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, logits)[0].any()


def test_majority_label_of_a_patch():
    assert class_counts(MASK[None], 2, 3)[0].tolist() == [[0, 4, 0], [1, 1, 2], [0, 1, 3], [4, 0, 0]]
    assert majority_labels(MASK[None], 2, 3).tolist() == [[1, 2, 2, 0]]
    assert majority_labels(torch.tensor([[[2, 2], [1, 1]]]), 2, 3).tolist() == [[1]]  # a tie: the lower class
    assert majority_labels(torch.tensor([[[2, IGNORE], [IGNORE, IGNORE]]]), 2, 3).tolist() == [[2]]
    assert majority_labels(torch.full((1, 2, 2), IGNORE), 2, 3).tolist() == [[IGNORE]]
    assert majority_labels(torch.tensor([[[253, 254], [254, 0]]]), 2, 255).tolist() == [[254]]


def test_answers_without_an_image_by_hand():
    batches = [torch.tensor([[0, 1, 255], [2, 1, 255]]), torch.tensor([[0, 2, 255]])]
    found = blind_answers(batches, 3)
    assert found["majority"].tolist() == [0, 0, 0]  # of equally common classes the first
    assert found["position"].tolist() == [0, 1, 0]  # where no label counts, the majority
    assert share_right(found["position"], torch.tensor([[0, 2, 0], [0, 1, 255]])) == 4 / 5
    whole = blind_answers([torch.tensor([3, 3, 1])], 4, ignored=-1)
    assert {name: answer.item() for name, answer in whole.items()} == {"majority": 3}
