"""Small studies that the tests run on the cluster, and what can be seen of them from outside."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import yaml
from cluster import Cluster, wait_for

CHECKOUT = Path(__file__).parents[2]

_TINY = {
    "data": {"store_pixels": 16, "procedural": {"imagenet": 48, "intel": 12, "pets": 40, "pixels": 16, "seed": 0}},
    "model": {
        **{"image_size": 16, "patch_size": 4, "width": 16, "depth": 1},
        **{"heads": 2, "head_width": 8, "mlp_width": 32},
    },
    "pretrain": {"epochs": 2, "batch_size": 8, "milestones": [1], "heldout_images": 8},
    "finetune": {"epochs": 2, "batch_size": 8, "milestones": [1], "test_images": 16},
}
# Three cells, one of them from an encoder.
CELLS = _TINY | {
    "study": "cells",
    "grid": {
        **{"pretrain": [0, 32], "intermediate": ["none"], "downstream": [8], "seeds": [1, 2]},
        "exclude": [{"pretrain": 32, "seed": 2}],
    },
}
# Two cells of several seconds of training, to be disturbed meanwhile.
LONG = _TINY | {
    "study": "long",
    "grid": {"pretrain": [0], "intermediate": ["none"], "downstream": [16], "seeds": [1, 2]},
    "finetune": _TINY["finetune"] | {"steps": 1200},
}


def snapshot(target: Path) -> Path:
    """A copy of what a run needs of the checkout."""
    shutil.copy(CHECKOUT / "Snakefile", target)
    for name in ("src", "workflow", "profiles", "envs"):
        shutil.copytree(CHECKOUT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return target


def cluster_profile(project: Path, target: Path) -> Path:
    """profiles/slurm, edited as a user of the cluster would, with less patience."""
    text = (project / "profiles/slurm/config.yaml").read_text()
    for pattern, replacement in (
        (r"slurm_partition: \w+", "slurm_partition: main"),
        (r"\n *slurm_account: .*", ""),
        (r"&memory 6000 \* attempt", "&memory 500 * attempt"),
        (r"time_limit: \d+", "time_limit: 30"),
        (r"cells: 10", "cells: 2"),
        (r"TERM@120", "TERM@10"),
        (r"status-checks: 20", "status-checks: 1"),
        (r"latency-wait: 60", "latency-wait: 10"),
    ):
        text, count = re.subn(pattern, replacement, text)
        assert count == 1, f"profiles/slurm has no line like {pattern}"
    target.mkdir(exist_ok=True)
    (target / "config.yaml").write_text(text)
    return target


class Study:
    """A study in a folder of its own.

    Args:
        project: the code. folder: working directory. config: of the study.
    """

    started: ClassVar[list[subprocess.Popen]] = []  # all processes, to be ended with the cluster

    def __init__(self, project: Path, folder: Path, config: dict[str, Any], cluster: Cluster):
        self.project, self.folder, self.config, self.cluster = project, folder, config, cluster
        folder.mkdir(exist_ok=True)
        (folder / "study.yaml").write_text(yaml.safe_dump(config))
        self.profile = cluster_profile(project, folder / "profile")
        self.log = folder / "driver.log"

    def copy(self, folder: Path, seeds: list[int] | None = None) -> "Study":
        """A new study with the same images, without results; of these seeds only."""
        for name in ("resources", "stores", ".snakemake"):
            shutil.copytree(self.folder / name, folder / name)
        grid = self.config["grid"] | ({"seeds": seeds} if seeds else {})
        return Study(self.project, folder, self.config | {"grid": grid}, self.cluster)

    def edit_profile(self, line: str, instead: str) -> None:
        """Edit a line of the profile, as a user would."""
        file = self.profile / "config.yaml"
        text = file.read_text()
        assert text.count(line) == 1, f"profiles/slurm has no line {line}"
        file.write_text(text.replace(line, instead))

    def run_locally(self) -> int:
        """Run to the end of the cells without a cluster; returns the exit code."""
        return self._start("-m", "snakemake", "--cores", "2").wait(300)

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start Snakemake on the cluster."""
        driver = str(Path(__file__).with_name("driver.py"))
        return self._start(driver, "--workflow-profile", str(self.profile), *arguments)

    def run(self, *arguments: str) -> int:
        """Run Snakemake on the cluster to its end; returns the exit code."""
        return self.start(*arguments).wait(300)

    def _start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, *arguments, "--snakefile", self.project / "Snakefile", "--directory", self.folder]
        command += ["--configfile", self.folder / "study.yaml", "--until", "finetune"]
        environment = {**self.cluster.environment, "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.started.append(process)
        return process

    @property
    def said(self) -> str:
        """The end of what Snakemake said so far."""
        return self.log.read_text()[-4000:]

    def results(self, kind: str = "metrics") -> dict[str, Any]:
        """A part of metrics.json of all runs, by the path of the run."""
        root = self.folder / "results"
        files = sorted(root.rglob("metrics.json"))
        return {
            str(file.parent.relative_to(root)): json.loads(file.read_text())[kind]
            for file in files
            if ".state" not in file.parts
        }

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that were submitted for this study, as `scontrol` describes them."""
        described = self.cluster.run("scontrol", "show", "job", "--oneliner").splitlines()
        found = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in described]
        return [job for job in found if job.get("WorkDir") == str(self.folder)]

    def trainings(self, coordinate: str = "") -> list[int]:
        """Processes that train now, of the runs whose name holds `coordinate` (`seed=1`)."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdecimal() or (entry / "cwd").readlink() != self.folder:
                    continue
                arguments = (entry / "cmdline").read_bytes().decode().split("\0")
                job = arguments[4] if arguments[2:4] == ["viny", "run"] else ""
                if job.startswith("finetune/") and coordinate in job:
                    found.append(int(entry.name))
        return found

    def wait_for_training(self, coordinate: str = "") -> int:
        """Wait until a run is under way, some steps done; returns the process."""

        def under_way() -> bool:
            files = (self.folder / "results").glob("*/.state/*/progress.json")
            shown = [file for file in files if "samples_seen" in json.loads(file.read_text())]
            names = [json.loads((file.parent / "run.json").read_text())["job"] for file in shown]
            return any(coordinate in name for name in names) and bool(self.trainings(coordinate))

        wait_for(under_way, 90, f"training of {coordinate or 'any cell'}; {self.said}")
        return self.trainings(coordinate)[0]

    def unlock(self) -> None:
        """Do what Snakemake's message says after it was killed."""
        assert self._start("-m", "snakemake", "--unlock", "--cores", "1").wait(60) == 0, self.said

    def running_jobs(self) -> list[dict[str, str]]:
        """The jobs that run now."""
        return [job for job in self.jobs() if job["JobState"] == "RUNNING"]

    def start_again(self, number: str) -> None:
        """Wait until SLURM has put a job back into the queue, and spare it the two minutes that it waits there."""

        def queued() -> bool:
            [job] = [job for job in self.jobs() if job["JobId"] == number]
            return (job["JobState"], job["Restarts"]) == ("PENDING", "1")

        wait_for(queued, 60, f"job {number} to be queued again")
        self.cluster.run("scontrol", "update", f"JobId={number}", "StartTime=now")

    def logged(self) -> str:
        """What the runs' logs say."""
        return "".join(file.read_text() for file in sorted((self.folder / "logs").rglob("finetune/**/*.log")))


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().strip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries)
