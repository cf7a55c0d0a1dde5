"""A copy of the workflow and a toy study that the real Snakemake runs in it, once for all tests."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]

# The smallest study with every stage: 1 pre-training, 1 intermediate and 3 fine-tuning runs, all on generated images.
TOY = {
    "study": "toy",
    "grid": {
        "pretrain": [0, 24],
        "intermediate": ["none", "cls_intel"],
        "downstream": [8],
        "seeds": [1],
        "exclude": [{"pretrain": 0, "intermediate": "cls_intel"}],
    },
    "data": {"store_pixels": 16, "procedural": {"imagenet": 80, "intel": 36, "pets": 74, "pixels": 16}},
    "model": {
        "image_size": 16,
        "patch_size": 4,
        "width": 16,
        "depth": 1,
        "heads": 2,
        "head_width": 8,
        "mlp_width": 32,
    },
    "pretrain": {"epochs": 2, "batch_size": 8, "milestones": [1], "heldout_images": 8},
    "intermediate": {"cls_intel": {"epochs": 2, "batch_size": 8, "milestones": [1]}},
    "finetune": {"epochs": 2, "batch_size": 4, "milestones": [1], "test_images": 12},
}
TRAINING = ("pretrain", "intermediate", "finetune", "geometry")


class Workflow:
    """A checkout and a working directory beside it.

    Attributes:
        checkout: copy of the project, free to be edited.
        work: where Snakemake works (`--directory`).
    """

    def __init__(self, folder: Path, checkout: Path | None = None):
        self.checkout, self.work = checkout or folder / "checkout", folder / "work"
        if checkout is None:
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            for name in ("src", "workflow", "profiles", "envs"):
                shutil.copytree(ROOT / name, self.checkout / name, ignore=ignore)
            for name in ("Snakefile", "config.yaml"):
                shutil.copy(ROOT / name, self.checkout / name)
        self.work.mkdir(parents=True)
        self.environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self.environment |= {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "cache")}

    def run(self, *arguments, config=None, cores=1):
        """Run Snakemake; `config` is a config or the name of a file in `workflow/studies`, None for config.yaml."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", self.checkout / "Snakefile"]
        command += ["--directory", self.work, "--cores", str(cores), *arguments]
        if isinstance(config, str):
            command += ["--configfile", self.checkout / "workflow" / "studies" / config]
        elif config is not None:
            path = self.work / "config.yaml"
            path.write_text(yaml.safe_dump(config))
            command += ["--configfile", path]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=600)

    def plan(self, *arguments, config=None):
        """The jobs that Snakemake would run now: a count for each rule."""
        done = self.run("--dry-run", "--quiet", "rules", *arguments, config=config)
        assert done.returncode == 0, done.stdout + done.stderr
        table = done.stdout + done.stderr
        return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}

    def training(self, *arguments, config=None):
        """`plan` of the training rules alone."""
        planned = self.plan(*arguments, config=config)
        return {rule: planned[rule] for rule in TRAINING if rule in planned}

    def results(self, pattern):
        """Result files of the toy study."""
        return sorted((self.work / "results" / "toy").glob(pattern))


def altered(**changes):
    """The toy study with settings changed: `altered(grid__seeds=[1, 2])`."""
    config = copy.deepcopy(TOY)
    for name, value in changes.items():
        *sections, key = name.split("__")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return config
