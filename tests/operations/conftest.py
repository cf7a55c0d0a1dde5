"""A study with invented results."""

import json
from collections.abc import Iterator

import pytest
from fabricate import CONFIG, fill

from viny.study import Study


@pytest.fixture
def config() -> dict:
    """A config that a test may change before it makes its study."""
    return json.loads(json.dumps(CONFIG))


@pytest.fixture
def study(config, tmp_path, monkeypatch) -> Iterator[Study]:
    """The study without results; the working directory is a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Study.from_config(config)


@pytest.fixture
def done(study) -> Study:
    """The study with all results and stores."""
    fill(study)
    return study


@pytest.fixture
def configfile(config, tmp_path) -> str:
    """The config as a file."""
    path = tmp_path / "toy.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return str(path)
