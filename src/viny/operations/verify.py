"""`viny verify`: whether every result of a study is whole, came from its declared inputs, and fits the others.

Needs the results alone: a folder copied to another machine, without stores and without Snakemake's memory, verifies
there. What the stores say is compared where they are present.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from viny import settings
from viny.analysis.results import read_result
from viny.errors import VinyError
from viny.grid import OUTPUTS, Job
from viny.operations.consistency import contradictions
from viny.operations.inputs import encoder_of, section_of, stores_of
from viny.operations.terminal import bold, dim, plural, red
from viny.provenance import code_fingerprint, file_sha256, fingerprint
from viny.study import Study
from viny.validation import dotted

_LISTED = 30  # problems that are named
_WEIGHTS = ".safetensors"


@dataclass
class Report:
    """What was found.

    Attributes:
        results: number of results that are there. missing: jobs without a result.
        problems: pairs of a folder (or group of results) and what is wrong there.
        notes: what one may want to know and is no error.
    """

    study: str
    results: int = 0
    missing: list[Job] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify(study: Study) -> Report:
    """Check all results of a study."""
    report, documents, owners = Report(study.name), {}, study.all_jobs()
    for job in owners:
        try:
            document = read_result(job)
        except VinyError as error:
            report.results += 1
            report.problems.append((str(job.folder), str(error).removeprefix(f"{job.metrics} ")))
            continue
        if document is None:
            report.missing.append(job)
            continue
        report.results += 1
        wrong = list(_schema_problems(document))
        report.problems += [(str(job.folder), problem) for problem in wrong]
        if not wrong:  # what follows relies on the format
            documents[job] = document
    for job, document in documents.items():
        checks = (_origin(owners[job], document), _settings(owners[job], job, document), contradictions(document))
        report.problems += [(str(job.folder), problem) for found in checks for problem in found]
    report.problems += _files(documents, report)
    report.problems += _encoders(owners, documents, report)
    report.problems += _stores(owners, documents, report)
    report.problems += _versions(documents)
    report.notes += _old_code(documents)
    report.notes += _strangers(study)
    return report


def show(study: Study, complete: bool = False, as_json: bool = False) -> int:
    """Print what `verify` finds; 1 if something is wrong, or missing where `complete` asks for all."""
    report = verify(study)
    failed = bool(report.problems) or (complete and bool(report.missing))
    if as_json:
        missing = [str(job.folder) for job in report.missing]
        problems = [{"where": where, "problem": problem} for where, problem in report.problems]
        print(json.dumps({"study": report.study, "results": report.results, "missing": missing, "problems": problems,
                          "notes": report.notes}))  # fmt: skip
        return int(failed)
    broken = dict.fromkeys(where for where, _ in report.problems)
    verdict = red(plural(len(report.problems), "problem")) if report.problems else "all whole"
    lacking = f", {len(report.missing):,} missing" if report.missing else ""
    print(f"{bold(report.study)} · {study.folder} · {plural(report.results, 'result')}{lacking} · {verdict}")
    for where in list(broken)[:_LISTED]:
        print(f"  {where}")
        for problem in dict.fromkeys(problem for place, problem in report.problems if place == where):
            print(f"    {problem}")
    if len(broken) > _LISTED:
        print(f"  and {len(broken) - _LISTED:,} more")
    if complete and report.missing:
        print("missing:")
        for job in report.missing[:_LISTED]:
            print(f"  {job.folder}")
        if len(report.missing) > _LISTED:
            print(f"  and {len(report.missing) - _LISTED:,} more")
    for note in report.notes:
        print(dim(f"note: {note}"))
    if report.problems:
        print("Delete the folders of what is broken and run snakemake again; it makes them anew.")
    return int(failed)


@cache
def _validator(stage: str) -> Any:
    """Checks a metrics.json of a stage, `metrics` by the stage's own definition."""
    import jsonschema

    text = resources.files("viny").joinpath("schemas/metrics.schema.yaml").read_text(encoding="utf-8")
    schema = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    schema["properties"]["metrics"] = {"$ref": f"#/$defs/{stage}"}
    return jsonschema.Draft202012Validator(schema)


def _schema_problems(document: dict[str, Any]) -> Iterator[str]:
    for error in _validator(document["stage"]).iter_errors(document):
        yield f"metrics.json: {dotted(list(error.absolute_path)) or 'the document'}: {error.message[:200]}"


def _origin(study: Study, document: dict[str, Any]) -> Iterator[str]:
    """Whether it was made for this study or variant (its place within that is `read_result`'s to check)."""
    name, variant = document["coordinates"].get("study"), document["coordinates"].get("variant", "")
    if name != study.name:
        yield f"was made for the study {name}, not {study.name}"
    if variant != study.variant:
        yield f"was made for {_variant(variant)}, not {_variant(study.variant)}"
    if document["provenance"]["settings"] != fingerprint(document["settings"]):
        yield "metrics.json: its settings have been changed since the run"


def _variant(name: str) -> str:
    return f"the variant {name}" if name else "the study itself"


def _settings(study: Study, job: Job, document: dict[str, Any]) -> Iterator[str]:
    """Whether the run's settings are those that the config declares now."""
    section = section_of(job)
    declared = {name: study.section(name) for name in ("model", section)}
    declared["seeding"] = study.config["seeding"]
    for name, values in declared.items():
        recorded = document["settings"].get(name)
        if not isinstance(values, dict):
            pairs = {name: (recorded, values)}
        elif isinstance(recorded, dict):
            specs = {key: spec for key, spec in settings.section_schema(name)["properties"].items() if key in values}
            asked = {key: settings.plain(values[key], spec) for key, spec in specs.items() if spec.get("flag", True)}
            pairs = {f"{name}.{key}": (recorded.get(key), value) for key, value in asked.items()}
        else:
            pairs = {name: (recorded, "a section")}
        for key, (was, now) in pairs.items():
            if was != now:
                yield f"was made with {key} {settings.text(was)}, but the config says {settings.text(now)}"


def _files(documents: dict[Job, dict], report: Report) -> Iterator[tuple[str, str]]:
    """Whether the files beside each metrics.json are those that the run wrote."""
    checked, removed = [], 0
    for job, document in documents.items():
        for name in dict.fromkeys([*OUTPUTS[job.stage], *document["outputs"]]):
            path = job.folder / name
            if name == "metrics.json":
                continue
            if name not in document["outputs"]:
                yield str(job.folder), f"metrics.json records no checksum of {name}"
            elif path.exists():
                checked.append((job, name))
            elif name.endswith(_WEIGHTS):
                removed += 1
            else:
                yield str(job.folder), f"{name} is missing"
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        sums = pool.map(lambda item: _sha256(item[0].folder / item[1]), checked)
        for (job, name), found in zip(checked, sums, strict=True):
            wrote = documents[job]["outputs"][name]
            if found != wrote:
                what = f"sha256 {found[:12]}, not {wrote[:12]}"
                yield str(job.folder), f"{name} is not the file that the run wrote ({what})"
    if removed:
        report.notes.append(f"the weights of {plural(removed, 'result')} are not here; their numbers are")


def _encoders(owners: dict[Job, Study], documents: dict[Job, dict], report: Report) -> Iterator[tuple[str, str]]:
    """Whether every run started from the encoder that is declared for it now."""
    made = {job.folder: document["outputs"].get("encoder.safetensors") for job, document in documents.items()}
    unknown = 0
    for job, document in documents.items():
        used = document["provenance"]["inputs"].get("encoder")
        encoder = encoder_of(owners[job], job)
        if encoder is None and used:
            yield str(job.folder), f"started from an encoder (sha256 {used[:12]}), but random weights are declared"
        elif encoder and not used:
            yield str(job.folder), f"started from random weights, but {encoder} is declared"
        elif encoder:
            declared = made.get(encoder.parent) or (file_sha256(encoder) if encoder.exists() else None)
            unknown += declared is None
            if declared not in (None, used):
                what = f"{encoder} ({declared[:12]})"
                yield str(job.folder), f"started from another encoder (sha256 {used[:12]}) than {what}"
    if unknown:
        report.notes.append(f"the encoders that {plural(unknown, 'result')} started from are not here to compare with")


def _stores(owners: dict[Job, Study], documents: dict[Job, dict], report: Report) -> Iterator[tuple[str, str]]:
    """Whether all runs on a store read the same images, and those that are in the store now."""
    readers: dict[Path, dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
    for job, document in documents.items():
        for role, store in stores_of(owners[job], job).items():
            manifest = owners[job].manifest(store)
            read = document["provenance"]["inputs"].get(role)
            if read is None:
                yield str(job.folder), f"metrics.json records no checksum of the images {manifest}"
            else:
                readers[manifest][read].append(job)
    absent = 0
    for manifest, versions in readers.items():
        present = _manifest_checksum(manifest)
        absent += present is None
        right = present or max(versions, key=lambda version: len(versions[version]))
        for version, jobs in versions.items():
            if version != right:
                what = f"{manifest} has now" if present else f"most runs on {manifest} read"
                for job in jobs:
                    yield str(job.folder), f"read other images (checksum {version[:12]}) than {what} ({right[:12]})"
    if absent:
        report.notes.append(f"{absent} of {len(readers)} stores are not here; results were compared with each other")


def _versions(documents: dict[Job, dict]) -> Iterator[tuple[str, str]]:
    """Whether the results of a kind were made by one version of the code."""
    for kind, groups in _by_code(documents).items():
        usual = max(groups, key=lambda code: len(groups[code]))
        for code, jobs in groups.items():
            if code != usual:
                for job in jobs:
                    yield str(job.folder), f"was made by other code ({code}) than most results of {kind} ({usual})"


def _old_code(documents: dict[Job, dict]) -> Iterator[str]:
    for kind, groups in _by_code(documents).items():
        try:
            now = code_fingerprint(f"viny.stages.{kind.split()[0]}")
        except ModuleNotFoundError:
            continue
        if len(groups) == 1 and now not in groups:
            made = next(iter(groups))
            yield f"results of {kind} were made by code {made}; here is {now}, snakemake would run them again"


def _strangers(study: Study) -> Iterator[str]:
    """Results below the study's folder that the config does not declare."""
    declared = {job.metrics for job in study.all_jobs()}
    roots = [study.folder, *study.folder.glob("variants/*")]
    present = [path for root in roots for stage in OUTPUTS for path in (root / stage).rglob("metrics.json")]
    found = [path for path in present if path not in declared]
    if found:
        yield f"{plural(len(found), 'result')} no longer declared by the config, such as {found[0].parent}"


def _by_code(documents: dict[Job, dict]) -> dict[str, dict[str, list[Job]]]:
    groups: dict[str, dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
    for job, document in documents.items():
        groups[job.kind][document["provenance"]["code"]].append(job)
    return groups


def _manifest_checksum(manifest: Path) -> str | None:
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))["checksum"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return "damaged"


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"
