"""The one order of a data set that fixes test sets and nested subsets."""

import hashlib
from collections.abc import Iterable
from typing import Protocol, TypeVar


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def rank(seed: int, name: str) -> bytes:
    """Place of an image in the order: the SHA-256 of `seed:name` (32 bytes).

    It depends on nothing but the seed and the name, so it is the same on every machine, and adding or removing an
    image leaves all others in the same sequence.
    """
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()


def in_order(entries: Iterable[T], seed: int) -> list[T]:
    """`entries` as the order of `seed` has them: every prefix is a random subset, nested in every longer one."""
    return sorted(entries, key=lambda entry: rank(seed, entry.name))
