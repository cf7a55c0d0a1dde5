"""Tiny stores for the stages, made once, and runs of a stage in a moment."""

from pathlib import Path

import pytest
import torch
from tiny import Stages

from viny.data.ingest import ingest
from viny.data.procedural import generate

IMAGES = {"imagenet": 48, "intel": 36, "pets": 74}
SOURCES = {
    "imagenet": ("imagenet/train", 20),
    "intel-train": ("intel", 16),
    "intel-test": ("intel", 16),
    "pets": ("oxford-iiit-pet", 16),
}


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Path:
    """A folder with stores of 48 pre-training images (20 px), 30 + 6 scenes and 74 pets (16 px); not to be changed."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("stages")
    for dataset, images in IMAGES.items():
        generate(dataset, images, 16, 0, root)
    for dataset, (source, pixels) in SOURCES.items():
        ingest(dataset, root / source, root / "stores" / dataset / "all.json", None, pixels)
    return root / "stores"


@pytest.fixture
def stages(stores, tmp_path) -> Stages:
    """Runs stages with results in the test's own folder."""
    return Stages(stores, tmp_path)


@pytest.fixture(scope="session")
def once(stores, tmp_path_factory) -> Stages:
    """Runs stages with results in a folder for all tests; a run asked for again is taken from there."""
    return Stages(stores, tmp_path_factory.mktemp("once"), remember=True)


@pytest.fixture(scope="session")
def encoder(once) -> Path:
    """A pre-trained encoder."""
    return once.run("pretrain").folder / "encoder.safetensors"
