"""The one order of a data set that fixes test sets and nested subsets."""

import hashlib
from collections.abc import Iterable

from viny.datasets.listing import Entry


def rank(seed: int, name: str) -> bytes:
    """Place of an image in the order: the SHA-256 of `seed:name` (32 bytes).

    It depends on the seed and the name alone: it is the same on every machine, and adding or removing an image leaves
    all others in the same sequence.
    """
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def in_order(entries: Iterable[Entry], seed: int) -> list[Entry]:
    """`entries` as the order of `seed` has them: every prefix is a random subset, nested in every longer one."""
    return sorted(entries, key=lambda entry: rank(seed, entry.name))
