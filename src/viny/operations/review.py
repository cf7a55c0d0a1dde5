"""`viny plan --review`: the estimate made before a run against what the run measured."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from viny.analysis.results import read_result
from viny.errors import VinyError
from viny.operations.plan import FILE, read_kept
from viny.operations.planview import span
from viny.operations.terminal import bold, dim, plural, table
from viny.study import Study


@dataclass
class Outcome:
    """Estimated and true device seconds of the finished jobs of one kind."""

    jobs: int = 0
    estimated: float = 0.0
    measured: float = 0.0

    def add(self, estimated: float, measured: float) -> None:
        """Count one job."""
        self.jobs, self.estimated, self.measured = self.jobs + 1, self.estimated + estimated, self.measured + measured

    @property
    def ratio(self) -> float:
        """Measured over estimated."""
        return self.measured / self.estimated


def review(study: Study, as_json: bool = False) -> int:
    """Print the comparison."""
    kept = read_kept(study)
    estimates = kept.get("estimates", {})
    if not estimates:
        raise VinyError(f"there is no estimate in {study.folder / FILE}; run `viny plan` before the study")
    outcomes: dict[str, Outcome] = defaultdict(Outcome)
    times, waiting = [], 0
    for job in study.all_jobs():
        estimate = estimates.get(str(job.folder))
        if estimate is None:
            continue
        result = read_result(job)
        # An older result may be what the estimate was made from. Both times are UTC, in one format.
        if result is None or result["provenance"]["finished"] < estimate["made"]:
            waiting += 1
            continue
        outcomes[job.kind].add(estimate["seconds"], _seconds(result))
        times += [datetime.fromisoformat(result["provenance"][key]) for key in ("started", "finished")]
    elapsed = (max(times) - min(times)).total_seconds() if times else 0.0
    if as_json:
        document = {
            "study": study.name,
            "planned_elapsed_seconds": kept.get("elapsed_seconds"),
            "elapsed_seconds": elapsed,
            "unfinished": waiting,
            "stages": {kind: {**vars(found), "ratio": found.ratio} for kind, found in outcomes.items()},
        }
        print(json.dumps(document))
        return 0
    print("\n".join(_render(study, kept, outcomes, elapsed, waiting)))
    return 0


def _render(
    study: Study, kept: dict[str, Any], outcomes: dict[str, Outcome], elapsed: float, waiting: int
) -> list[str]:
    lines = [f"{bold(study.name)} · estimate of {kept.get('made', '?')} · {kept.get('device_name', '?')}", ""]
    if not outcomes:
        return [*lines, "none of the planned jobs is finished yet"]
    total = Outcome()
    rows = [["stage", "finished", "estimated", "measured", "measured / estimated"]]
    for kind, found in outcomes.items():
        total.jobs += found.jobs
        total.estimated, total.measured = total.estimated + found.estimated, total.measured + found.measured
        rows.append(_row(kind, found))
    drawn = table([*rows, _row("in all", total)])
    lines += [dim(drawn[0]), *drawn[1:-1], bold(drawn[-1]), ""]
    planned = span(kept.get("elapsed_seconds"))
    lines.append(f"time      {span(elapsed)} from the first start to the last end, {planned} planned")
    if waiting:
        lines.append(f"waiting   {plural(waiting, 'planned job')} without result yet")
    return lines


def _row(kind: str, found: Outcome) -> list[str]:
    return [kind, f"{found.jobs:,}", span(found.estimated), span(found.measured), f"{found.ratio:.2f}"]


def _seconds(result: dict[str, Any]) -> float:
    """Device time of a finished job."""
    return sum(result["cost"][key] for key in ("startup_seconds", "train_seconds", "evaluate_seconds"))
