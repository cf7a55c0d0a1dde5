"""`viny verify`: whether every result of a study is whole, started from the encoder that is there, and fits the others.

Needs the results alone: a folder copied to another machine, without images, verifies there. Whether results are up to
date is what `viny.survey` says of them.
"""

import gc
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from rich.text import Text

from viny.commands import terminal
from viny.commands.parser import CODES, Parser
from viny.commands.study import study_of
from viny.commands.terminal import indented, plural
from viny.errors import VinyError, command, shortened
from viny.files import file_sha256
from viny.fingerprint import fingerprint
from viny.grid import Job, StoreSpec, Study
from viny.logs import setup
from viny.result import Result, read_result
from viny.survey import survey

_LISTED = 20  # folders that are named

Problems = Iterator[tuple[Job, str]]
Results = Mapping[Job, Result]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        results: number of results that are there. missing: jobs without a result that a cell or measurement needs.
        outdated: jobs with a whole result that is not what the study file asks for, and why.
        problems: what is wrong, by job. undeclared: folders with results that the study does not declare.
    """

    results: int
    missing: list[Job]
    outdated: dict[Job, str]
    problems: dict[Job, list[str]]
    undeclared: list[Path]


def parser() -> Parser:
    """The command line."""
    text = "Check that the results are whole, come from their declared encoders, and fit each other."
    made = Parser("verify", text, "mine.yaml", "results/mine --complete", codes=CODES)
    made.add_study()
    made.add_argument("--complete", action="store_true", help="exit code 3 if results are missing or outdated")
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print what `verify` finds; 1 if something is wrong, 3 if it is not complete where `--complete` asks for it."""
    args = parser().parse_args(argv)
    setup()
    gc.set_threshold(1_000_000)  # results stay to the end: looking for garbage takes as long as reading them
    study = study_of(args)
    report = verify(study)
    if args.json:
        terminal.print_json(_document(study, report))
    else:
        _show(study, report, args.complete)
    unfinished = args.complete and (report.missing or report.outdated)
    return 1 if report.problems else 3 if unfinished else 0


def verify(study: Study) -> Report:
    """Check all results of a study."""
    found, problems = survey(study), defaultdict[Job, list[str]](list)
    read = {job: _read(job) for job in study.jobs.values()}
    results = {job: result for job, (result, _) in read.items() if result}
    wrong = ((job, problem) for job, (_, each) in read.items() for problem in each)
    for job, problem in (*wrong, *_encoders(results), *_images(results)):
        problems[job].append(problem)
    there = {path.parent for path in study.folder.glob("[!.]*/**/metrics.json")}
    return Report(
        results=len(results.keys() | problems.keys()),
        missing=[job for job in found.pending if not job.metrics.exists()],
        outdated={job: reason for job, reason in found.outdated.items() if job in results},
        problems=dict(problems),
        undeclared=sorted(there - {job.folder for job in study.jobs.values()}),
    )


def _read(job: Job) -> tuple[Result | None, list[str]]:
    """A result, and what is wrong with its files; weights may be deleted."""
    try:
        result = read_result(job)
    except VinyError as error:
        return None, [str(error).removeprefix(f"{job.folder}/")]
    if result is None:
        return None, []
    wrong = []
    if result.provenance.settings != fingerprint(result.settings):
        wrong.append("metrics.json: its settings have been changed since the run")
    if job.checkpoint.name not in result.outputs:
        wrong.append(f"metrics.json records no checksum of {job.checkpoint.name}")
    for name, wrote in result.outputs.items():
        sha256 = _sha256(job.folder / name)
        if sha256 is None and not name.endswith(".safetensors"):
            wrong.append(f"{name} is missing")
        elif sha256 not in (None, wrote):
            wrong.append(f"{name} is not the file that the run wrote (sha256 {sha256:.12}, not {wrote:.12})")
    return result, wrong


def _encoders(results: Results) -> Problems:
    """Whether every run started from the encoder that is declared for it and, as far as it is known, there now."""
    sha256 = cache(_sha256)
    for job, result in results.items():
        used = result.provenance.inputs.get("encoder")
        declared = f"timm:{job.pretrained}" if job.pretrained else None
        if job.encoder:
            made = results.get(job.upstream) if job.upstream else None
            declared = (made and made.outputs.get(job.encoder.name)) or sha256(job.encoder) or used or str(job.encoder)
        if used != declared:
            where = f", {job.encoder}" if job.encoder else ""
            yield job, f"started from {_start(used)}, but the study declares {_start(declared)}{where}"


def _start(recorded: str | None) -> str:
    """What a run started from, by what its inputs record."""
    return "random weights" if recorded is None else recorded[:12] if len(recorded) == 64 else recorded


def _images(results: Results) -> Problems:
    """Whether all runs on the same rows of a store read the same images."""
    readers: dict[tuple[int, StoreSpec, int], dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
    for job, result in results.items():
        checksum = result.provenance.inputs.get("store", "none")
        readers[result.version, job.store, result.budget.images][checksum].append(job)
    for (_, store, images), by_checksum in readers.items():
        usual = max(by_checksum, key=lambda checksum: len(by_checksum[checksum]))
        what = f"most runs on {images:,} images of {store.name} ({usual[:12]})"
        for checksum in by_checksum.keys() - {usual}:
            for job in by_checksum[checksum]:
                yield job, f"read other images (checksum {checksum[:12]}) than {what}"


def _sha256(path: Path) -> str | None:
    """Checksum of a file, None if there is none."""
    try:
        return file_sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _document(study: Study, report: Report) -> dict[str, object]:
    return {
        "study": study.name,
        "folder": str(study.folder),
        "results": report.results,
        "missing": [str(job.folder) for job in report.missing],
        "outdated": [{"where": str(job.folder), "why": why} for job, why in report.outdated.items()],
        "problems": [{"where": str(job.folder), "problem": each} for job, of in report.problems.items() for each in of],
        "undeclared": [str(folder) for folder in report.undeclared],
    }


def _show(study: Study, report: Report, complete: bool) -> None:
    out, count = terminal.console(), sum(map(len, report.problems.values()))
    verdict = Text("all whole", "green") if report.results else Text("nothing to check", "dim")
    if count:
        verdict = Text(plural(count, "problem"), "bold red")
    missing = f", {len(report.missing):,} missing" if report.missing else ""
    out.print(Text.assemble((study.name, "bold"), f": {plural(report.results, 'result')}{missing}, ", verdict))
    if count:
        broken = ["\n  ".join([str(job.folder), *problems]) for job, problems in report.problems.items()]
        out.print(indented(shortened(broken, _LISTED), "red"))
        out.print("Delete the folders of what is broken and run snakemake again; it makes new ones.")
    if complete and report.missing:
        out.print("missing:", style="bold")
        out.print(indented(shortened([str(job.folder) for job in report.missing], _LISTED)))
    for reason, count in Counter(report.outdated.values()).items():
        out.print(f"outdated: {plural(count, 'result')}; {reason}", style="magenta")
    if report.undeclared:
        number, first = plural(len(report.undeclared), "result"), report.undeclared[0]
        out.print(f"note: {number} that the study does not declare, such as {first}", style="dim")
