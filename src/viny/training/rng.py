"""Random numbers from named streams.

Every random decision of a run comes from a stream named by (seed, purpose, epoch). A stream is made afresh wherever
it is needed, so no generator state has to be saved: a resumed run, another number of threads or another device draws
the same numbers.
"""

import hashlib

import numpy as np
import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of a run with `seed`; the same on every machine."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the stream `names`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """The same for distributions that torch does not sample from a generator (Beta)."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))
