"""How a plan looks, in the terminal and as JSON."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from viny.operations import rates, work
from viny.operations.plan import FILE, Line, Plan
from viny.operations.terminal import bold, dim, plural, red, size, table
from viny.study import Study


def render(study: Study, plan: Plan) -> Iterator[str]:
    """The lines of a plan."""
    pending = plan.pending
    yield f"{bold(plan.study)} · {plural(plan.cells, 'cell')}, {plan.cells_pending:,} to run · {plan.device.name}"
    yield ""
    heading = ["stage", "jobs", "to run", "image passes", "images/s", "device time", "rate from"]
    rows = [_row(line) for line in plan.lines]
    total, to_run = (sum(getattr(line, name) for line in plan.lines) for name in ("total", "pending"))
    passes = sum(line.images for line in plan.lines if line.kind != "images")
    rows.append(["in all", f"{total:,}", f"{to_run:,}", f"{passes:,}", "", span(plan.device_seconds), ""])
    lines = _aligned([heading, *rows])
    yield dim(lines[0])
    yield from lines[1:-1]
    yield bold(lines[-1])
    yield ""
    if pending.jobs or pending.others:
        generated = f"generating {', '.join(pending.generated)}; " if pending.generated else ""
        yield f"besides   {generated}tables, figures and statistics"
    yield f"time      {span(plan.elapsed)} with {plural(plan.at_once, 'job')} at once, if each keeps its rate"
    if plan.device_seconds is not None:
        hours = plan.device_seconds / 3600
        gpu = plan.device.kind == "cuda"
        threads = study.config["compute"]["threads"]
        yield f"device    {hours:,.2f} GPU-hours" if gpu else f"device    {hours * threads:,.2f} core-hours"
    parts = [f"{name} {size(count)}" for name, count in plan.disk.items() if count and name != "free"]
    needed = sum(count for name, count in plan.disk.items() if name != "free")
    detail = f" ({', '.join(parts)})" if parts else ""
    yield f"disk      {size(needed)}{detail}, {size(plan.disk['free'])} free"
    if needed > plan.disk["free"]:
        yield red("          that is more than there is: make room, or change `results` or `stores`")
    if any(line.rate is None and line.pending for line in plan.lines):
        yield red("the calibration failed, so some times are unknown; a first run of each stage will tell")
    load = os.getloadavg()[0]
    if load > 1.5 * work.cores() and any(rates.CALIBRATION in line.source for line in plan.lines):
        yield red(f"other work keeps this machine busy (load {load:.1f}): calibrated times are too long")
    kept = f"; the estimate is kept in {study.folder / FILE}" if pending.jobs else ""
    yield dim(f"what is to run: by {pending.source}{kept}")


def summary(plan: Plan) -> dict[str, Any]:
    """A plan for scripts."""
    return {
        "study": plan.study,
        "cells": plan.cells,
        "cells_to_run": plan.cells_pending,
        "stages": [asdict(line) for line in plan.lines],
        "device": asdict(plan.device),
        "device_seconds": plan.device_seconds,
        "elapsed_seconds": plan.elapsed,
        "jobs_at_once": plan.at_once,
        "disk_bytes": plan.disk,
        "decided_by": plan.pending.source,
        "other_files": dict(plan.pending.others),
        "estimates": plan.estimates,
    }


def span(seconds: float | None) -> str:
    """`2:03:04`, `4.5 days`, or `?`."""
    if seconds is None:
        return "?"
    return f"{seconds / 86400:,.1f} days" if seconds >= 86400 else str(timedelta(seconds=round(seconds)))


def _row(line: Line) -> list[str]:
    if not line.pending:
        return [line.kind, f"{line.total:,}", "0", "", "", "", ""]
    rate = "?" if line.rate is None else f"{line.rate:,.0f}"
    images = f"({line.images:,})" if line.kind == "images" else f"{line.images:,}"
    return [line.kind, f"{line.total:,}", f"{line.pending:,}", images, rate, span(line.seconds), line.source]


def _aligned(rows: list[list[str]]) -> list[str]:
    """A table whose last column is text as well."""
    front = table([row[:-1] for row in rows])
    width = max(map(len, front))
    return [f"{line.ljust(width)}  {row[-1]}".rstrip() for line, row in zip(front, rows, strict=True)]
