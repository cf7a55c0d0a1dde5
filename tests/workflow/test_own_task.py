"""A task of one's own: one file in a checkout, a section of the study file, and the real Snakemake."""

import json
import re
import shutil

from checkout import ROOT, Workflow, altered

EXAMPLE = ROOT / "tests/tasks/toys/rotation.py"


def test_one_file_and_a_section_of_the_study_file_are_a_task(tmp_path):
    workflow = Workflow(tmp_path)
    shutil.copy(EXAMPLE, workflow.checkout / "src/viny/tasks")
    turns = {"task": "rotation", "images": "imagenet", "epochs": 1, "batch_size": 8, "count": 24, "test_images": 8}
    config = altered(grid__intermediate=["turns"], grid__exclude=[], grid__pretrain=[0], intermediate={"turns": turns})
    done = workflow.run(config=config, cores=2)
    assert done.returncode == 0, done.stdout + done.stderr
    [trained] = workflow.results("intermediate/*/*/*/metrics.json")
    result = json.loads(trained.read_text())
    assert result["settings"]["intermediate.turns"]["task"] == "rotation"
    assert result["metrics"]["chance"] == 0.25
    [cell] = workflow.results("finetune/*/*/*/*/metrics.json")
    encoder = json.loads(cell.read_text())["provenance"]["inputs"]["encoder"]
    assert encoder == result["outputs"]["encoder.safetensors"]
    assert "turns" in (workflow.work / "results/toy/overview.html").read_text()
    with (workflow.checkout / "src/viny/tasks/rotation.py").open("a") as file:
        file.write("\nADDED = 1\n")
    assert workflow.training(config=config) == {"intermediate": 1, "finetune": 1}


def test_the_page_about_tasks_shows_that_file():
    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tasks.md").read_text(), re.DOTALL)
    assert shown == EXAMPLE.read_text()
