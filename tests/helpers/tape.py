"""A CUDA graph's stand-in on a CPU: records what a function computes, computes it again on request.

What makes a step unfit for a graph shows here, too: a number that Python computed is recorded as it was, whatever a
step writes must be there when it is read again, and an operation that hands numbers to Python fails.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
WAITING = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default)


class Tape:
    """A recorder for `Execution`, which counts what it did."""

    def __init__(self):
        self.recorded, self.replayed = 0, 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        """Record `work`; as with a graph, nothing has been computed when this returns."""
        recording = _Recording()
        with recording:
            result = work()
        recording.undo()
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            recording.replay()

        return replay, result


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls, self.before, self.made = [], [], set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in WAITING or (func is aten.index.Tensor and any(i.dtype == torch.bool for i in tree_leaves(args[1]))):
            raise RuntimeError(f"{func} waits for the device")
        self._remember(func, args, kwargs)
        result = func(*args, **kwargs)
        outside = {_place(value) for value in tensors((args, kwargs))}
        self.made |= {_place(value) for value in tensors(result)} - outside
        self.calls.append((func, args, kwargs, result))
        return result

    def _remember(self, func, args, kwargs) -> None:
        """Keep what is about to be overwritten and was there before."""
        for argument, value in zip(func._schema.arguments, [*args, *kwargs.values()], strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                self.before += [(v, v.clone()) for v in tensors(value) if _place(v) not in self.made]

    @torch.no_grad()
    def undo(self) -> None:
        """Put everything back."""
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        """Compute everything again, in the same places."""
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(tensors(result), tensors(again), strict=True):
                if _place(old) != _place(new):
                    old.copy_(new)


def tensors(tree) -> list[Tensor]:
    """All tensors in nested lists and dicts."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    """Where its values are; what is recorded is kept, so no place is used twice."""
    return tensor.untyped_storage()._cdata
