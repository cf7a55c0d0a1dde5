"""The analysis of a study, from its results to a page: `viny analyze`.

| part | writes |
|---|---|
| cells | cells.csv, costs.csv, histories.csv, geometry.csv, similarity.csv, variants.csv (if any), settings.json |
| statistics | statistics/*.csv |
| claims | claims.json, claims.md |
| tables | tables/*.csv, .md, .tex, .html |
| figures | figures/*.png, .pdf |
| page | overview.html, with the pictures that are in figures/ |
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from viny.commands.parser import Parser
from viny.errors import UsageError, command, did_you_mean
from viny.logs import log, setup

if TYPE_CHECKING:
    from viny.analysis.frames import Tables

PARTS = ("statistics", "claims", "tables", "figures", "page", "cells")  # in the order of writing


def analyze(tables: "Tables", output: Path, only: set[str] | None = None, note: str = "", command: str = "") -> None:
    """Write everything about a study, or some parts of it, into the folder `output`.

    Args:
        only: some of `PARTS`; None for all.
        note: a word on the data that figures and page carry. command: what the page says it was made by.

    Raises:
        UsageError: a part has another name.
    """
    wanted = set(PARTS) if only is None else only
    for name in sorted(wanted - set(PARTS)):
        near = did_you_mean(name, PARTS)
        raise UsageError(f"--only {name}: there is no such part{near}; the parts are {', '.join(PARTS)}")

    from viny.analysis.parts import Parts  # what draws and calculates takes seconds to import

    if wanted != set(PARTS):  # the key in settings.json says that all parts are there, so it is also written last
        tables = replace(tables, settings={name: value for name, value in tables.settings.items() if name != "key"})
    parts = Parts(tables, output, note, command, complete=wanted == set(PARTS))
    for name in PARTS:
        if name in wanted:
            getattr(parts, f"write_{name}")()
    done = int((tables.cells["status"] == "done").sum())
    log.info("%s of %s runs of %s have results; see %s", f"{done:,}", f"{len(tables.cells):,}", tables.name, output)


def parser() -> Parser:
    """The command line."""
    text = "Make tables, figures, statistics, verdicts and a page of what is there of a study's results."
    made = Parser("analyze", text, "mine.yaml", "cells.csv --output analysis --only tables,figures")
    made.add_study(tables=True)
    made.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default: the study's folder)")
    made.add_argument("--only", metavar="PARTS", help=f"some of {','.join(PARTS)}")
    made.add_argument("--log", type=Path, metavar="FILE", help="write messages to this file, with times")
    return made


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    from viny.commands.study import tables_of

    args = parser().parse_args(argv)
    if args.log:
        setup(args.log)
    only = set(args.only.split(",")) if args.only else None
    tables, note = tables_of(args)
    output = args.output or (tables.folder if tables.settings.get("key") else None)
    if not output:
        raise UsageError("name the folder to write to with --output FOLDER")
    words = sys.argv[2:] if argv is None else argv
    analyze(tables, output, only, note, shlex.join(["viny", "analyze", *words]))
    return 0
