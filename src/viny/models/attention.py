"""Multi-head self-attention whose heads have a width of their own, computed as is fastest on the device."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

ATTENTION_MODES = ("auto", "fused", "explicit")


class Attention(nn.Module):
    """Multi-head self-attention whose heads have a width of their own; qkv without bias (rows q, k, v).

    `mode` says how softmax(QK)V is computed, not what: `fused` is PyTorch's scaled_dot_product_attention,
    `explicit` matrix products and a softmax; `auto` is fused on CUDA and explicit elsewhere, where the fused
    kernel's backward pass is several times slower for 64 tokens.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int, mode: str = "auto"):
        super().__init__()
        self.num_heads, self.head_dim, self.mode = num_heads, head_dim, mode
        self.qkv = nn.Linear(dim, 3 * num_heads * head_dim, bias=False)
        self.proj = nn.Linear(num_heads * head_dim, dim)

    def forward(self, tokens: Tensor, asking: slice | None = None) -> Tensor:
        """Let the tokens `asking` (all, if None) attend to all `tokens`, (B, N, width) -> (B, asking, width)."""
        if asking is None:
            projected = (self.qkv(tokens),)
        else:
            inner, weight = self.num_heads * self.head_dim, self.qkv.weight
            projected = F.linear(tokens[:, asking], weight[:inner]), F.linear(tokens, weight[inner:])
        if self.mode == "fused" or (self.mode == "auto" and tokens.is_cuda):
            heads = (part for x in projected for part in _by_head(x, self.num_heads, self.head_dim))
            mixed = F.scaled_dot_product_attention(*heads)
            return self.proj(mixed.transpose(1, 2).flatten(2))
        return self.proj(ExplicitAttention.apply(self.num_heads, self.head_dim, *projected))


class ExplicitAttention(torch.autograd.Function):
    """softmax(QK / sqrt(head_dim))V as matrix products over heads that lie one after another in memory.

    Arguments are the numbers of heads and of values per head, then queries, keys and values side by side, in one
    tensor (B, N, 3 * heads * head_dim) or in two, (B, asking, heads * head_dim) and (B, N, 2 * heads * head_dim);
    the result is (B, asking, heads * head_dim). Autograd would compute the same, bit for bit, but copy each of the
    three and its gradient several times between the two layouts; here all are copied together, once.
    """

    @staticmethod
    def forward(ctx: Any, heads: int, head_dim: int, *projected: Tensor) -> Tensor:
        """Mix the values."""
        split = [_split_heads(x, heads, head_dim) for x in projected]
        query, key, value = (part for parts in split for part in parts)
        scores = torch.baddbmm(query.new_empty(()), query, key.mT, beta=0, alpha=head_dim**-0.5)
        weights = scores.softmax(dim=-1, dtype=scores.dtype)  # (B * heads, asking, N); autocast must not widen it
        mixed = weights @ value
        ctx.save_for_backward(weights, *split)
        ctx.heads, ctx.head_dim = heads, head_dim
        return _join_heads(mixed[None], heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the projections."""
        weights, *split = ctx.saved_tensors
        query, key, value = (part for parts in split for part in parts)
        found = [torch.empty_like(parts) for parts in split]
        of_query, of_key, of_value = (part for parts in found for part in parts)
        (mixed,) = _split_heads(gradient, ctx.heads, ctx.head_dim)
        scale = {"beta": 0, "alpha": ctx.head_dim**-0.5}
        torch.bmm(weights.mT, mixed, out=of_value)
        scores = torch._softmax_backward_data(mixed @ value.mT, weights, -1, weights.dtype)
        torch.baddbmm(of_query, scores, key, **scale, out=of_query)
        torch.baddbmm(of_key, scores.mT, query, **scale, out=of_key)
        return None, None, *(_join_heads(parts, ctx.heads) for parts in found)


def _by_head(x: Tensor, heads: int, head_dim: int) -> Tensor:
    """(B, N, parts * heads * head_dim) -> (parts, B, heads, N, head_dim), without a copy."""
    return x.unflatten(2, (-1, heads, head_dim)).permute(2, 0, 3, 1, 4)


def _split_heads(x: Tensor, heads: int, head_dim: int) -> Tensor:
    """(B, N, parts * heads * head_dim) -> (parts, B * heads, N, head_dim), contiguous."""
    return _by_head(x, heads, head_dim).contiguous().flatten(1, 2)


def _join_heads(x: Tensor, heads: int) -> Tensor:
    """(parts, B * heads, N, head_dim) -> (B, N, parts * heads * head_dim)."""
    return x.unflatten(1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2)
