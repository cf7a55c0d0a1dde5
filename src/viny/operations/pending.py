"""Which jobs a run would do. Snakemake itself is asked, since it knows changed settings, code and inputs. Missing files
decide where nothing has been run yet (Snakemake would say the same, for a minute in a grid of 10,000 cells), and where
it or the Snakefile is not at hand."""

import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import viny
from viny.grid import Job, Store
from viny.operations.inputs import encoder_of, stores_of
from viny.study import Study


@dataclass
class Pending:
    """What would run.

    Attributes:
        jobs: runs of the stages. stores: parts of data sets to decode.
        generated: data sets to generate. others: number of further files to make (analysis), by rule, if Snakemake
            was asked.
        source: who says so.
    """

    jobs: list[Job] = field(default_factory=list)
    stores: list[Store] = field(default_factory=list)
    generated: list[str] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)
    source: str = "snakemake"


def find_pending(study: Study, configfile: Path) -> Pending:
    """What a run of Snakemake with this config would do in the working directory."""
    if not any(job.folder.exists() for job in study.all_jobs()):
        return by_files(study, "missing files (nothing has been run)")
    return by_snakemake(study, configfile)


def by_snakemake(study: Study, configfile: Path) -> Pending:
    """What Snakemake says that it would do; missing files decide if it cannot be asked."""
    snakefile = next((path for path in _snakefiles() if path.is_file()), None)
    if snakefile is None:
        return by_files(study, "missing files (no Snakefile found)")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(Path.cwd())]
    command += ["--configfile", str(configfile), "--summary"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.strip()]
        return by_files(study, f"missing files (snakemake said: {lines[-1].strip() if lines else 'nothing'})")
    return from_summary(study, found.stdout)


def from_summary(study: Study, summary: str) -> Pending:
    """Read the table that `snakemake --summary` prints: a line for each output file, the last column its fate."""
    folders = {str(job.folder): job for job in study.all_jobs()}
    manifests = {str(study.manifest(store)): store for store in study.stores()}
    jobs, stores, pending = set(), set(), Pending()
    for line in summary.splitlines():
        columns = line.split("\t")
        if len(columns) < 6 or columns[-1] != "update pending":
            continue
        path, rule = columns[0], columns[2]
        if path in manifests:
            stores.add(path)
        elif str(Path(path).parent) in folders:
            jobs.add(str(Path(path).parent))
        elif rule == "procedural":
            pending.generated.append(Path(path).stem)
        else:
            pending.others[rule] += 1
    pending.jobs = [job for folder, job in folders.items() if folder in jobs]
    pending.stores = [store for path, store in manifests.items() if path in stores]
    return pending


def by_files(study: Study, source: str = "missing files") -> Pending:
    """Jobs whose metrics are missing, and what they need that is missing, too."""
    owners = study.all_jobs()
    jobs = {job.folder: job for job in owners}
    waiting = [job for job in owners if job.stage in ("finetune", "geometry") and not job.metrics.exists()]
    needed = {}
    while waiting:
        job = waiting.pop()
        needed[job.folder] = job
        encoder = encoder_of(owners[job], job)
        if encoder and not encoder.exists() and encoder.parent not in needed:
            waiting.append(jobs[encoder.parent])
    pending = Pending(jobs=[job for job in owners if job.folder in needed], source=source)
    read = dict.fromkeys(store for job in pending.jobs for store in stores_of(owners[job], job).values())
    pending.stores = [store for store in read if not study.manifest(store).exists()]
    if study.procedural:
        origins = dict.fromkeys(store.dataset.split("-")[0] for store in pending.stores)
        pending.generated = [name for name in origins if not study.procedural_marker(name).exists()]
    return pending


def _snakefiles() -> list[Path]:
    """Where the workflow may be: the checkout that this code runs from, the working directory."""
    return [Path(viny.__file__).resolve().parents[2] / "Snakefile", Path("Snakefile").absolute()]
