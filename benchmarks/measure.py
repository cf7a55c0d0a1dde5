"""Variants of the same work, measured in turns and compared within each round."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from statistics import median
from typing import Any

import torch

from viny.provenance import commit
from viny.training.device import device_name

SCHEMA = 1
PACKAGES = ("numpy", "pillow", "snakemake", "timm", "torch", "torchvision", "transformers")


@dataclass(frozen=True)
class Options:
    """What the command line asks of every benchmark.

    Attributes:
        rounds: how often each variant is measured. quick: tiny sizes, which show that it runs and nothing else.
        compiled: measure compiled variants, too, which takes a minute to begin.
    """

    rounds: int
    quick: bool
    compiled: bool = False


@dataclass(frozen=True)
class Group:
    """Variants of the same work.

    Attributes:
        name: what is done.
        unit: `images/s` or `s`.
        peer: the variant that the others are compared with.
        values: measurements of each variant, one a round.
        note: what a reader must know.
    """

    name: str
    unit: str
    peer: str
    values: Mapping[str, Sequence[float]]
    note: str = ""

    def ratios(self, variant: str) -> list[float]:
        """How many times as fast as the peer a variant was, round by round."""
        pairs = zip(self.values[variant], self.values[self.peer], strict=True)
        return [own / peer if self.unit != "s" else peer / own for own, peer in pairs]

    def as_json(self) -> dict[str, Any]:
        """For the file: medians and, against the peer, the median, least and greatest ratio of the rounds."""
        variants = {}
        for variant, values in self.values.items():
            ratios = self.ratios(variant)
            variants[variant] = {
                "median": median(values),
                "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
                "values": list(values),
            }
        return {"unit": self.unit, "peer": self.peer, "note": self.note, "variants": variants}


def in_turns(variants: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure all variants once, then all of them again: whatever slows the machine down meets each of them.

    Every second round goes backwards. Progress goes to standard error.
    """
    values: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name in list(variants)[:: 1 if number % 2 == 0 else -1]:
            values[name].append(variants[name]())
            print(f"  round {number + 1}/{rounds}: {name} {values[name][-1]:,.4g}", file=sys.stderr, flush=True)
    return values


def document(groups: Sequence[Group], options: Options) -> dict[str, Any]:
    """All that was measured, and on what."""
    return {
        "schema": SCHEMA,
        "quick": options.quick,
        "rounds": options.rounds,
        **circumstances(),
        "benchmarks": {group.name: group.as_json() for group in groups},
    }


def circumstances() -> dict[str, Any]:
    """Machine, versions and time."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "processor": device_name(torch.device("cpu")),
            "cores": len(os.sched_getaffinity(0)),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    }


def markdown(groups: Sequence[Group]) -> str:
    """The table of a run."""
    rows = ["| work | variant | median | times the peer (min to max) |", "|---|---|---|---|"]
    for group in groups:
        for variant, found in group.as_json()["variants"].items():
            ratio = found["ratio"]
            compared = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            compared = "peer" if variant == group.peer else compared
            rows.append(f"| {group.name} | {variant} | {_shown(found['median'])} {group.unit} | {compared} |")
    return "\n".join(rows)


def environment() -> dict[str, str]:
    """Environment of a measured command: one thread."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def command_seconds(command: Sequence[str], **options: Any) -> float:
    """Wall time of a command that must succeed."""
    clock = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, **options)
    seconds = time.perf_counter() - clock
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return seconds


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
