"""Fingerprints follow the code that computes: words change none, a number exactly those of the tasks that use it."""

import ast
import shutil
from pathlib import Path

import pytest

from viny import fingerprint
from viny.fingerprint import LOGGERS, code_fingerprint

SOURCE = Path(fingerprint.__file__).parent
TRAINED = ("simmim", "classification", "patches", "segmentation")
TASKS = (*TRAINED, "geometry")


class Reworded(ast.NodeTransformer):
    """Other words everywhere: docstrings, annotations, messages of errors, log lines, and one more log line."""

    def visit_FunctionDef(self, node):
        self.generic_visit(node)
        node.returns = ast.Name("object", ast.Load())
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = ast.Constant("something else")
        if any(isinstance(part, ast.Yield | ast.YieldFrom) for part in ast.walk(node)) or node.decorator_list:
            return node
        node.body[:0] = [ast.parse(text).body[0] for text in ("'Other words.'", "log.info('one more line')")]
        return node

    def visit_Raise(self, node):
        return self._reworded(node)

    def visit_Expr(self, node):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        while isinstance(called, ast.Attribute):
            called = called.value
        docstring = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        speaks = isinstance(called, ast.Name) and called.id in LOGGERS
        return self._reworded(node) if docstring or speaks else self.generic_visit(node)

    def _reworded(self, node):
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                part.value += " in other words"
        return node


@pytest.fixture(scope="module")
def before():
    return {task: code_fingerprint(task) for task in TASKS}


def copied(folder, change, *names):
    """A copy of the package with some files (all, if none is named) changed."""
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [folder / name for name in names] or sorted(folder.rglob("*.py")):
        path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder


def test_words_change_no_fingerprint(tmp_path, before):
    def reword(code):
        return "# A comment.\n" + ast.unparse(ast.fix_missing_locations(Reworded().visit(ast.parse(code)))) + "\n\n\n"

    source = copied(tmp_path / "viny", reword)
    assert "other words" in (source / "training/loop.py").read_text()
    assert {task: code_fingerprint(task, source=source) for task in TASKS} == before


def test_modules_that_only_speak_change_no_fingerprint(tmp_path, before):
    silent = (
        "logs.py",
        "errors.py",
        "files.py",
        "result.py",
        "grid/jobs.py",
        "grid/study.py",
        "cli.py",
        "training/state.py",
    )
    source = copied(tmp_path / "viny", lambda code: code + "\nADDED = 1\n", *silent)
    assert {task: code_fingerprint(task, source=source) for task in TASKS} == before


NUMBERS = [
    ("datasets/augment.py", "draw_crops", {"simmim"}),
    ("datasets/augment.py", "draw_contrast", {"classification", "patches", "segmentation"}),
    ("datasets/augment.py", "unit_range", set(TASKS)),
    ("datasets/decode.py", "decode_image", set(TASKS)),
    ("datasets/decode.py", "decode_mask", {"patches", "segmentation", "geometry"}),
    ("datasets/order.py", "in_order", set(TASKS)),
    ("encoders/vit.py", "Block", set(TASKS)),
    ("training/schedule.py", "Schedule", set(TRAINED)),
    ("training/update.py", "Update", set(TRAINED)),
    ("training/loop.py", "train", set(TRAINED)),
    ("tasks/simmim.py", "Task", {"simmim"}),
    ("tasks/segmentation.py", "Task", {"segmentation"}),
    ("tasks/geometry.py", "Task", {"geometry"}),
]


@pytest.mark.parametrize(
    ("name", "definition", "concerned"), NUMBERS, ids=[f"{name}-{part}" for name, part, _ in NUMBERS]
)
def test_a_changed_operation_changes_the_tasks_that_use_it(tmp_path, before, name, definition, concerned):
    def change(code):
        tree = ast.parse(code)
        [node] = [n for n in tree.body if getattr(n, "name", None) == definition]
        functions = [part for part in ast.walk(node) if isinstance(part, ast.FunctionDef)]
        functions[-1].body.append(ast.parse("1 + 1").body[0])
        return ast.unparse(tree)

    source = copied(tmp_path / "viny", change, name)
    after = {task: code_fingerprint(task, source=source) for task in TASKS}
    assert {task for task in TASKS if after[task] != before[task]} == concerned


def test_another_encoder_changes_the_tasks_that_train_it(tmp_path, before):
    source = copied(tmp_path / "viny", lambda code: code + "\nADDED = 1\n", "encoders/timm_vit.py")
    assert {task: code_fingerprint(task, source=source) for task in TASKS} == before
    changed = {task: code_fingerprint(task, "timm_vit", source) for task in TASKS}
    assert not set(changed.values()) & {code_fingerprint(task, "timm_vit") for task in TASKS}


def test_fingerprints_of_values_ignore_the_order_of_keys():
    assert fingerprint.fingerprint({"a": 1, "b": [2]}) == fingerprint.fingerprint({"b": [2], "a": 1})
    assert fingerprint.fingerprint({"a": 1}) != fingerprint.fingerprint({"a": 1.5})
