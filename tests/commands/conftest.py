"""A study with invented results."""

import json
from pathlib import Path

import pytest
from fabricate import CONFIG, fill, make_study

from viny.grid import Study


@pytest.fixture
def config() -> dict:
    """A config that a test may change before it makes its study."""
    return json.loads(json.dumps(CONFIG))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    """The working directory is a folder of its own, and standard output no terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def study(config, elsewhere) -> Study:
    """The study without results."""
    return make_study(config)


@pytest.fixture
def done(study) -> Study:
    """The study with all results and stores."""
    fill(study)
    return study


@pytest.fixture
def configfile(config, tmp_path) -> str:
    """The config as a file."""
    path = Path(tmp_path, "toy.yaml")
    path.write_text(json.dumps(config))  # JSON is YAML
    return str(path)
