"""How `viny status` looks: the grid as blocks of symbols, then what runs and what failed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from viny.commands import terminal
from viny.commands.status import Overview, Status
from viny.commands.terminal import SYMBOLS, indented, plural, span, symbol
from viny.grid import NONE, SHARED

_SEEDS = 8  # more seeds than these are shown as a number
_LISTED = 12  # entries of a list that are shown
_SPECIAL = ("running", "interrupted", "failed", "outdated")


@contextmanager
def screen(watching: bool) -> Iterator[Callable[[Overview], None]]:
    """A function that shows a look; of several (`watching`) each in the place of the one before.

    Where nothing can be drawn in place, only the last one is shown.
    """
    out = terminal.console()
    if watching:
        with Live(console=out, auto_refresh=False) as live:
            yield lambda found: live.update(picture(found, out, grid_last=True), refresh=True)
    else:
        yield lambda found: out.print(picture(found, out))


def picture(found: Overview, out: Console, grid_last: bool = False) -> Group:
    """Heading, images and analysis, the grid, and lists of what is special; the end may not fit on a screen."""
    grid = [*_blocks(found, out), *_variants(found, out), *_legend(found, out)]
    lists = [part for state in _SPECIAL for part in _list(state, found.having(state), out)]
    body = [*lists, Text(), *grid] if grid_last else [*grid, *lists]
    return Group(_heading(found, out), Text(), _steps(found, out), Text(), *body)


def _heading(found: Overview, out: Console) -> Text:
    dot, counts = terminal.dot(out), found.counts
    parts = [f"{counts['done']:,} of {plural(counts.total(), 'job')} done"]
    parts += [f"{counts[state]:,} {state}" for state in (*_SPECIAL, "waiting") if counts[state]]
    left = f"{dot}about {span(found.seconds_left)} left" if found.pending and found.seconds_left is not None else ""
    return Text.assemble((found.study.name, "bold"), f"{dot}{found.study.folder}{dot}{', '.join(parts)}{left}")


def _steps(found: Overview, out: Console) -> RenderableType:
    """Images and analysis, a line each."""
    stores = [status for status in found.statuses if status.stage == "images"]
    lines = Table.grid(padding=(0, 2, 0, 0))
    if stores:
        done = sum(status.state == "done" for status in stores)
        lines.add_row("images", _symbols(stores, out), f"{done} of {plural(len(stores), 'store')} decoded", style="dim")
    analysis = found.statuses[-1]
    lines.add_row("analysis", symbol(analysis.state, out), Text(analysis.message, overflow="fold"), style="dim")
    return lines


def _blocks(found: Overview, out: Console) -> Iterator[RenderableType]:
    """For each intermediate task, starting points by numbers of labeled images."""
    grid, states = found.study.config.grid, {status.name: status for status in found.statuses}
    measured = ["geometry"] if found.study.config.geometry.enabled else []
    columns: list[int | str] = ["encoder", *grid.downstream, *measured]
    blocks: dict[str, dict[int | str, dict[int | str, dict[int | str, Status | None]]]] = {}
    for job in found.study.members[""]:
        if job.stage in ("finetune", "geometry"):
            block = blocks.setdefault(str(job.coordinates["intermediate"]), {})
            row = block.setdefault(job.coordinates["pretrain"], {column: {} for column in columns})
            row[job.coordinates.get("downstream", "geometry")][job.coordinates["seed"]] = states.get(job.name)
            if job.upstream:
                row["encoder"][job.upstream.coordinates["seed"]] = states.get(job.upstream.name)
    for task, block in blocks.items():
        table = terminal.table("pre-training", *map(_number, columns))
        for start, row in block.items():
            seeds = [[SHARED] if SHARED in cell else grid.seeds for cell in row.values()]
            cells = [[cell.get(seed) for seed in of] for cell, of in zip(row.values(), seeds, strict=True)]
            table.add_row(_number(start), *(_symbols(cell, out) for cell in cells))
        yield Text(task if task != NONE else "no intermediate task", "bold")
        yield table
        yield Text()


def _symbols(statuses: Sequence[Status | None], out: Console) -> Text:
    """A symbol for each, or a share if there are many."""
    if len(statuses) > _SEEDS:
        return _share([status for status in statuses if status], out)
    return Text.assemble(*(symbol(status.state, out) if status else " " for status in statuses))


def _variants(found: Overview, out: Console) -> Iterator[RenderableType]:
    """A row for each variant: its own encoders and measurements, then its own cells."""
    if not found.study.config.variants:
        return
    table = terminal.table("variant", "encoders", "cells")
    for name in found.study.config.variants:
        own = [status for status in found.statuses if status.variant == name]
        cells = [status for status in own if status.stage == "finetune"]
        others = [status for status in own if status.stage != "finetune"]
        table.add_row(name, _share(others, out), _share(cells, out))
    yield Text.assemble(("variants", "bold"), ("  (runs of their own; the others are the study's)", "dim"))
    yield table
    yield Text()


def _share(statuses: Sequence[Status], out: Console) -> Text:
    """`3/9`, and what is special."""
    counts = Counter(status.state for status in statuses)
    special = (symbol(state, out) for state in _SPECIAL if counts[state])
    return Text.assemble(f"{counts['done']}/{len(statuses)}", *special) if statuses else Text()


def _legend(found: Overview, out: Console) -> Iterator[RenderableType]:
    yield Columns([Text.assemble(symbol(state, out), " ", state) for state in SYMBOLS], padding=(0, 2))
    seeds = found.study.config.grid.seeds
    if 1 < len(seeds) <= _SEEDS:
        yield Text(f"one symbol for each seed: {' '.join(map(str, seeds))}", "dim")


def _list(state: str, statuses: Sequence[Status], out: Console) -> Iterator[RenderableType]:
    """What is in a state, and what there is to say of it; jobs with the same to say count as one."""
    groups: dict[str, list[Status]] = defaultdict(list)
    for status in statuses:
        groups[_said(status, terminal.dot(out))].append(status)
    if groups:
        yield Text.assemble("\n", symbol(state, out), " ", (state, "bold"))
    for said, same in list(groups.items())[:_LISTED]:
        yield indented(same[0].name + (f" and {len(same) - 1:,} more" if len(same) > 1 else ""))
        yield indented(said, SYMBOLS[state][2], 4)
        if state == "failed":
            yield indented(same[0].log, "dim", 4)
    if len(groups) > _LISTED:
        yield indented(f"and {sum(map(len, list(groups.values())[_LISTED:])):,} more", "dim")


def _said(status: Status, dot: str) -> str:
    """The message of a job, or its share, epoch, rate and time left as far as they are known."""
    seen = status.progress
    if "samples" not in seen:
        begun = "starting" if status.state == "running" else "at a saved position"
        return status.message or begun
    parts = [f"{seen['samples_seen'] / max(seen['samples'], 1):.0%}", f"epoch {seen['epoch']:,} of {seen['epochs']:,}"]
    if status.state == "running":
        measuring = seen["samples_seen"] >= seen["samples"]
        rate = f"{seen['images_per_second']:,.0f} images/s{dot}{span(seen['seconds_left'])} left"
        parts.append("measuring" if measuring else rate)
        if seen["seconds_since"] > 60:
            parts.append(f"last sign {span(seen['seconds_since'])} ago")
    return dot.join(parts)


def _number(value: int | str) -> str:
    return f"{value:,}" if isinstance(value, int) else value
