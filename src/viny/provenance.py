"""Where a number comes from: versions, commit, machine."""

import functools
import os
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import viny

PACKAGES = ("numpy", "pillow", "safetensors", "timm", "torch", "torchvision")


def environment() -> dict[str, Any]:
    """Versions, commit and host of this process, for `metrics.json`."""
    return {
        "viny": viny.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that this code runs from, with `+` appended if files differ from it; else None."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        head, changed = (
            subprocess.run([*git, *words], capture_output=True, text=True, env=env, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", "."))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def processor() -> str:
    """The processor's own name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as info:
            return next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "cpu"
