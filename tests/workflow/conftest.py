"""Workflows for all tests of this folder, one of them with the toy study run in it."""

import pytest
from checkout import TOY, Workflow


@pytest.fixture(scope="session")
def workflow(tmp_path_factory):
    """A workflow in which nothing has been run."""
    return Workflow(tmp_path_factory.mktemp("workflow"))


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """A workflow in which the toy study has been run; `toy.first` is that run."""
    workflow = Workflow(tmp_path_factory.mktemp("toy"))
    workflow.first = workflow.run(config=TOY, cores=2)
    assert workflow.first.returncode == 0, workflow.first.stdout + workflow.first.stderr
    return workflow
