"""Tests on a real SLURM of several nodes, started on this machine for them.

pytest -m slurm tests/slurm                 # all
pytest -m "slurm and quick" tests/slurm     # the quick part

Not part of a plain `pytest`. SLURM is installed if it is missing and the user is root; else the tests are skipped,
unless VINY_REQUIRE_SLURM=1 makes that a failure.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from cluster import Cluster, Unavailable, install
from study import CELLS, LONG, Study, snapshot


def pytest_configure(config):
    config.addinivalue_line("markers", "quick: the part of the SLURM tests that runs at every change")


def pytest_collection_modifyitems(config, items):
    """Only run when asked for."""
    if "slurm" in (config.option.markexpr or ""):
        return
    here = Path(__file__).parent
    mine = [item for item in items if here in item.path.parents]
    if mine:
        items[:] = [item for item in items if item not in mine]
        config.hook.pytest_deselected(items=mine)


@pytest.fixture(scope="session")
def cluster():
    """A running cluster of three nodes with two CPUs and one GPU each."""
    try:
        pytest.importorskip("snakemake_executor_plugin_slurm", reason="snakemake-executor-plugin-slurm is missing")
        install()
    except (Unavailable, pytest.skip.Exception) as reason:
        if os.environ.get("VINY_REQUIRE_SLURM") == "1":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    root = Path(tempfile.mkdtemp(prefix="slurm"))
    made = Cluster(root)
    try:
        made.start()
        yield made
    finally:
        for process in Study.started:
            process.kill()
        made.stop()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="session")
def project(tmp_path_factory) -> Path:
    """The project as it is now, so that a test is not disturbed by whoever edits it."""
    return snapshot(tmp_path_factory.mktemp("project"))


def _prepared(cluster, project, folder: Path, config: dict) -> Study:
    study = Study(project, folder, config, cluster)
    assert study.run_locally() == 0, study.said
    return study


@pytest.fixture(scope="session")
def local_cells(cluster, project, tmp_path_factory) -> Study:
    """Short cells, run without a cluster."""
    return _prepared(cluster, project, tmp_path_factory.mktemp("cells"), CELLS)


@pytest.fixture(scope="session")
def local_long(cluster, project, tmp_path_factory) -> Study:
    """Two cells that train for several seconds, run without a cluster."""
    return _prepared(cluster, project, tmp_path_factory.mktemp("long"), LONG)
