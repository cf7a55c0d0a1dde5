"""`viny verify`: whether every result of a study is whole, came from its declared inputs, and fits the others.

Needs the results alone: a folder copied to another machine, without images, verifies there. What is present of images
and encoders is compared.
"""

import argparse
import gc
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path

from rich.text import Text

from viny.commands import terminal
from viny.commands.study import add_study_flags, study_of
from viny.commands.terminal import indented, plural
from viny.errors import VinyError, command, shortened
from viny.files import file_sha256
from viny.fingerprint import fingerprint
from viny.grid import Job, StoreSpec, Study
from viny.logs import setup
from viny.results import VERSION, Result, read_result
from viny.survey import flat, rows_checksum

_LISTED = 20  # folders that are named
_PART = 50  # jobs that a thread checks in one go

Problems = Iterator[tuple[Job, str]]
Results = Mapping[Job, Result]


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        results: number of results that are there. missing: jobs without a result that a cell or measurement needs.
        problems: what is wrong, by job. notes: what one may want to know and is no error.
    """

    results: int
    missing: list[Job]
    problems: dict[Job, list[str]]
    notes: list[str]


@command
def main(argv: Sequence[str]) -> int:
    """Print what `verify` finds; 1 if something is wrong, or missing where `--complete` asks for all."""
    text = "Check that the results are whole, from their declared inputs, and fit each other; exit code 1 if not."
    parser = argparse.ArgumentParser(prog="viny verify", description=text)
    add_study_flags(parser)
    parser.add_argument("--complete", action="store_true", help="missing results are errors, too")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    args = parser.parse_args(argv)
    setup()
    gc.set_threshold(1_000_000)  # results stay to the end: looking for garbage takes as long as reading them
    study = study_of(args)
    report = verify(study)
    if args.json:
        document = {"study": study.name, "folder": str(study.folder), "results": report.results, "notes": report.notes}
        document["missing"] = [str(job.folder) for job in report.missing]
        problems = [(job, problem) for job, found in report.problems.items() for problem in found]
        document["problems"] = [{"where": str(job.folder), "problem": problem} for job, problem in problems]
        print(json.dumps(document))
    else:
        _show(study, report, args.complete)
    return int(bool(report.problems) or (args.complete and bool(report.missing)))


def verify(study: Study) -> Report:
    """Check all results of a study."""
    problems: dict[Job, list[str]] = defaultdict(list)
    results, absent, notes, jobs = {}, [], [], list(study.jobs.values())
    # Threads wait for the disk and hash at the same time; each takes many jobs, since handing one over costs as well.
    parts = [jobs[start : start + _PART] for start in range(0, len(jobs), _PART)]
    with ThreadPoolExecutor() as pool:
        read = pool.map(lambda part: [(job, *_read(job)) for job in part], parts)
        for job, result, wrong in chain.from_iterable(read):
            if result:
                results[job] = result
            if wrong:
                problems[job] = wrong
            elif not result:
                absent.append(job)
    removed = sum(job.stage != "geometry" and not job.checkpoint.exists() for job in results)
    if removed:
        notes.append(f"the weights of {plural(removed, 'result')} are not here; their numbers are")
    for check in (_settings, _encoders, _images, _code):
        for job, problem in check(results, notes):
            problems[job].append(problem)
    there = {str(path.parent) for path in study.folder.glob("[!.]*/**/metrics.json")}
    strangers = sorted(there - {str(job.folder) for job in jobs})
    if strangers:
        notes.append(f"{plural(len(strangers), 'result')} that the study no longer declares, such as {strangers[0]}")
    # Encoders may be deleted: those that no missing cell or measurement starts from are not missed.
    needed: set[Job | None] = {job for job in absent if job.stage in ("finetune", "geometry")}
    for _ in ("encoders", "their encoders"):
        needed |= {job.upstream for job in needed if job}
    return Report(len(jobs) - len(absent), [job for job in absent if job in needed], dict(problems), notes)


def _read(job: Job) -> tuple[Result | None, list[str]]:
    """A result, and what is wrong with its files; weights may be deleted."""
    try:
        result = read_result(job)
    except VinyError as error:
        return None, [str(error).removeprefix(f"{job.folder}/")]
    wrong = []
    if result and job.checkpoint.name not in result.outputs:
        wrong.append(f"metrics.json records no checksum of {job.checkpoint.name}")
    for name, wrote in result.outputs.items() if result else ():
        sha256 = _sha256(job.folder / name)
        if sha256 is None and not name.endswith(".safetensors"):
            wrong.append(f"{name} is missing")
        elif sha256 not in (None, wrote):
            wrong.append(f"{name} is not the file that the run wrote (sha256 {sha256:.12}, not {wrote:.12})")
    return result, wrong


def _settings(results: Results, notes: list[str]) -> Problems:
    """Whether runs were made for their variant and with the settings of the study file."""
    for job, result in results.items():
        made = result.coordinates.variant
        if made != job.variant:
            made, here = (f"the variant {name}" if name else "the study itself" for name in (made, job.variant))
            yield job, f"was made for {made}, not {here}"
        if result.provenance.settings != fingerprint(result.settings):
            yield job, "metrics.json: its settings have been changed since the run"
        declared = job.recorded_settings
        if result.settings != declared:
            recorded = flat(result.settings)
            for key, now in flat(declared).items():
                if recorded.get(key, now) != now:  # of a setting that was added later, nothing is recorded
                    yield job, f"was made with {key} {recorded[key]}, but the study says {now}"


def _encoders(results: Results, notes: list[str]) -> Problems:
    """Whether every run started from the encoder that is declared for it now."""
    unknown, sha256 = 0, cache(_sha256)
    for job, result in results.items():
        used = result.provenance.inputs.get("encoder")
        declared = f"timm:{job.pretrained}" if job.pretrained and not job.encoder else None
        if job.encoder:
            made = results.get(job.upstream) if job.upstream else None
            declared = (made and made.outputs.get(job.encoder.name)) or sha256(job.encoder)
        if job.encoder and used and not declared:
            unknown += 1
        elif used != declared or (job.encoder and used is None):
            what = f"{job.encoder} ({_start(declared)})" if job.encoder else _start(declared)
            yield job, f"started from {_start(used)}, but the study declares {what}"
    if unknown:
        notes.append(f"the encoders that {plural(unknown, 'result')} started from are not here to compare with")


def _start(recorded: str | None) -> str:
    """What a run started from, by what its inputs record."""
    return "random weights" if recorded is None else recorded if ":" in recorded else f"sha256 {recorded[:12]}"


def _images(results: Results, notes: list[str]) -> Problems:
    """Whether all runs on the same rows of a store read the same images, and those that are there now."""
    readers: dict[tuple[int, StoreSpec, int], dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
    for job, result in results.items():
        checksum = result.provenance.inputs.get("store")
        if checksum is None:
            yield job, "metrics.json records no checksum of its images"
        else:
            readers[result.version, job.store, result.budget.images][checksum].append(job)
    absent = {store for version, store, _ in readers if version == VERSION and not store.manifest.exists()}
    for (version, store, images), versions in readers.items():
        now = rows_checksum(store, images) if version == VERSION else None  # format 1 had other checksums
        right = now or max(versions, key=lambda checksum: len(versions[checksum]))
        what = f"{store.folder} has now" if now else f"most runs on {images:,} images of {store.name} read"
        for checksum, jobs in versions.items():
            for job in jobs if checksum != right else ():
                yield job, f"read other images (checksum {checksum[:12]}) than {what} ({right[:12]})"
    if absent:
        stores = len({store for _, store, _ in readers})
        notes.append(f"{len(absent)} of {plural(stores, 'store')} not here; results were compared with each other")


def _code(results: Results, notes: list[str]) -> Problems:
    """Whether the results of a kind were made by one version of the code, and that by the code that is here."""
    versions: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for job, result in results.items():
        versions[job.kind, job.architecture][result.provenance.code] += 1
    usual = {place: counts.most_common(1)[0][0] for place, counts in versions.items()}
    older: dict[str, None] = {}
    for job, result in results.items():
        code, most = result.provenance.code, usual[job.kind, job.architecture]
        if code != most:
            yield job, f"was made by other code ({code}) than most results of {job.kind} ({most})"
        elif code != job.code:
            older[job.kind] = None
    if older:
        kinds = ", ".join(older)
        notes.append(f"results of {kinds} were made by other code than is here; snakemake would run them again")


def _sha256(path: Path) -> str | None:
    """Checksum of a file, None if there is none."""
    try:
        return file_sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _show(study: Study, report: Report, complete: bool) -> None:
    out = terminal.console()
    count = sum(map(len, report.problems.values()))
    verdict = Text("all whole", "green") if report.results else Text("nothing to check", "dim")
    if count:
        verdict = Text(plural(count, "problem"), "bold red")
    missing = f", {len(report.missing):,} missing" if report.missing else ""
    out.print(Text.assemble((study.name, "bold"), f": {plural(report.results, 'result')}{missing}, ", verdict))
    if count:
        broken = ["\n  ".join([str(job.folder), *problems]) for job, problems in report.problems.items()]
        out.print(indented(shortened(broken, _LISTED), "red"))
    if complete and report.missing:
        out.print("missing:", style="bold")
        out.print(indented(shortened([str(job.folder) for job in report.missing], _LISTED)))
    for note in report.notes:
        out.print(f"note: {note}", style="dim")
    if count:
        out.print("Delete the folders of what is broken and run snakemake again; it makes them anew.")
