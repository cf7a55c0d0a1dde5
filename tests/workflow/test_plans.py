"""What Snakemake plans before anything has been run, and how it takes a config with mistakes."""

import re
import subprocess
import sys

import pytest
import yaml
from checkout import ROOT


def test_the_papers_grid_is_planned_without_any_data(workflow):
    planned = workflow.plan(config="paper.yaml")
    assert (planned["pretrain"], planned["intermediate"], planned["finetune"]) == (9, 9, 126)
    assert planned["decode"] == 3


def test_the_papers_grid_with_the_cells_that_it_leaves_out(workflow):
    config = yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text())
    config["grid"]["exclude"] = []
    planned = workflow.training(config=config)
    assert planned == {"pretrain": 9, "intermediate": 12, "finetune": 144}


def test_a_study_stands_alone_and_the_demo_is_the_default(workflow):
    demo = workflow.run("--dry-run", "--printshellcmds").stdout
    assert "stores/imagenet-" in demo
    alone = workflow.run("--dry-run", "--printshellcmds", config="pets-baseline.yaml").stdout
    assert "results/pets-baseline/study.json" in alone
    assert "stores/imagenet-" not in alone


def test_the_second_version_is_planned(workflow):
    planned = workflow.training(config="paper-v2.yaml")
    assert planned == {"pretrain": 1, "intermediate": 9, "finetune": 12, "geometry": 10}


def test_a_study_on_real_images_is_planned(workflow):
    planned = workflow.training(config="photographs.yaml")
    assert planned == {"pretrain": 18, "intermediate": 18, "finetune": 168}


def test_the_choices_of_the_release_are_planned_with_what_each_concerns(workflow):
    planned = workflow.training(config="fidelity.yaml")
    assert planned == {"pretrain": 3 + 4 * 3 - 2 + 1, "intermediate": 3 * 3, "finetune": 20 * 3}


def test_mistakes_in_the_config_are_told_without_a_traceback(workflow):
    done = workflow.run("--dry-run", config={"finetune": {"learning_rate": "1e-3"}, "grids": {}})
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "finetune.learning_rate: '1e-3' is not a number; YAML reads `1e-3` as text, write `1.0e-3`" in said
    assert "grids: unknown key (did you mean `grid`?)" in said
    assert "Traceback" not in said
    assert "File " not in said


def test_the_cluster_profile_knows_every_rule():
    rules = "".join(path.read_text() for path in [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")])
    defined = set(re.findall(r"^ *(?:rule|use rule \w+ as) (\w+)(?::| with)", rules, re.MULTILINE))
    [local] = re.findall(r"^localrules:\n((?: +\w+,\n)+)", rules, re.MULTILINE)
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    worth_a_submission_each = {"decode", "pretrain", "intermediate", "analyze", "partial", "published"}
    assert set(profile["groups"]) <= defined
    assert defined == set(profile["groups"]) | set(re.findall(r"\w+", local)) | worth_a_submission_each
    assert set(profile["group-components"]) <= set(profile["groups"].values())


@pytest.mark.parametrize("command", [["snakemake", "--lint"], ["snakefmt", "--check", "Snakefile", "workflow"]])
def test_the_rules_are_in_good_style(command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_environment_of_the_rules_has_the_versions_of_the_constraints():
    constraints = (ROOT / "envs/constraints.txt").read_text().splitlines()
    *_, pip = yaml.safe_load((ROOT / "envs/viny.yaml").read_text())["dependencies"]
    assert set(pip["pip"]) <= {line.lower() for line in constraints}
