"""Tiny stores, made once, and jobs in a moment."""

import os
from pathlib import Path

import pytest
import torch
from tiny import Jobs

from viny.run import make_store


@pytest.fixture(scope="session")
def stores(tmp_path_factory) -> Path:
    """A folder with the stores of the tiny study; not to be changed."""
    torch.set_num_threads(1)
    root, before = tmp_path_factory.mktemp("run"), Path.cwd()
    os.chdir(root)  # generated images lie below the working directory
    try:
        for spec in Jobs(root / "stores", root).study().stores:
            make_store(spec, workers=1)
    finally:
        os.chdir(before)
    return root / "stores"


@pytest.fixture
def jobs(stores, tmp_path) -> Jobs:
    """Runs jobs with results in the test's own folder."""
    return Jobs(stores, tmp_path)


@pytest.fixture(scope="session")
def once(stores, tmp_path_factory) -> Jobs:
    """Runs jobs with results in a folder for all tests; a job asked for again is taken from there."""
    return Jobs(stores, tmp_path_factory.mktemp("once"), remember=True)
