"""Geometry of patch tokens, on cases small enough to do by hand."""

import math

import numpy as np
import pytest
import torch
from task_store import MASK, TRIMAP, make_task, random_store

from viny.config.sections import Geometry
from viny.datasets import augment
from viny.errors import VinyError
from viny.tasks.geometry import (
    accuracy,
    reference_patches,
    similarity_by_distance,
    train_probe,
    variances,
)
from viny.tasks.metrics import majority_labels


def test_variances_by_hand():
    # Two images of four patches in one dimension: means 1 and 5, variances 4/3 and 0.
    tokens = torch.tensor([[[0.0], [2.0], [0.0], [2.0]], [[5.0], [5.0], [5.0], [5.0]]])
    assert variances(tokens) == pytest.approx(((4 / 3 + 0) / 2, 8.0))


def test_variances_are_means_over_dimensions():
    tokens = torch.randn(6, 9, 4, generator=torch.Generator().manual_seed(0)).numpy()
    expected = tokens.var(axis=1, ddof=1).mean(), tokens.mean(axis=1).var(axis=0, ddof=1).mean()
    assert variances(torch.from_numpy(tokens)) == pytest.approx(expected, rel=1e-5)


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


def test_reference_patches():
    names = list(TRIMAP)
    assert reference_patches(MASK, 2, names) == {"background": 0, "foreground": 3, "border": 2}
    mask = torch.ones(6, 6, dtype=torch.uint8)
    mask[1:6, 1:6] = 0  # an object of whole patches off the center: patches 4 5 7 8 are full of it
    mask[:2, 2:4] = 2
    assert reference_patches(mask, 2, names) == {"background": 0, "foreground": 4, "border": 1}
    assert reference_patches(torch.ones(4, 4, dtype=torch.uint8), 2, names) == {"background": 0}
    assert reference_patches(torch.full((4, 4), 255), 2, names) == {}


def probe_accuracies(tokens, labels, new_tokens, new_labels, classes=3):
    probe, _ = train_probe(tokens, labels, classes, Geometry().probe_iterations)
    return accuracy(probe, new_tokens, new_labels), accuracy(probe, tokens, labels)


def test_probe_finds_linear_structure_and_is_honest_about_new_images():
    generator = torch.Generator().manual_seed(0)
    centers = 2 * torch.randn(3, 8, generator=generator)

    def sample(images):
        labels = torch.randint(0, 3, (images, 16), generator=generator)
        return centers[labels] + 0.3 * torch.randn(images, 16, 8, generator=generator), labels

    tokens, labels = sample(256)
    new_tokens, new_labels = sample(64)
    held_out, training = probe_accuracies(tokens, labels, new_tokens, new_labels)
    assert min(held_out, training) > 0.97
    wrong = labels.clone()
    wrong[:, :8] = 255  # half of the patches do not count
    assert probe_accuracies(tokens, wrong, new_tokens, new_labels)[0] > 0.97
    noise = torch.randint(0, 3, (8, 16), generator=generator)
    wide = torch.randn(8, 16, 400, generator=generator)  # more dimensions than patches: can be learned by heart
    new = torch.randn(64, 16, 400, generator=generator)
    held_out, training = probe_accuracies(wide, noise, new, new_labels)
    assert training > 0.9
    assert held_out < 0.45


def test_the_probe_is_the_optimum_whatever_the_scale_of_the_tokens(caplog):
    """The gradient of the loss vanishes; a dimension that is large, small, shifted or constant changes no answer."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (64, 16), generator=generator)
    tokens = torch.randn(64, 16, 6, generator=generator) + 0.7 * labels[..., None] * torch.randn(6, generator=generator)
    probe, iterations = train_probe(tokens, labels, 3, 2000)
    loss = torch.nn.functional.cross_entropy(probe(tokens).flatten(0, 1), labels.flatten())
    loss.backward()
    assert probe.weight.grad.abs().max() < 1e-3
    assert iterations < 200
    uneven = torch.cat([tokens * torch.tensor([1e3, 1e-3, 1, 1, 1, 1]) + 50, torch.ones(64, 16, 1)], dim=-1).double()
    other, _ = train_probe(uneven, labels, 3, 2000)
    agree = (other(uneven).argmax(dim=-1) == probe(tokens).argmax(dim=-1)).double().mean()
    assert agree > 0.995
    assert not caplog.records
    train_probe(tokens, labels, 3, 2)
    assert "not converged" in caplog.text


def test_the_task_measures_test_images_with_a_probe_of_the_training_images(trained):
    task, _, metrics, folder = trained("geometry")
    images = augment.normalize_(task.fitted(task.read(torch.arange(20))["image"]))
    with torch.no_grad():
        tokens = task.encoder.patch_tokens(images)
    found = metrics["within_image_variance"], metrics["across_image_variance"]
    assert found == pytest.approx(variances(tokens))
    assert metrics["similarity_by_distance"] == pytest.approx(similarity_by_distance(tokens)[0].tolist())
    labels = [majority_labels(task.read(rows)["mask"], 4, 3) for rows in (torch.arange(20), torch.arange(20, 50))]
    assert metrics["probe_accuracy_training"] > metrics["probe_chance"]
    assert metrics["probe_chance"] == (labels[0] == labels[1].flatten().mode()[0]).double().mean()
    assert metrics["probe_chance_position"] == (labels[0] == labels[1].mode(dim=0)[0]).double().mean()
    assert not task.trainable
    assert task.budget["images"] == 30
    assert task.budget["samples_seen"] == task.settings.samples_seen(30) + 20
    with np.load(folder / "similarity.npz", allow_pickle=False) as arrays:
        assert arrays["maps"].shape == (len(arrays["kind"]), 4, 4)
        unit = tokens[0] / tokens[0].norm(dim=1, keepdim=True)
        np.testing.assert_allclose(arrays["maps"][0].flatten(), unit @ unit[arrays["reference"][0]], atol=1e-5)
        assert set(arrays["kind"]) == set(TRIMAP)
        assert arrays["images"].shape == (len(arrays["kind"]), 16, 16, 3)
        assert arrays["mean"].tolist() == metrics["similarity_by_distance"]
        assert arrays["se"].shape == arrays["distances"].shape == (7,)


def test_geometry_knows_any_classes_and_ignored_pixels(tmp_path):
    names = ["one", "two", "three", "four", "five"]
    task = make_task("geometry", random_store(mask_classes=names, ignored=0.5))
    metrics = task.evaluate()
    task.write(tmp_path)
    assert all(np.isfinite(value).all() for value in metrics.values())
    with np.load(tmp_path / "similarity.npz", allow_pickle=False) as arrays:
        assert set(arrays["kind"]) == set(names)


def test_a_single_test_image_cannot_be_compared():
    with pytest.raises(VinyError, match="too few"):
        make_task("geometry", tests=1)
