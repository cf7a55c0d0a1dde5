"""Settings that cannot pay on this machine. They are said before a run and never stop it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from viny.config.sections import Config
from viny.provenance import processor

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}  # names in /proc/cpuinfo of arithmetic in hardware


def advice(config: Config, cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """One sentence for each setting of a study that makes runs on a CPU slower; none where they run on a GPU."""
    if config.compute.device == "cuda" or (config.compute.device == "auto" and shutil.which("nvidia-smi")):
        return []
    return list(_on_a_cpu(config, cpuinfo))


def _on_a_cpu(config: Config, cpuinfo: Path) -> Iterator[str]:
    slow = [name for name, stage in config.stages.items() if stage.precision == "bf16"]
    if slow and not _has_bfloat16(cpuinfo):
        yield (
            f"precision: bf16 ({', '.join(slow)}): {processor()} computes bfloat16 in software, which is many times "
            "slower than fp32"
        )
    if config.compute.compile:
        yield "compute.compile: compiling takes half a minute and did not pay on any processor that was measured"
    if config.compute.threads > 1:
        yield (
            f"compute.threads: {config.compute.threads}: as many jobs of one thread each get through a grid faster, "
            "as long as memory allows"
        )


def _has_bfloat16(cpuinfo: Path) -> bool:
    """Whether the processor has instructions for bfloat16; True if that is not known."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return True
    flags = [line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))]
    return not flags or not _BFLOAT16.isdisjoint(flags[0])
