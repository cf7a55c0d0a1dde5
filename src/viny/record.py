"""Writing metrics.json, the result of a job; `viny.results` describes it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from viny.files import file_sha256
from viny.fingerprint import fingerprint
from viny.grid import Job
from viny.provenance import environment
from viny.results import VERSION, Result


def record(
    folder: Path,
    job: Job,
    *,
    metrics: dict[str, Any],
    budget: dict[str, float],
    cost: dict[str, float],
    provenance: dict[str, Any],
) -> None:
    """Write `metrics.json` into the folder that holds the job's other files.

    Args:
        metrics: what was measured. budget: what the training was given. cost: what it took (`viny.results.Cost`).
        provenance: what the job itself does not say of where its numbers come from (`viny.results.Provenance`).
    """
    result = {
        "schema": VERSION,
        "stage": job.stage,
        "coordinates": {"study": job.study, "variant": job.variant, **job.coordinates},
        "metrics": metrics,
        "budget": budget,
        "cost": cost,
        "settings": job.recorded_settings,
        "provenance": {
            **environment(),
            "code": job.code,
            "settings": fingerprint(job.recorded_settings),
            "key": job.key,
            **provenance,
            "finished": utc_now(),
        },
        "outputs": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
    }
    Result.model_validate(result)
    (folder / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")


def utc_now() -> str:
    """The time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
