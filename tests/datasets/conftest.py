"""Small generated data sets in the published layouts, made once, and copies of them to break."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packing import SOURCES, make_spec

from viny.config.sections import Procedural
from viny.datasets import build as building
from viny.datasets.procedural import generate
from viny.datasets.store import Store
from viny.grid import StoreSpec

PROCEDURAL = Procedural(imagenet=60, intel=72, pets=74, pixels=24)


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data root with imagenet/train (60 images), intel (60 + 12), oxford-iiit-pet (74); not to be changed."""
    root = tmp_path_factory.mktemp("data")
    for name in SOURCES:
        generate(name, PROCEDURAL, root)
    return root


@pytest.fixture
def copy(data, tmp_path) -> Callable[[str], Path]:
    """A function that copies a data set, to be broken by the test, and returns its source path."""

    def make(name: str) -> Path:
        return Path(shutil.copytree(data / SOURCES[name], tmp_path / "copy" / SOURCES[name]))

    return make


@pytest.fixture
def spec(tmp_path) -> Callable[..., StoreSpec]:
    """`spec(name, source, ...)`: a store in `tmp_path/stores`; paths of own sets are relative to `tmp_path/data`."""

    def make(name: str, source: Path, folder: str = "stores", **fields: Any) -> StoreSpec:
        return make_spec(tmp_path / folder, source, tmp_path / "data", name, **fields)

    return make


@pytest.fixture
def build(spec) -> Callable[..., Store]:
    """`build(name, source, ...)`: a store built and opened."""

    def make(*arguments: Any, **fields: Any) -> Store:
        workers = fields.pop("workers", 1)
        made = spec(*arguments, **fields)
        building.build(made, workers=workers)
        return Store.open(made.folder)

    return make
