"""Tasks: one module each, with its settings (`Settings`) and a class `Task`; docs/tasks.md says how to add one."""

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """The names of all tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in ("base", "metrics"))


def load(name: str) -> ModuleType:
    """The module of a task, one of `names()`."""
    return importlib.import_module(f"viny.tasks.{name}")
