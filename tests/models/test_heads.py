"""Heads and losses, against small cases done by hand."""

import pytest
import torch
from torch.nn import functional as F

from viny.models import build_encoder
from viny.models.heads import (
    Classifier,
    PatchClassifier,
    Segmenter,
    classification_loss,
    mixup_targets,
    patch_loss,
    segmentation_loss,
    segmentation_scores,
)

TINY = {"image_size": 16, "patch_size": 8, "width": 8, "depth": 2, "heads": 1, "head_width": 4, "mlp_width": 8}


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_shapes(images):
    encoder = build_encoder(**TINY)
    assert Classifier(encoder, 6)(images).shape == (2, 6)
    assert Segmenter(encoder)(images).shape == (2, 3, 16, 16)
    assert PatchClassifier(encoder)(images).shape == (2, 4, 3)


def test_the_papers_segmentation_head_has_three_logits_a_pixel():
    assert Segmenter(build_encoder()).head.weight.shape == (16 * 16 * 3, 128)


def test_a_pixels_logits_come_from_its_own_patch(images):
    model = Segmenter(build_encoder(**TINY))
    token = model.encoder.patch_tokens(images)[0, 1]  # second patch of the first row
    logits = model.head(token).reshape(8, 8, 3)  # row, column, class
    torch.testing.assert_close(model(images)[0, :, 2, 8 + 5], logits[2, 5])


def test_the_generator_decides_a_heads_first_weights():
    heads = [Segmenter(build_encoder(**TINY), generator=torch.Generator().manual_seed(s)).head for s in (1, 1, 2)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert not torch.equal(heads[0].weight, heads[2].weight)


def test_mixup_loss_is_the_weighted_sum_of_both_labels_losses():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]])
    labels, partners = torch.tensor([0, 2]), torch.tensor([2, 0])
    targets = mixup_targets(labels, partners, 0.7, 3)
    torch.testing.assert_close(targets, torch.tensor([[0.7, 0.0, 0.3], [0.3, 0.0, 0.7]]))
    expected = 0.7 * F.cross_entropy(logits, labels) + 0.3 * F.cross_entropy(logits, partners)
    torch.testing.assert_close(classification_loss(logits, targets), expected)
    torch.testing.assert_close(classification_loss(logits, labels), F.cross_entropy(logits, labels))


def test_per_pixel_loss_is_cross_entropy_over_classes():
    logits, truth = torch.zeros(1, 3, 2, 2), torch.tensor([[[0, 1], [2, 0]]], dtype=torch.uint8)
    logits[0, 0, 0, 0] = 1.0
    p = torch.tensor([1.0, 0.0, 0.0]).softmax(0)[0]
    expected = (-p.log() + 3 * torch.tensor(3.0).log()) / 4
    torch.testing.assert_close(segmentation_loss(logits, truth), expected)


def test_the_releases_loss_cannot_see_a_classs_prior():
    """Adding a constant to one class's logits changes nothing after a log-softmax over pixels."""
    logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    truth = torch.randint(0, 3, (2, 4, 4), generator=torch.Generator().manual_seed(1))
    shifted = logits + torch.tensor([5.0, 0.0, 0.0]).view(1, 3, 1, 1)
    name = "log_softmax_over_pixels"
    torch.testing.assert_close(segmentation_loss(logits, truth, name), segmentation_loss(shifted, truth, name))
    assert not torch.isclose(segmentation_loss(logits, truth), segmentation_loss(shifted, truth))
    scores = segmentation_scores(logits, name)
    torch.testing.assert_close(scores.exp().sum(dim=(2, 3)), torch.ones(2, 3))  # each class: one unit of mass
    by_hand = F.cross_entropy(F.log_softmax(logits.reshape(2, 3, 16), dim=-1), truth.reshape(2, 16))
    torch.testing.assert_close(segmentation_loss(logits, truth, name), by_hand)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'focal'"):
        segmentation_loss(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), "focal")


def test_patch_loss_is_the_mean_over_all_patches():
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, 0], [2, 2, 1, 0]])
    each = [F.cross_entropy(logits[i, j], labels[i, j]) for i in range(2) for j in range(4)]
    torch.testing.assert_close(patch_loss(logits, labels), torch.stack(each).mean())
