"""How `viny status` looks: the jobs of each kind by state, then what runs and what failed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from viny.commands import terminal
from viny.commands.status import Overview, Status
from viny.commands.terminal import indented, plural, span

STYLES = {
    "done": "green",
    "running": "bold cyan",
    "interrupted": "yellow",
    "failed": "bold red",
    "outdated": "magenta",
    "waiting": "dim",
}
_FIRST, _LAST = ("failed", "running"), ("interrupted", "outdated")  # states whose jobs are listed: above, below
_LISTED = 12  # entries of a list that are shown


@contextmanager
def screen(watching: bool) -> Iterator[Callable[[Overview], None]]:
    """A function that shows a look; of several (`watching`) each in the place of the one before.

    Where nothing can be drawn in place, only the last one is shown.
    """
    out = terminal.console()
    if watching:
        with Live(console=out, auto_refresh=False) as live:
            yield lambda found: live.update(picture(found, _room(out.height)), refresh=True)
    else:
        yield lambda found: out.print(picture(found))


def picture(found: Overview, listed: int = _LISTED) -> Group:
    """Heading, what failed and what runs, numbers of jobs, and what else there is something to say of."""
    left = f", about {span(found.seconds_left)} left" if found.pending and found.seconds_left is not None else ""
    done = f": {found.counts['done']:,} of {plural(found.counts.total(), 'run')} done{left}"
    first, last = (
        [line for state in states for line in _list(state, found.having(state), listed)] for states in (_FIRST, _LAST)
    )
    return Group(Text.assemble((found.study.name, "bold"), done), *first, Text(), _table(found), *last)


def _room(height: int) -> int:
    """Entries of a list, so that what failed and what runs is on a screen of that height, in 80 columns."""
    return max(1, min(_LISTED, (height - 6) // 6))


def _table(found: Overview) -> Table:
    """A row for each stage, and for the runs of each variant; a column for each state that occurs."""
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for status in sorted(found.statuses, key=lambda status: status.variant != ""):
        rows[f"variant {status.variant}" if status.variant else status.stage][status.state] += 1
    states = [state for state in STYLES if found.having(state)]
    table = terminal.table("", *states)
    for name, counts in rows.items():
        table.add_row(name, *(Text(f"{counts[state]:,}" if counts[state] else "", STYLES[state]) for state in states))
    return table


def _list(state: str, statuses: Sequence[Status], listed: int) -> Iterator[RenderableType]:
    """What is in a state, and what there is to say of it; jobs with the same to say count as one."""
    groups: dict[str, list[Status]] = defaultdict(list)
    for status in statuses:
        groups[words(status)].append(status)
    if groups:
        yield Text(f"\n{state}", STYLES[state])
    for said, same in list(groups.items())[:listed]:
        yield indented(same[0].name + (f" and {len(same) - 1:,} more" if len(same) > 1 else ""))
        yield indented(said, STYLES[state], 4)
        if state == "failed":
            yield indented(same[0].log, "dim", 4)
    if len(groups) > listed:
        yield indented(f"and {sum(map(len, list(groups.values())[listed:])):,} more", "dim")


def words(status: Status) -> str:
    """The message of a job, or how far it is."""
    return status.message or progress_words(status.progress, status.state)


def progress_words(seen: Mapping[str, Any], state: str) -> str:
    """Share, epoch, rate and time left of a running or interrupted job, as far as they are known."""
    if "samples" not in seen:
        return "starting" if state == "running" else "at a saved position"
    share = f"{seen['samples_seen'] / max(seen['samples'], 1):.0%}, epoch {seen['epoch']:,} of {seen['epochs']:,}"
    if state != "running":
        return share
    if seen["samples_seen"] >= seen["samples"]:
        return f"{share}, measuring"
    return f"{share}, {seen['images_per_second']:,.0f} images/s, {span(seen['seconds_left'])} left"
