"""How `viny status` looks: the grid as blocks of symbols, then what runs and what failed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta

from viny.grid import NONE, Job
from viny.operations.status import STATES, JobStatus
from viny.operations.terminal import bold, dim, plural, red, symbol, table
from viny.study import Study

_SEEDS = 8  # more seeds than these are shown as a number
_LISTED = 12  # jobs of one state that are named


def render(study: Study, found: Sequence[JobStatus]) -> Iterator[str]:
    """The lines of the whole picture."""
    jobs = [status for status in found if isinstance(status.job, Job)]
    stores = [status for status in found if not isinstance(status.job, Job)]
    by_place = {(s.job.stage, *s.job.coordinates.values()): s for s in jobs if not s.variant}
    counts = Counter(status.state for status in jobs)
    parts = [f"{counts['done']:,} of {plural(len(jobs), 'job')} done"]
    parts += [f"{counts[state]:,} {state}" for state in STATES[1:] if counts[state]]
    yield f"{bold(study.name)} · {study.folder} · {', '.join(parts)}"
    yield ""
    if stores:
        yield f"images{' ' * 9}{''.join(symbol(s.state) for s in stores)}  {dim(_decoded(stores))}"
        yield ""
    for intermediate in study.config["grid"]["intermediate"]:
        yield from _block(study, intermediate, by_place)
    if study.variants:
        yield from _variants(study, jobs)
    legend = "  ".join(f"{symbol(state)} {state}" for state in STATES)
    seeds = study.config["grid"]["seeds"]
    yield legend + dim(f"   (one symbol for each seed: {' '.join(map(str, seeds))})" if len(seeds) <= _SEEDS else "")
    for state in ("running", "interrupted", "failed"):
        yield from _listing(state, [status for status in found if status.state == state])


def _block(study: Study, intermediate: str, by_place: dict[tuple, JobStatus]) -> Iterator[str]:
    """Pre-training sizes by numbers of labeled images, for one intermediate task."""
    grid = study.config["grid"]
    seeds = grid["seeds"]
    headings = ["encoder", *(f"{n:,}" for n in grid["downstream"])]
    if study.config["geometry"]["enabled"]:
        headings.append("geometry")
    rows = []
    for size in grid["pretrain"]:
        columns = [_encoders(study, size, intermediate)]
        columns += [[("finetune", size, intermediate, n, seed) for seed in seeds] for n in grid["downstream"]]
        if study.config["geometry"]["enabled"]:
            columns.append([("geometry", size, intermediate, seed) for seed in seeds])
        cells = [[by_place.get(place) for place in places] for places in columns]
        if any(status for cell in cells[1:] for status in cell):
            rows.append((size, [_symbols(cell) for cell in cells]))
    if not rows:
        return
    widths = [max(len(title), *(cells[i][1] for _, cells in rows)) for i, title in enumerate(headings)]
    yield bold(intermediate if intermediate != NONE else "no intermediate task")
    titles = "   ".join(title.ljust(width) for title, width in zip(headings, widths, strict=True))
    yield dim(f"pre-training   {titles.rstrip()}")
    for size, cells in rows:
        line = "   ".join(text + " " * (w - width) for (text, width), w in zip(cells, widths, strict=True))
        yield f"{size:>12,}   {line.rstrip()}"
    yield ""


def _variants(study: Study, jobs: Sequence[JobStatus]) -> Iterator[str]:
    """A row for each variant: its own encoders, then its own cells."""
    rows = [("variant", "encoders", "cells")]
    for name in study.variants:
        own = [status for status in jobs if status.variant == name]
        parts = [[s for s in own if (s.job.stage == "finetune") == cells] for cells in (False, True)]
        rows.append((name, *map(_counted, parts)))
    lines = [line.removeprefix("  ") for line in table(rows)]
    yield bold("variants") + dim("  (runs of their own; the others are the study's)")
    yield dim(lines[0])
    yield from lines[1:]
    yield ""


def _counted(found: Sequence[JobStatus]) -> str:
    """`3/9`, and what is special."""
    counts = Counter(status.state for status in found)
    special = [f" {counts[state]} {state}" for state in ("running", "interrupted", "failed") if counts[state]]
    return f"{counts['done']}/{len(found)}{','.join(special)}" if found else ""


def _encoders(study: Study, size: int, intermediate: str) -> list[tuple]:
    """The jobs that make the encoders of a row."""
    seeds = study.config["grid"]["seeds"]
    if intermediate != NONE:
        return [("intermediate", size, intermediate, seed) for seed in seeds]
    if size == 0:
        return []
    return [("pretrain", size, seed) for seed in dict.fromkeys(map(study.pretrain_seed, seeds))]


def _symbols(cell: Sequence[JobStatus | None]) -> tuple[str, int]:
    """One symbol for each seed, or `7/10` and what is special for many of them; with the width on screen."""
    if len(cell) <= _SEEDS:
        return "".join(symbol(status.state) if status else " " for status in cell), len(cell)
    counts = Counter(status.state for status in cell if status)
    special = [state for state in ("running", "interrupted", "failed") if counts[state]]
    text = f"{counts['done']}/{counts.total()}"
    return text + "".join(map(symbol, special)), len(text) + len(special)


def _decoded(stores: Sequence[JobStatus]) -> str:
    done = sum(status.state == "done" for status in stores)
    return f"{done} of {plural(len(stores), 'part')} of the data sets decoded"


def _listing(state: str, found: Sequence[JobStatus]) -> Iterator[str]:
    if not found:
        return
    yield ""
    yield f"{symbol(state)} {bold(state)}"
    width = max(len(status.name) for status in found[:_LISTED])
    for status in found[:_LISTED]:
        if state == "failed":
            yield f"  {status.name}"
            yield f"    {red(status.message)}"
            yield dim(f"    {status.log}")
        else:
            yield f"  {status.name.ljust(width)}  {_progress(status)}"
    if len(found) > _LISTED:
        yield dim(f"  and {len(found) - _LISTED:,} more")


def _progress(status: JobStatus) -> str:
    """Share, epoch, rate and time left, as far as they are known."""
    seen = status.progress
    if "image_passes" not in seen:
        return dim(status.message or ("starting" if status.state == "running" else "at its beginning"))
    parts = [f"{seen['images'] / max(seen['image_passes'], 1):4.0%}", f"epoch {seen['epoch']:,} of {seen['epochs']:,}"]
    if status.state == "running":
        if seen["images"] >= seen["image_passes"]:
            parts.append("measuring")
        else:
            parts.append(f"{seen.get('images_per_second', 0):,.0f} images/s")
            if "seconds_left" in seen:
                parts.append(f"{timedelta(seconds=round(seen['seconds_left']))} left")
        if (seen.get("seconds_since") or 0) > 60:
            parts.append(f"last sign {timedelta(seconds=round(seen['seconds_since']))} ago")
    return " · ".join(parts)
