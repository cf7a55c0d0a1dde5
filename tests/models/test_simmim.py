"""SimMIM: exact masks, and loss and gradients equal to a plain implementation's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_vit import PlainSimMIM, PlainVit, randomize

from viny.errors import VinyError
from viny.models import build_encoder
from viny.models.layers import patchify
from viny.models.released import from_released, released_name
from viny.models.simmim import SimMIM, mask_from_order, order_from_mask, random_masks

SIZES = {"image": 32, "patch": 8, "width": 32, "depth": 3, "heads": 2, "head_width": 64, "hidden": 48}


def pair(**sizes):
    """A plain SimMIM and ours with the same weights."""
    plain = randomize(PlainSimMIM(PlainVit(**{**SIZES, **sizes})), seed=0)
    return plain, from_released(plain.state_dict(), "test")


def batch(model, images=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    side = model.patch_size * round(model.patches**0.5)
    pixels = torch.randn(images, 3, side, side, generator=generator)
    return pixels, random_masks(torch.rand(images, model.patches, generator=generator))


@given(st.integers(1, 5), st.integers(1, 40), st.data())
@settings(max_examples=30, deadline=None)
def test_masks_are_exact_permutations(images, patches, data):
    masked = data.draw(st.integers(1, patches))
    seed = data.draw(st.integers(0, 1000))
    order = random_masks(torch.rand(images, patches, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(order.sort(dim=1).values, torch.arange(patches).expand(images, -1))
    mask = mask_from_order(order, masked)
    assert (mask.sum(dim=1) == masked).all()
    back = order_from_mask(mask)
    assert torch.equal(mask_from_order(back, masked), mask)
    assert torch.equal(back.sort(dim=1).values, torch.arange(patches).expand(images, -1))


def test_every_patch_is_masked_equally_often():
    order = random_masks(torch.rand(4000, 16, generator=torch.Generator().manual_seed(0)))
    share = mask_from_order(order, 8).float().mean(dim=0)
    assert (share - 0.5).abs().max() < 0.04  # five standard errors


@pytest.mark.parametrize("sizes", [{}, {"depth": 1}, {"image": 24}], ids=["tiny", "one layer", "odd grid"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
def test_loss_and_gradients_equal_the_plain_computation(sizes, dtype, tolerance):
    plain, ours = (model.to(dtype) for model in pair(**sizes))
    images, order = batch(ours)
    images = images.to(dtype)
    expected = plain(images, mask_from_order(order, ours.masked))
    expected.backward()
    loss = ours(images, order)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            assert name == "encoder.cls_token"
            continue
        expected = theirs[released_name(name)].grad
        error = (parameter.grad - expected).abs().max() / expected.abs().max()
        assert error < tolerance, name


def test_loss_equals_the_plain_computation_at_the_papers_sizes():
    plain = randomize(PlainSimMIM(PlainVit()), seed=0)
    ours = from_released(plain.state_dict(), "test")
    images, order = batch(ours, images=2)
    assert ours.masked == 32
    with torch.no_grad():
        expected = plain(images, mask_from_order(order, 32))
        torch.testing.assert_close(ours(images, order), expected, rtol=1e-5, atol=0)


def test_the_order_within_visible_and_masked_patches_does_not_matter():
    _, ours = pair()
    images, order = batch(ours)
    with torch.no_grad():
        sorted_order = order_from_mask(mask_from_order(order, ours.masked))
        torch.testing.assert_close(ours(images, order), ours(images, sorted_order), rtol=1e-5, atol=0)


def test_masked_pixels_are_not_seen():
    _, ours = pair()
    images, order = batch(ours)
    hidden = ours.pixel_mask(order)[:, None]
    with torch.no_grad():
        changed = torch.where(hidden, torch.randn_like(images), images)
        first, second = ours.reconstruct(images, order), ours.reconstruct(changed, order)
    torch.testing.assert_close(first.where(hidden, 0.0), second.where(hidden, 0.0))
    assert torch.equal(first.where(~hidden, 0.0), images.where(~hidden, 0.0))
    assert not torch.allclose(first, images)


def test_reconstruction_puts_predictions_where_the_loss_compares_them():
    _, ours = pair()
    images, order = batch(ours)
    with torch.no_grad():
        error = (ours.reconstruct(images, order) - images).abs()
        masked_error = patchify(error, ours.patch_size)[mask_from_order(order, ours.masked)]
        torch.testing.assert_close(masked_error.mean(), ours(images, order))


def test_the_releases_loss_is_the_mean_divided_by_the_number_of_masked_patches():
    _, ours = pair()
    images, order = batch(ours)
    with torch.no_grad():
        mean = ours(images, order)
        ours.loss = "divided_by_masked_patches"
        torch.testing.assert_close(ours(images, order), mean / ours.masked)


def test_mask_ratio_sets_the_exact_count():
    encoder = build_encoder(image_size=16, patch_size=4, width=8, depth=1, heads=1, head_width=8, mlp_width=8)
    assert SimMIM(encoder).masked == 8
    assert SimMIM(encoder, mask_ratio=0.75).masked == 12
    with pytest.raises(VinyError, match="none of 16 patches"):
        SimMIM(encoder, mask_ratio=0.01)


def test_a_step_needs_no_look_at_values():
    """On the meta device there are no values: whatever would make a GPU wait for the host fails here."""
    encoder = build_encoder(image_size=16, patch_size=4, width=8, depth=2, heads=1, head_width=8, mlp_width=8)
    model = SimMIM(encoder).to("meta")
    noise = torch.rand(2, 16, device="meta")
    loss = model(torch.zeros(2, 3, 16, 16, device="meta"), random_masks(noise))
    loss.backward()
    assert loss.shape == ()


def test_the_step_is_one_graph_for_the_compiler():
    _, ours = pair(depth=2)
    images, order = batch(ours)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, order), ours(images, order))
    compiled(images, order).backward()
    assert ours.mask_token.grad is not None
