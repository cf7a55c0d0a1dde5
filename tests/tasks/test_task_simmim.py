"""SimMIM: exact masks, and loss and gradients equal to a plain implementation's."""

import pytest
import torch
from plain_vit import PlainSimMIM, PlainVit, randomize

from viny.encoders.base import patchify
from viny.encoders.released import from_released, released_name
from viny.encoders.vit import ViNy
from viny.errors import VinyError
from viny.tasks.simmim import SimMIM

SIZES = {"image": 32, "patch": 8, "width": 32, "depth": 3, "heads": 2, "head_width": 64, "hidden": 48}
TINY = {"image_size": 16, "patch_size": 4, "width": 8, "depth": 2, "heads": 1, "head_width": 8, "mlp_width": 8}


def pair(**sizes):
    """A plain SimMIM and ours with the same weights."""
    plain = randomize(PlainSimMIM(PlainVit(**{**SIZES, **sizes})), seed=0)
    ours = SimMIM(from_released(plain.state_dict(), "test"))
    ours.mask_token.data.copy_(plain.mask_token)
    ours.decoder.load_state_dict(plain.decoder.state_dict())
    return plain, ours


def batch(model, images=4, seed=1):
    generator, encoder = torch.Generator().manual_seed(seed), model.encoder
    pixels = torch.randn(images, 3, encoder.image_size, encoder.image_size, generator=generator)
    return pixels, torch.rand(images, encoder.patches, generator=generator).argsort(dim=1)


def mask_of(order, masked):
    mask = torch.zeros_like(order, dtype=torch.bool)
    for row, those in zip(mask, order[:, order.shape[1] - masked :], strict=True):
        row[those] = True
    return mask


@pytest.mark.parametrize("sizes", [{}, {"depth": 1}, {"image": 24}], ids=["tiny", "one layer", "odd grid"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)], ids=["float64", "float32"]
)
def test_loss_and_gradients_equal_the_plain_computation(sizes, dtype, tolerance):
    plain, ours = (model.to(dtype) for model in pair(**sizes))
    images, order = batch(ours)
    images = images.to(dtype)
    expected = plain(images, mask_of(order, ours.masked))
    expected.backward()
    loss = ours(images, order)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=0)
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is None:
            assert name == "encoder.cls_token"
            continue
        own = name in ("mask_token", "decoder.weight", "decoder.bias")
        expected = theirs[name if own else f"encoder.{released_name(name)}"].grad
        assert (parameter.grad - expected).abs().max() / expected.abs().max() < tolerance, name


def test_loss_equals_the_plain_computation_at_the_papers_sizes():
    plain, ours = pair(image=128, patch=16, width=128, depth=12, heads=8, hidden=512)
    images, order = batch(ours, images=2)
    assert ours.masked == 32
    with torch.no_grad():
        torch.testing.assert_close(ours(images, order), plain(images, mask_of(order, 32)), rtol=1e-5, atol=0)


def test_the_order_within_visible_and_masked_patches_does_not_matter():
    _, ours = pair()
    images, order = batch(ours)
    parts = order[:, : -ours.masked], order[:, -ours.masked :]
    with torch.no_grad():
        other = torch.cat([part.sort(dim=1).values for part in parts], dim=1)
        torch.testing.assert_close(ours(images, order), ours(images, other), rtol=1e-5, atol=0)


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
        masked_error = patchify(error, ours.encoder.patch_size)[mask_of(order, ours.masked)]
        torch.testing.assert_close(masked_error.mean(), ours(images, order))


def test_mask_ratio_sets_the_exact_count():
    assert SimMIM(ViNy(**TINY)).masked == 8
    assert SimMIM(ViNy(**TINY), mask_ratio=0.75).masked == 12
    with pytest.raises(VinyError, match="none of 16 patches"):
        SimMIM(ViNy(**TINY), mask_ratio=0.01)
    with pytest.raises(VinyError, match="all of 16 patches"):
        SimMIM(ViNy(**TINY), mask_ratio=1.0)


def test_a_step_needs_no_look_at_values():
    """On the meta device there are no values: whatever would make a GPU wait for the host fails here."""
    model = SimMIM(ViNy(**TINY)).to("meta")
    order = torch.rand(2, 16, device="meta").argsort(dim=1)
    loss = model(torch.zeros(2, 3, 16, 16, device="meta"), order)
    loss.backward()
    assert loss.shape == ()


def test_the_step_is_one_graph_for_the_compiler():
    _, ours = pair(depth=2)
    images, order = batch(ours)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(images, order), ours(images, order))
    compiled(images, order).backward()
    assert ours.mask_token.grad is not None
