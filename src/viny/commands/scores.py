"""`viny scores`: the scores of a study's cells, mean and spread over their runs, as Table 1 of the paper has them."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from viny.commands import terminal
from viny.commands.parser import Parser
from viny.commands.study import tables_of
from viny.commands.terminal import plural
from viny.errors import command
from viny.logs import setup

if TYPE_CHECKING:
    import pandas as pd

PLACE = ["pretrain", "encoder", "intermediate", "downstream"]
METRICS = {"miou": "mIoU", "accuracy": "pixel accuracy"}
SPREADS = {"se": "standard error", "sd": "standard deviation"}
COLUMNS = [*PLACE, "n", "declared", *(f"{name}_{of}" for name in METRICS for of in ("percent", *SPREADS))]


def parser() -> Parser:
    """The command line."""
    text = "Print mean scores by encoder, task and number of labels, with what is missing; a running study will do."
    made = Parser("scores", text, "results/mine", "cells.csv --metric accuracy --spread sd", "mine.yaml --csv")
    made.add_study(tables=True)
    made.add_argument("--metric", choices=METRICS, default="miou", help="what the table shows (default: miou)")
    made.add_argument("--spread", choices=SPREADS, default="se", help="what follows a mean (default: se)")
    made.add_argument("--csv", action="store_true", help="print all columns as CSV")
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print the scores."""
    args = parser().parse_args(argv)
    setup()
    tables, _ = tables_of(args)
    scores = scores_of(tables.cells)
    if args.csv:
        print(scores.to_csv(index=False, float_format="%.10g"), end="")
    elif args.json:
        terminal.print_json({"study": tables.name, "cells": scores.to_dict("records")})
    else:
        _show(tables.name, scores, args.metric, args.spread)
    return 0


def scores_of(cells: "pd.DataFrame") -> "pd.DataFrame":
    """A row for each cell in COLUMNS: number of finished and of declared runs, scores in percent with both spreads.

    What is not known is not a number: the mean of a cell without a run, the spread of one with a single run.
    """
    from viny.analysis.summary import with_encoders

    found = with_encoders(cells)
    for metric in METRICS:
        found[f"{metric}_sd"] = found[f"{metric}_se"] * found["n"].clip(lower=1) ** 0.5
    order = ["encoder", "pretrain", "intermediate", "downstream"]
    return found.sort_values(order, key=lambda column: column.replace("none", ""))[COLUMNS].reset_index(drop=True)


def _show(name: str, scores: "pd.DataFrame", metric: str, spread: str) -> None:
    """A row for each encoder and task with a column for each number of labels; where too wide, a row for each cell."""
    from viny.analysis import names

    out, done, declared = terminal.console(), int(scores["n"].sum()), int(scores["declared"].sum())
    runs = plural(declared, "run") if done == declared else f"{done:,} of {plural(declared, 'run')}"
    sign = "±" if out.encoding.startswith("utf") else "+-"
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in scores.to_dict("records"):
        place = names.start(cell["pretrain"], cell["encoder"]), names.task(cell["intermediate"])
        shown = _score(cell[f"{metric}_percent"], cell[f"{metric}_{spread}"], sign)
        partial = f" ({cell['n']} of {cell['declared']})" if 0 < cell["n"] < cell["declared"] else ""
        rows.setdefault(place, {})[f"{cell['downstream']:,}"] = shown + partial
    labels = [f"{size:,}" for size in sorted(scores["downstream"].unique())]
    out.print(f"{name}: {METRICS[metric]} (%) by number of labels, mean and {SPREADS[spread]} of {runs}\n")
    wide = [["start", "task", *labels]]
    wide += [[*place, *(cells.get(size, "") for size in labels)] for place, cells in rows.items()]
    long = [[*place, size, shown] for place, cells in rows.items() for size, shown in cells.items()]
    terminal.print_table(out, wide, [["start", "task", "labels", METRICS[metric]], *long], left=2)
    if done < declared:
        out.print("\n-: no run of this cell is there yet", style="dim")


def _score(mean: float, spread: float, sign: str) -> str:
    """`45.6 ± 1.2`, the mean alone of a single run, `-` without one."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} {sign} {spread:.1f}"
