"""Geometry of patch tokens, on cases small enough to do by hand."""

import math

import numpy as np
import pytest
import torch

from viny.evaluation.geometry import (
    across_image_variance,
    class_shares,
    majority_labels,
    probe_accuracy,
    reference_patches,
    similarity_by_distance,
    similarity_map,
    within_image_variance,
)


def test_variances_by_hand():
    # Two images of four patches in one dimension: means 1 and 5, variances 4/3 and 0.
    tokens = torch.tensor([[[0.0], [2.0], [0.0], [2.0]], [[5.0], [5.0], [5.0], [5.0]]])
    assert within_image_variance(tokens) == pytest.approx((4 / 3 + 0) / 2)
    assert across_image_variance(tokens) == pytest.approx(8.0)


def test_variances_are_means_over_dimensions():
    tokens = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(0)).numpy()
    assert within_image_variance(torch.from_numpy(tokens)) == pytest.approx(tokens.var(axis=1, ddof=1).mean(), rel=1e-5)
    expected = tokens.mean(axis=1).var(axis=0, ddof=1).mean()
    assert across_image_variance(torch.from_numpy(tokens)) == pytest.approx(expected, rel=1e-5)


def test_similarity_by_distance_by_hand():
    # A 2 x 2 grid: patch 0 and 3 are two steps apart, 1 and 2 as well, all others one.
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
    second = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5], [-1.0, -1.0]])
    mean, error = similarity_by_distance(torch.stack([first, second]))
    # first: distance 1 -> 0, distance 2 -> 1; second: 1 -> (1 + 1 - 1 - 1) / 4 = 0, 2 -> (-1 + 1) / 2 = 0
    np.testing.assert_allclose(mean, [1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(error, [0, 0, math.sqrt(0.5) / math.sqrt(2)], atol=1e-12)


def test_similarity_by_distance_agrees_with_loops():
    tokens = torch.randn(3, 16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = [[[] for _ in range(7)] for _ in range(3)]
    for n in range(3):
        for a in range(16):
            for b in range(16):
                x, y = tokens[n, a], tokens[n, b]
                distance = abs(a // 4 - b // 4) + abs(a % 4 - b % 4)
                values[n][distance].append((x @ y / (x.norm() * y.norm())).item())
    by_image = np.array([[np.mean(v) for v in image] for image in values])
    mean, error = similarity_by_distance(tokens)
    np.testing.assert_allclose(mean, by_image.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(error, by_image.std(axis=0, ddof=1) / math.sqrt(3), atol=1e-12)
    mean, error = similarity_by_distance(torch.randn(1, 64, 8))
    assert mean.shape == (15,)
    assert error.isnan().all()


def test_similarity_map():
    tokens = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 3.0], [-2.0, 0.0]])
    half = math.sqrt(0.5)
    torch.testing.assert_close(similarity_map(tokens, 0), torch.tensor([[1.0, half], [0.0, -1.0]]))
    torch.testing.assert_close(similarity_map(tokens, 1), torch.tensor([[half, 1.0], [half, -half]]))
    with pytest.raises(ValueError, match="square grid"):
        similarity_map(torch.zeros(5, 2), 0)


MASK = torch.tensor(
    [
        [1, 1, 1, 2],
        [1, 1, 2, 0],
        [1, 2, 0, 0],
        [2, 2, 0, 0],
    ],
    dtype=torch.uint8,
)


def test_majority_label_of_a_patch():
    assert class_shares(MASK[None], 2)[0].tolist() == [[0, 1, 0], [0.25, 0.25, 0.5], [0, 0.25, 0.75], [1, 0, 0]]
    assert majority_labels(MASK[None], 2).tolist() == [[1, 2, 2, 0]]
    assert majority_labels(torch.tensor([[[2, 2], [1, 1]]]), 2).tolist() == [[1]]  # a tie: the lower class


def test_reference_patches():
    assert reference_patches(MASK, 2) == {"background": 0, "foreground": 3, "border": 2}
    mask = torch.ones(6, 6, dtype=torch.uint8)
    mask[1:6, 1:6] = 0  # an object of whole patches off the center: patches 4 5 7 8 are full of it
    mask[:2, 2:4] = 2
    chosen = reference_patches(mask, 2)
    assert chosen == {"background": 0, "foreground": 4, "border": 1}
    assert reference_patches(torch.ones(4, 4, dtype=torch.uint8), 2) == {"background": 0}


def test_probe_finds_linear_structure_and_is_honest_about_new_images():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(3, 8, generator=generator)

    def sample(images):
        labels = torch.randint(0, 3, (images, 16), generator=generator)
        return centers[labels] + 0.3 * torch.randn(images, 16, 8, generator=generator), labels

    tokens, labels = sample(256)
    new_tokens, new_labels = sample(64)
    probe = probe_accuracy(tokens, labels, new_tokens, new_labels, epochs=20, generator=generator)
    assert probe.held_out > 0.97
    assert probe.training > 0.97
    noise = torch.randint(0, 3, (8, 16), generator=generator)
    wide = torch.randn(8, 16, 400, generator=generator)  # more dimensions than patches: can be learned by heart
    probe = probe_accuracy(
        wide, noise, torch.randn(64, 16, 400, generator=generator), new_labels, epochs=60, generator=generator
    )
    assert probe.training > 0.9
    assert probe.held_out < 0.45


def test_probe_is_repeatable():
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randn(20, 4, 6, generator=generator), torch.randint(0, 3, (20, 4), generator=generator)
    runs = [
        probe_accuracy(tokens, labels, tokens, labels, batch_size=8, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0].held_out == runs[0].training
