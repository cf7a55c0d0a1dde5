"""Attention written by hand: the textbook's formula, its gradients, in float32 and bfloat16."""

import pytest
import torch
from torch.nn import functional as F

from viny.models.attention import Attention, ExplicitAttention

HEADS, WIDTH = 2, 4


@pytest.fixture(autouse=True)
def _same_weights_every_time():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def projections(n, asking):
    """Queries of `asking` tokens beside keys and values of n, as the layer makes them."""
    generator = torch.Generator().manual_seed(0)
    inner = HEADS * WIDTH
    shapes = [(3, n, 3 * inner)] if asking is None else [(3, asking, inner), (3, n, 2 * inner)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def textbook(*projected):
    """softmax(QK / sqrt(width))V, one image and head at a time."""
    query, key, value = (part for x in projected for part in x.split(HEADS * WIDTH, dim=2))
    images = []
    for q, k, v in zip(query, key, value, strict=True):
        heads = []
        for head in range(HEADS):
            part = slice(head * WIDTH, (head + 1) * WIDTH)
            weights = F.softmax(q[:, part] @ k[:, part].T / WIDTH**0.5, dim=-1)
            heads.append(weights @ v[:, part])
        images.append(torch.cat(heads, dim=1))
    return torch.stack(images)


@pytest.mark.parametrize("asking", [None, 2])
def test_it_is_the_textbooks_attention_with_its_gradients(asking):
    inputs = projections(5, asking)
    ours, theirs = ExplicitAttention.apply(HEADS, WIDTH, *inputs), textbook(*inputs)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    ):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(lambda *x: ExplicitAttention.apply(HEADS, WIDTH, *x), inputs)


def test_under_autocast_it_is_bfloat16_and_close_to_float32():
    layer = Attention(24, HEADS, WIDTH, "explicit")
    tokens = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1))
    exact = layer(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(tokens)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.01)
    (gradient,) = torch.autograd.grad(rounded.sum(), layer.qkv.weight)
    (expected,) = torch.autograd.grad(exact.sum(), layer.qkv.weight)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, expected, rtol=0.05, atol=0.05)


def test_it_works_without_gradients():
    layer = Attention(24, HEADS, WIDTH, "explicit")
    tokens = torch.randn(2, 7, 24)
    with torch.inference_mode():
        torch.testing.assert_close(layer(tokens), layer(tokens, slice(0, 7)))
