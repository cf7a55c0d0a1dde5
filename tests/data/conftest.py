"""Tiny procedural data sets in the published layouts, made once, and copies of them to break."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from viny.data.ingest import ingest
from viny.data.procedural import generate
from viny.data.store import Store

IMAGES = {"imagenet": 60, "intel": 36, "pets": 74}
SOURCES = {"imagenet": "imagenet/train", "intel": "intel", "pets": "oxford-iiit-pet"}


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A data root with imagenet/train (60 images), intel (36), oxford-iiit-pet (74); not to be changed."""
    root = tmp_path_factory.mktemp("data")
    for dataset, images in IMAGES.items():
        generate(dataset, images, 24, 0, root)
    return root


@pytest.fixture
def copy(data, tmp_path) -> Callable[[str], Path]:
    """A function that copies a data set, to be broken by the test, and returns its source path."""

    def make(dataset: str) -> Path:
        return Path(shutil.copytree(data / SOURCES[dataset], tmp_path / "copy" / SOURCES[dataset]))

    return make


@pytest.fixture
def build(tmp_path) -> Callable[..., Store]:
    """A function that ingests into `tmp_path/store` (or `folder`) and opens the result."""

    def make(dataset: str, source: Path, count: int | None = None, folder: str = "store", **settings) -> Store:
        manifest = tmp_path / folder / ("all.json" if count is None else f"first={count}.json")
        ingest(dataset, source, manifest, count, **({"pixels": 16} | settings))
        return Store.open(manifest)

    return make
