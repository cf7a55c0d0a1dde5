"""Variants of the same work, measured in turns and compared within each round."""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch

from viny.datasets.parallel import cores
from viny.files import write_text
from viny.provenance import commit
from viny.training.device import device_name

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SCHEMA = 2
PACKAGES = ("numpy", "pillow", "snakemake", "timm", "torch", "torchvision", "transformers")

Variants = Mapping[str, Callable[[], float]]


@dataclass(frozen=True)
class Options:
    """What the command line asks of every benchmark.

    Attributes:
        rounds: how often each variant is measured.
        quick: tiny sizes, which show that everything runs and nothing else.
        device: of the GPU benchmark. against: another checkout, for `demo`.
        compiled: measure compiled steps on a GPU as well.
    """

    rounds: int = 1
    quick: bool = True
    device: torch.device = CPU
    against: Path | None = None
    compiled: bool = False


@dataclass(frozen=True)
class Group:
    """Variants of the same work; the first is the peer that the others are compared with.

    Attributes:
        name: what is done. unit: `images/s`, or `s` and `h`, of which less is better.
        values: measurements of each variant, one a round.
        note: what a reader must know.
    """

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]
    note: str = ""

    @property
    def peer(self) -> str:
        """Name of the first variant."""
        return next(iter(self.values))

    def ratios(self, variant: str) -> list[float]:
        """How many times as fast as the peer a variant was, round by round."""
        pairs = zip(self.values[variant], self.values[self.peer], strict=True)
        return [peer / own if self.unit in ("s", "h") else own / peer for own, peer in pairs]

    def as_json(self) -> dict[str, Any]:
        """For the file: medians and, against the peer, the median, least and greatest ratio of the rounds."""
        variants = {}
        for variant, values in self.values.items():
            ratios = self.ratios(variant)
            ratio = {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
            variants[variant] = {"median": median(values), "ratio": ratio, "values": list(values)}
        return {"unit": self.unit, "peer": self.peer, "note": self.note, "variants": variants}


def compare(name: str, unit: str, variants: Variants, options: Options, note: str = "", warm: bool = True) -> Group:
    """Measure all variants once, then all of them again: whatever slows the machine down meets each of them.

    Every second round goes backwards. Progress goes to standard error.

    Args:
        warm: run every variant once before, for caches to fill, and leave out with a note what fails then (there may be
            no compiler, or too little memory); never in a quick run.
    """
    values: dict[str, list[float]] = {}
    for variant, call in variants.items():
        try:
            if warm and not options.quick:
                call()
            values[variant] = []
        except Exception as error:
            note += f"; {variant} failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    for number in range(options.rounds):
        for variant in list(values)[:: 1 if number % 2 == 0 else -1]:
            values[variant].append(variants[variant]())
            progress = f"  {name}, round {number + 1}/{options.rounds}: {variant} {values[variant][-1]:,.4g} {unit}"
            print(progress, file=sys.stderr, flush=True)
    return Group(name, unit, values, note)


def report(groups: Iterable[Group], options: Options, path: Path | None) -> None:
    """Print the table of all groups; keep what has been measured in the file `path` after each of them."""
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "quick": options.quick,
        "rounds": options.rounds,
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {"device": device_name(options.device), "cores": cores(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "benchmarks": {},
    }
    rows = ["| work | variant | median | times the peer (min to max) |", "|---|---|---|---|"]
    notes = []
    for group in groups:
        found = document["benchmarks"][group.name] = group.as_json()
        for variant, measured in found["variants"].items():
            ratio, value = measured["ratio"], measured["median"]
            shown = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
            compared = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
            compared = "peer" if variant == group.peer else compared
            rows.append(f"| {group.name} | {variant} | {shown} {group.unit} | {compared} |")
        notes += [f"{group.name}: {group.note}"] if group.note else []
        if path:
            write_text(path, json.dumps(document, indent=1) + "\n")
    print("\n".join([*rows, "", *notes]))


def rate(call: Callable[[], Any], amount: float, seconds: float, device: torch.device) -> float:
    """How much of something is done in a second by a call that does `amount`, over calls that fill the time."""
    calls = 1
    while True:
        wait(device)
        clock = time.perf_counter()
        for _ in range(calls):
            call()
        wait(device)
        took = time.perf_counter() - clock
        if took >= seconds:
            return calls * amount / took
        calls *= 2


def command_seconds(*commands: Sequence[str], **options: Any) -> float:
    """Wall time of commands that run side by side and must all succeed.

    Raises:
        RuntimeError: one fails, with what it said.
    """
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, **options.pop("env", {})}
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in commands]
        clock = time.perf_counter()
        running = [
            subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, **options)
            for command, out in zip(commands, said, strict=True)
        ]
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - clock
        for command, code, out in zip(commands, codes, said, strict=True):
            if code:
                out.seek(0)
                raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{out.read()}")
    return seconds


def snakemake(folder: Path, snakefile: Path, *arguments: str, cores: int = 1) -> list[str]:
    """A command that runs Snakemake in a folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(folder)]
    return [*command, "--cores", str(cores), *arguments]


def script(name: str) -> ModuleType:
    """A Python file of the checkout that is part of no package."""
    spec = spec_from_file_location(Path(name).stem, ROOT / name)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wait(device: torch.device) -> None:
    """Until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
