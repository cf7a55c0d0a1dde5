"""Which results of a study are there and up to date: what metrics.json records decides, dates and paths do not.

A result is up to date if everything that defines its run is as the study file has it now: settings, code, images and,
in the same way, the encoder that it started from. Decoded images are compared where they are present; where they are
not, nothing is missing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from viny.datasets.store import prefix_checksum, read_manifest
from viny.fingerprint import SOURCE, fingerprint
from viny.grid import Job, StoreSpec, Study

MISSING = "missing"


@dataclass(frozen=True)
class Survey:
    """The state of all jobs of a study, from a single look at the disk.

    Attributes:
        reasons: why each job has no result that is up to date (`missing`, or what has changed); empty if it has one.
    """

    study: Study
    reasons: dict[Job, str]

    @cached_property
    def outdated(self) -> dict[Job, str]:
        """Jobs whose result is there and no longer what the study file asks for."""
        return {job: reason for job, reason in self.reasons.items() if reason not in ("", MISSING)}

    @cached_property
    def pending(self) -> list[Job]:
        """Jobs that a run would do: those without a result that is up to date, and encoders that these start from."""
        needed: dict[Job, None] = {}
        for job in self.study.jobs.values():
            if self.reasons[job] and job.stage in ("finetune", "geometry"):
                needed |= dict.fromkeys(self._chain(job))
        return [job for job in self.study.jobs.values() if job in needed]

    def ready(self, job: Job) -> bool:
        """Whether nothing has to be run for what starts from this job's result."""
        return not self.reasons[job] and (job.stage in ("finetune", "geometry") or job.checkpoint.exists())

    def _chain(self, job: Job) -> Iterator[Job]:
        yield job
        start = job.upstream
        while start is not None and not self.ready(start):
            yield start
            start = start.upstream


def survey(study: Study) -> Survey:
    """Look at the results of all jobs of a study."""
    images = cache(rows_checksum)
    return Survey(study, {job: _reason(job, images) for job in study.jobs.values()})


def analysis_key(study: Study) -> str:
    """Fingerprint of what the analysis depends on beside the results: its code and what the study file says of it."""
    code = {str(path.relative_to(SOURCE)): path.read_text(encoding="utf-8") for path in _analysis_files()}
    about = {"study", "grid", "geometry", "analysis", "claims", "variants", "goal", "budget", "prices"}
    config = study.config.model_dump(mode="json", include=about)
    return fingerprint([code, config, list(study.jobs)])


def analysis_is_current(study: Study) -> bool:
    """Whether the analysis in the study's folder was made by this code and for this study file."""
    try:
        made = json.loads((study.folder / "settings.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and made.get("key") == analysis_key(study)


def _analysis_files() -> list[Path]:
    kinds = (".py", ".j2", ".csv", ".css", ".js", ".yaml")
    return sorted(path for path in (SOURCE / "analysis").rglob("*") if path.suffix in kinds)


def _reason(job: Job, images: Any) -> str:
    """Why a job has no result that is up to date, or nothing."""
    try:
        document = json.loads(job.metrics.read_bytes())
        made = document["provenance"]
        if made.get("key") != job.key or document["coordinates"].get("study") != job.study:
            return _change(job, document)
        now = images(job.store, document["budget"].get("images"))
        return "" if now in (None, made.get("inputs", {}).get("store")) else "the images have changed"
    except FileNotFoundError:
        return MISSING
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return f"metrics.json is damaged ({type(error).__name__})"


def _change(job: Job, document: dict[str, Any]) -> str:
    """What has changed since a result was made, in words."""
    made, recorded = document["provenance"], document.get("settings", {})
    if document.get("coordinates", {}).get("study") != job.study:
        return f"it was made for the study {document.get('coordinates', {}).get('study')}"
    before, now = flat(recorded), flat(job.recorded_settings)
    changed = sorted(key for key in now if key in before and before[key] != now[key])
    if changed:
        shown = ", ".join(f"{key} was {before[key]}, is {now[key]}" for key in changed[:3])
        return shown + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    if made.get("key") is None:
        return "it was made by an earlier version of viny"
    if made.get("code") != job.code:
        return f"the code of {job.task} has changed"
    return "the encoder that it starts from has changed" if job.encoder or job.pretrained else "the data have changed"


def flat(settings: Any, above: str = "") -> dict[str, Any]:
    """`{"finetune": {"epochs": 3}}` -> `{"finetune.epochs": 3}`."""
    found: dict[str, Any] = {}
    for key, value in settings.items() if isinstance(settings, dict) else ():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return found


def rows_checksum(spec: StoreSpec, images: Any) -> str | None:
    """Checksum of the rows that a run with so many training images reads, None if they are not decoded here."""
    manifest = read_manifest(spec.folder)
    if manifest is None or not isinstance(images, int):
        return None
    return prefix_checksum(spec.folder, manifest["tests"] + images)
