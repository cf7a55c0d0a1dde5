"""Augmentation against torchvision, and its distributions."""

import math

import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from viny.datasets import augment


def gen(seed=0):
    return torch.Generator().manual_seed(seed)


def smooth_images(count=4, side=40, seed=0):
    coarse = torch.rand(count, 3, 7, 7, generator=gen(seed)) * 255
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return fine.byte().permute(0, 2, 3, 1).contiguous()


def test_contrast_is_torchvisions():
    images = augment.unit_range(smooth_images())
    factors = torch.tensor([0.7, 1.0, 1.3, 0.9])
    ours = augment.adjust_contrast(images, factors)
    theirs = torch.stack([tv.adjust_contrast(i, f.item()) for i, f in zip(images, factors, strict=True)])
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_crop_and_resize_is_torchvisions_on_the_cpu_and_as_matrix_products():
    images = smooth_images()
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.1, 0.2, 0.85, 0.7], [0.3, 0.0, 0.7, 1.0], [0.05, 0.05, 0.9, 0.95]])
    ours = augment.crop_and_resize(images, boxes, 32)
    products = augment.resample(images, augment.pixel_boxes(boxes, 40), 32)
    for i, (left, top, width, height) in enumerate(augment.pixel_boxes(boxes, 40).tolist()):
        theirs = tv.resized_crop(images[i].permute(2, 0, 1), top, left, height, width, [32, 32], antialias=True)
        assert (ours[i].int() - theirs.int()).abs().max() <= 1
        assert (products[i] - theirs.float()).abs().max() <= 1.01


@pytest.mark.parametrize("aspect", [0.5, 1.0, 1.6, 4.0])
def test_crops_have_the_distribution_of_random_resized_crop(aspect):
    height, width, n = 300, round(300 * aspect), 4000
    boxes = augment.draw_crops(torch.full((n,), aspect), (0.67, 1.0), (3 / 4, 4 / 3), gen())
    assert boxes.min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:]).max() <= 1 + 1e-6
    crop = RandomResizedCrop(32, scale=(0.67, 1.0), ratio=(3 / 4, 4 / 3))
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = [crop.make_params([image]) for _ in range(n)]
    theirs = torch.tensor(
        [[p["left"] / width, p["top"] / height, p["width"] / width, p["height"] / height] for p in theirs]
    )
    assert torch.allclose(boxes.mean(0), theirs.mean(0), atol=0.012)
    assert torch.allclose(boxes.std(0), theirs.std(0), atol=0.012)


def test_flips_turn_the_chosen_images_over():
    images = smooth_images(2)
    channels_first = images.permute(0, 3, 1, 2)
    flipped = augment.flip(channels_first, torch.tensor([True, False]))
    assert torch.equal(flipped[0], channels_first[0].flip(-1))
    assert torch.equal(flipped[1], channels_first[1])


@pytest.mark.parametrize("shape", [(5, 3, 4, 6), (5, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_flip_is_the_same_in_every_layout_and_leaves_its_input_alone(shape, dtype):
    images = torch.arange(math.prod(shape)).reshape(shape).to(dtype)
    before, flips = images.clone(), torch.tensor([True, False, False, True, True])
    expected = torch.stack([image.flip(-1) if one else image for image, one in zip(images, flips, strict=True)])
    assert torch.equal(augment.flip(images, flips), expected)
    assert torch.equal(augment.flip(images.mT.contiguous().mT, flips), expected)
    assert torch.equal(images, before)


def test_normalization_is_undone():
    images = smooth_images()
    assert torch.equal(augment.to_bytes(augment.denormalize(augment.normalize_(augment.unit_range(images)))), images)


def test_draws_cover_their_ranges():
    contrast = augment.draw_contrast(2000, 0.3, gen())
    assert contrast.min() >= 0.7
    assert contrast.max() <= 1.3
    assert contrast.mean().item() == pytest.approx(1.0, abs=0.02)
    assert augment.draw_flips(2000, gen()).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_training_may_follow_a_measurement_in_inference_mode():
    images = torch.rand(2, 3, 4, 4)
    with torch.inference_mode():
        measured = augment.normalize_(images.clone())
    weight = torch.ones((), requires_grad=True)
    (augment.normalize_(images.clone()) * weight).sum().backward()
    assert torch.equal(augment.normalize_(images.clone()), measured)
    assert weight.grad.isfinite()
