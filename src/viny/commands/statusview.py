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
_NAMED = ("running", "interrupted", "failed", "outdated")  # states whose jobs are listed
_LISTED = 12  # entries of a list that are shown


@contextmanager
def screen(watching: bool) -> Iterator[Callable[[Overview], None]]:
    """A function that shows a look; of several (`watching`) each in the place of the one before.

    Where nothing can be drawn in place, only the last one is shown.
    """
    out = terminal.console()
    if watching:
        with Live(console=out, auto_refresh=False) as live:
            yield lambda found: live.update(picture(found), refresh=True)
    else:
        yield lambda found: out.print(picture(found))


def picture(found: Overview) -> Group:
    """Heading, numbers of jobs, and a list of the jobs of each state of which there is something to say."""
    left = f", about {span(found.seconds_left)} left" if found.pending and found.seconds_left is not None else ""
    done = f": {found.counts['done']:,} of {plural(found.counts.total(), 'job')} done{left}"
    lists = [line for state in _NAMED for line in _list(state, found.having(state))]
    return Group(Text.assemble((found.study.name, "bold"), done), Text(), _table(found), *lists)


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


def _list(state: str, statuses: Sequence[Status]) -> Iterator[RenderableType]:
    """What is in a state, and what there is to say of it; jobs with the same to say count as one."""
    groups: dict[str, list[Status]] = defaultdict(list)
    for status in statuses:
        groups[words(status)].append(status)
    if groups:
        yield Text(f"\n{state}", STYLES[state])
    for said, same in list(groups.items())[:_LISTED]:
        yield indented(same[0].name + (f" and {len(same) - 1:,} more" if len(same) > 1 else ""))
        yield indented(said, STYLES[state], 4)
        if state == "failed":
            yield indented(same[0].log, "dim", 4)
    if len(groups) > _LISTED:
        yield indented(f"and {sum(map(len, list(groups.values())[_LISTED:])):,} more", "dim")


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
