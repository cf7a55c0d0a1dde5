"""Fingerprints of values, and of the code that computes a task's numbers.

The fingerprint of a task covers every function, class and constant that its module, the training loop and the decoder
use, directly or not. Text does not count: docstrings, annotations, messages of errors and log lines. So a changed
message changes no fingerprint, and a changed number changes those of exactly the tasks that use it.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent
# Modules that log, name, check or record, and cannot change a trained weight or a metric.
SILENT = (
    *("config", "datasets.store", "encoders.checkpoints", "errors", "files", "fingerprint", "grid", "logs"),
    *("provenance", "result", "training.gpu_slots", "training.state"),
)
# Names whose calls, as statements, only log.
LOGGERS = frozenset({"log", "logging", "warnings", "progress", "print"})
# Where code starts that is not a task's own module: a module, or one definition of it.
DECODING = (
    *("datasets.decode:decode_image", "datasets.order:in_order"),
    *("datasets.build:order_for_testing", "datasets.build:order_for_training"),
)
DEVICE = ("training.device:select_device",)
TRAINING = ("training.loop:train", "training.schedule", "training.update", *DEVICE, *DECODING)
MASKS = ("datasets.decode:decode_mask",)
ROOTS = {
    "classification": TRAINING,
    "simmim": TRAINING,
    "geometry": (*DEVICE, *DECODING, *MASKS),
    "decoding": (*DECODING, *MASKS),
    "procedural": ("datasets.procedural",),
}


def fingerprint(value: Any) -> str:
    """Fingerprint of a JSON-serializable value, independent of the order of its keys: 12 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@functools.cache
def code_fingerprint(task: str, encoder: str = "vit", source: Path = SOURCE) -> str:
    """Fingerprint of the code that computes the numbers of a task, or of `decoding` or `procedural`: 12 digits.

    Args:
        encoder: module of `viny.encoders` that the task trains.
        source: folder of the package's code.
    """
    roots = ROOTS.get(task, (*TRAINING, *MASKS))
    if (source / "tasks" / f"{task}.py").is_file():
        roots = (f"tasks.{task}", f"encoders.{encoder}", *roots)
    digest = hashlib.sha256()
    for module, name in sorted(reachable(roots, source)):
        digest.update(f"{module}:{name}\n{_module(module, source).definitions[name]}\n".encode())
    return digest.hexdigest()[:12]


def reachable(roots: tuple[str, ...], source: Path = SOURCE) -> set[tuple[str, str]]:
    """(module, definition) of everything that the roots use: `tasks.simmim`, or `training.loop:train`."""
    found: set[tuple[str, str]] = set()
    waiting: list[tuple[str, str]] = []
    for root in roots:
        module, _, name = root.partition(":")
        waiting += [(module, name)] if name else [(module, n) for n in _module(module, source).definitions]
    while waiting:
        module, name = waiting.pop()
        if (module, name) in found or module.startswith(SILENT):
            continue
        code = _module(module, source)
        if name not in code.definitions:
            continue
        found.add((module, name))
        waiting += code.uses[name]
        waiting += [(module, other) for other in code.definitions if other.startswith("<")]
    return found


class _Module:
    """The definitions of a module without words, and what each of them uses."""

    def __init__(self, name: str, source: Path):
        path = _path(name, source)
        assert path is not None, name
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = {names: node for node in tree.body for names in [_names(node)] if names}
        # What local names stand for: own definitions, those of other modules, and modules (with an empty name).
        known = {each: (name, each) for names in nodes for each in names}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "viny":
                module = node.module.partition(".")[2]
                for alias in node.names:
                    inner = f"{module}.{alias.name}".lstrip(".")
                    is_module = _path(inner, source) is not None
                    known[alias.asname or alias.name] = (inner, "") if is_module else (module, alias.name)
        self.definitions: dict[str, str] = {}
        self.uses: dict[str, list[tuple[str, str]]] = {}
        for names, node in nodes.items():
            statement = _Wordless().visit(node)
            if statement is not None:
                for each in names:
                    self.definitions[each] = ast.unparse(statement)
                    self.uses[each] = list(_used(statement, known))


def _used(node: ast.AST, known: dict[str, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(module, definition) of what a statement uses."""
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            module, name = known.get(part.value.id, ("", ""))
            if module and not name:
                yield module, part.attr
        elif isinstance(part, ast.Name):
            module, name = known.get(part.id, ("", ""))
            if name:
                yield module, name


class _Wordless(ast.NodeTransformer):
    """Removes text: docstrings, annotations, messages of errors, log lines."""

    def visit_ClassDef(self, node: Any) -> ast.AST:
        self.generic_visit(node)
        node.body = node.body or [ast.Pass()]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.visit_ClassDef(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return ast.Raise()

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return ast.Assert(test=node.test)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return ast.Expr(node.target)  # a field of a dataclass: its name and place count
        return self.visit(ast.Assign(targets=[node.target], value=node.value, lineno=0))

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant):
            return None
        called = node.value.func if isinstance(node.value, ast.Call) else None
        while isinstance(called, ast.Attribute):
            called = called.value
        return None if isinstance(called, ast.Name) and called.id in LOGGERS else self.generic_visit(node)


def _names(node: ast.stmt) -> tuple[str, ...]:
    """Names that a statement at the top of a module defines; `<line>`-like for one that only does something."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return (node.name,)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return tuple(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
    if isinstance(node, ast.Import | ast.ImportFrom) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ):
        return ()
    return (f"<{ast.unparse(node)[:40]}>",)


@functools.cache
def _module(name: str, source: Path) -> _Module:
    return _Module(name, source)


@functools.cache
def _path(module: str, source: Path) -> Path | None:
    """The source file of a module of viny, found without importing it (torch would cost seconds)."""
    path = source.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
