"""Where a number comes from: fingerprints of code and settings, versions, machine."""

import ast
import functools
import hashlib
import json
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

# Modules that speak, name or record, and cannot change a trained weight or a metric.
NOT_NUMERICAL = frozenset({"viny.cli", "viny.console", "viny.errors", "viny.provenance", "viny.settings"})


@functools.cache
def code_fingerprint(module: str) -> str:
    """Fingerprint of all viny code that `module` runs: 12 hexadecimal digits.

    Covers the module and, transitively, every viny module it imports (also inside functions), as syntax trees:
    a comment, a docstring or white space changes nothing, an expression does.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(module)):
        digest.update(f"{name}\n{_normalized_source(name)}\n".encode())
    return digest.hexdigest()[:12]


def fingerprint(value: Any) -> str:
    """Fingerprint of a JSON-serializable value, independent of the order of its keys: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Versions, commit and host of this process, for `metrics.json`."""
    return {
        "viny": viny.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that this code runs from, with `+` appended if files differ from it; else None."""
    here = Path(__file__).resolve().parent
    git = ["git", "-C", str(here)]
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, env=env, check=True)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--", str(here)],
            capture_output=True,
            text=True,
            env=env,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if status.stdout.strip() else "")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _closure(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in NOT_NUMERICAL:
            continue
        found.add(name)
        waiting += _imports(name)
    return found


@functools.cache
def _imports(module: str) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(name for name in names if name.startswith("viny.") and _path(name))


@functools.cache
def _path(module: str) -> Path | None:
    """The source file of a viny module, found without importing it (torch would cost seconds)."""
    if module == "__main__":
        return None
    path = Path(viny.__file__).parent.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _tree(module: str) -> ast.Module:
    path = _path(module)
    if path is None:
        raise ModuleNotFoundError(module)
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def _normalized_source(module: str) -> str:
    """The module's code without comments, docstrings and layout."""
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
