"""The README keeps to what the code says."""

import re
from pathlib import Path

import yaml

from viny.config import load
from viny.settings_table import insert, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_that_of_the_schema():
    assert insert(README, table()) == README, "run: python -m viny.settings_table --write README.md"


def test_the_example_study_is_valid():
    examples = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert examples
    for example in examples:
        load(yaml.safe_load(example))


def test_files_that_it_names_exist():
    named = set(re.findall(r"`((?:workflow|envs|src|tests|profiles)/[\w./-]+)`", README))
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert [name for name in images if not (ROOT / name).exists()] == []
