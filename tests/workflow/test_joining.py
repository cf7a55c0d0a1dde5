"""Cells computed on another machine join a study by copying their folders, and only where they belong."""

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest
from checkout import TOY, Workflow, altered

TWO = altered(grid__seeds=[1, 2])
SCRATCH = {"grid__pretrain": [0], "grid__intermediate": ["none"], "grid__exclude": []}


@pytest.fixture(scope="module")
def there(toy, tmp_path_factory):
    """Another machine, on which the cells of a second seed have been computed."""
    other = Workflow(tmp_path_factory.mktemp("there"), checkout=toy.checkout)
    done = other.run(config=altered(grid__seeds=[2]), cores=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return other


@pytest.fixture
def here(toy, tmp_path):
    """A machine with the first seed."""
    made = Workflow(tmp_path, checkout=toy.checkout)
    shutil.copytree(toy.work / "results", made.work / "results")
    shutil.copytree(toy.work / "stores", made.work / "stores")
    return made


def join(here, there, *stages):
    for stage in stages:
        source = there.work / "results/toy" / stage
        # Without dates, as many ways of copying do.
        shutil.copytree(source, here.work / "results/toy" / stage, dirs_exist_ok=True, copy_function=shutil.copyfile)


def viny(workflow, command, *words, config):
    """A command of viny on the study in a workflow's folder."""
    path = workflow.work / "asked.json"
    path.write_text(json.dumps(config))
    line = [sys.executable, "-m", "viny", command, "--configfile", path, "--directory", workflow.work, *words]
    env = workflow.environment | {"PYTHONPATH": str(workflow.checkout / "src")}
    return subprocess.run(line, capture_output=True, text=True, env=env, check=False)


@pytest.mark.parametrize(
    "stages", [("pretrain", "intermediate", "finetune"), ("finetune",)], ids=["all", "cells alone"]
)
def test_copied_cells_are_cells_of_the_study(here, there, stages):
    assert here.training(config=TWO) == {"pretrain": 1, "intermediate": 1, "finetune": 3}
    join(here, there, *stages)
    assert here.training(config=TWO) == {}
    done = here.run(config=TWO)
    assert done.returncode == 0, done.stdout + done.stderr
    cells = pd.read_csv(here.work / "results/toy/cells.csv", keep_default_na=False)
    assert list(cells["status"]) == ["done"] * 6
    assert set(cells["seed"]) == {1, 2}
    checked = viny(here, "verify", "--complete", config=TWO)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def refused(here, config, reason):
    """Snakemake would compute the copied cell again, `verify` says why, and no table mixes it with the others."""
    assert here.training(config=config) == {"finetune": 1}
    checked = viny(here, "verify", "--complete", config=config)
    assert checked.returncode in (1, 3)
    assert reason in " ".join(checked.stdout.split())


def test_a_cell_of_other_settings_is_refused(here, tmp_path_factory, toy):
    other = Workflow(tmp_path_factory.mktemp("other"), checkout=toy.checkout)
    done = other.run(config=altered(**SCRATCH, grid__seeds=[2], finetune__learning_rate=1.0e-3))
    assert done.returncode == 0, done.stdout + done.stderr
    join(here, other, "finetune")
    config = altered(**SCRATCH, grid__seeds=[1, 2])
    refused(here, config, "finetune.learning_rate was 0.001, is 0.002")
    analyzed = viny(here, "analyze", config=config)
    assert analyzed.returncode == 1
    assert "cannot share a table" in analyzed.stderr


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda made: made["inputs"].update(store="0" * 16), "the images have changed"),
        (lambda made: made.update(code="0" * 12, key="0" * 12), "the code of segmentation has changed"),
    ],
    ids=["other images", "other code"],
)
def test_a_cell_of_other_images_or_code_is_refused(here, there, change, reason):
    join(here, there, "finetune")
    path = here.work / "results/toy/finetune/pretrain=0/intermediate=none/downstream=8/seed=2/metrics.json"
    recorded = json.loads(path.read_text())
    change(recorded["provenance"])
    path.write_text(json.dumps(recorded))
    refused(here, altered(**SCRATCH, grid__seeds=[1, 2]), reason)


def test_a_cell_of_another_study_is_refused(here, there):
    join(here, there, "finetune")
    assert here.training(config=TOY) == {}
    config = altered(**SCRATCH, study="toy2", grid__seeds=[2])
    shutil.copytree(here.work / "results/toy", here.work / "results/toy2")
    refused(here, config, "was made for the study toy, not toy2")
