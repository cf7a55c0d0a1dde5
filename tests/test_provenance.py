"""Fingerprints change with the code that computes, and with nothing else."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import viny
from viny import provenance

STAGE = '''"""What it does."""
from viny import console
from viny.lib.helper import double

def run(x):
    """Doc."""
    return double(x) + 1  # a remark
'''
HELPER = "def double(x):\n    return 2 * x\n"


@pytest.fixture
def fingerprint(tmp_path, monkeypatch):
    """A function that fingerprints a small package standing in for viny, with some files replaced."""

    def compute(**changed):
        files = {"stage.py": STAGE, "lib/helper.py": HELPER, "lib/other.py": "x = 1\n", "console.py": "", **changed}
        for name, text in files.items():
            path = tmp_path / "viny" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(viny, "__file__", str(tmp_path / "viny" / "__init__.py"))
        for value in vars(provenance).values():
            getattr(value, "cache_clear", lambda: None)()
        return provenance.code_fingerprint("viny.stage")

    yield compute
    for value in vars(provenance).values():
        getattr(value, "cache_clear", lambda: None)()


def test_comments_docstrings_and_layout_do_not_count(fingerprint):
    rewritten = STAGE.replace("a remark", "another").replace("What it does", "Said better").replace('"""Doc."""', "")
    assert fingerprint(**{"stage.py": rewritten + "\n\n"}) == fingerprint()


def test_an_expression_counts_in_the_module_and_in_what_it_imports(fingerprint):
    original = fingerprint()
    assert fingerprint(**{"stage.py": STAGE.replace("+ 1", "+ 2")}) != original
    assert fingerprint(**{"lib/helper.py": HELPER.replace("2 *", "3 *")}) != original


def test_code_that_is_not_run_or_only_speaks_does_not_count(fingerprint):
    assert fingerprint(**{"lib/other.py": "x = 2\n", "console.py": "loud = True\n"}) == fingerprint()


def test_the_stages_cover_the_rooms_they_use():
    covered = provenance._closure("viny.stages.finetune")
    assert {"viny.training.loop", "viny.data.augment", "viny.models.encoder", "viny.evaluation.segmentation"} <= covered
    assert not {name for name in covered if name.startswith(("viny.analysis", "viny.operations", "viny.study"))}


def test_fingerprints_of_values_ignore_the_order_of_keys():
    assert provenance.fingerprint({"a": 1, "b": [2]}) == provenance.fingerprint({"b": [2], "a": 1})
    assert provenance.fingerprint({"a": 1}) != provenance.fingerprint({"a": 1.5})


def test_the_workflow_side_needs_no_torch():
    modules = ["viny.study", "viny.config", "viny.provenance", "viny.training.state", "viny.cli"]
    code = f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\nprint('torch' in sys.modules)"
    environment = {"PYTHONPATH": str(Path(importlib.import_module("viny.config").__file__).parents[1])}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == "False"
