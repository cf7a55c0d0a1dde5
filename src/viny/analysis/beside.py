"""A study's cells beside the paper's: a table, a figure and the numbers behind them.

    python -m viny.analysis.beside --cells results/demo/cells.csv --output results/demo

Writes statistics/beside_paper.csv (every cell and metric), tables/beside_paper.{csv,md,tex,html} and
figures/beside_paper.{png,pdf} into the output folder. Cells that the paper does not have are left out of the table,
and counted in its note.
"""

import argparse
from pathlib import Path

import pandas as pd

from viny import console
from viny.analysis import figures_results, names, published, style
from viny.analysis.files import KEYS, read_cells, write_csv
from viny.analysis.texttable import TextTable, count, number, plus_minus
from viny.errors import command

METRICS = {"accuracy": "Pixel accuracy", "miou": "mIoU"}


def beside_table(beside: pd.DataFrame) -> TextTable:
    """One row per cell that the paper has too: its mIoU and accuracy there and here, and their difference.

    Args:
        beside: of `viny.analysis.published.beside_paper`.
    """
    shared = beside[beside["published"].notna()]
    rows, rules, before = [], set(), None
    for (pretrain, intermediate, downstream), cell in shared.groupby(KEYS, sort=False):
        if before is not None and (pretrain, intermediate) != before:
            rules.add(len(rows))
        before = (pretrain, intermediate)
        row = [count(pretrain), names.task(intermediate, short=True), count(downstream)]
        for metric in METRICS:
            score = cell[cell["metric"] == metric].iloc[0]
            row += [
                plus_minus(score["published"], score["published_se"]),
                plus_minus(score["ours"], score["ours_se"]),
                plus_minus(score["difference"], score["combined_se"], signed=True),
                number(score["difference_in_se"], 1, signed=True),
            ]
        rows.append(row)
    headings = ["the paper", "this study", "difference", "in SE"]
    columns = ["Pre-training", "Task", "Fine-tuning", *(f"{m}, {h}" for m in METRICS.values() for h in headings)]
    others = len(beside[beside["published"].isna()][KEYS].drop_duplicates())
    note = "Percent, mean ± standard error; differences in points, with the combined standard error."
    if not rows:
        note = "The study shares no cell with the paper's grid, so there is nothing to put beside it."
    elif others:
        note += f" {others} cells of the study are not in the paper."
    title = "This study beside the paper, for the cells that both have."
    return TextTable("", title, columns, rows, shared, note, left=0, rules=rules)


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.beside",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True, help="the study's cells.csv")
    parser.add_argument("--note", default="", help="a word on the data, shown in the figure")
    parser.add_argument("--output", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    style.apply()
    beside = published.beside_paper(read_cells(args.cells))
    write_csv(args.output / "statistics/beside_paper.csv", beside)
    beside_table(beside).write(args.output / "tables/beside_paper")
    style.save(figures_results.beside_paper(beside), args.output / "figures/beside_paper", args.note)
    shared = int(beside.loc[beside["metric"] == "miou", "difference"].notna().sum())
    console.say(f"{shared} measured cells are in the paper too")


if __name__ == "__main__":
    raise SystemExit(main())
