"""`viny ask`: what a goal takes, or what a budget buys, in a few lines."""

import argparse
from collections.abc import Sequence

from viny.commands.study import above_zero, add_tables_flags, tables_of
from viny.config.sections import Prices
from viny.errors import VinyError, command
from viny.logs import setup


@command
def main(argv: Sequence[str]) -> int:
    """Print the answer."""
    text = "The labels that a goal takes with each encoder and what is cheapest, or what a budget buys."
    parser = argparse.ArgumentParser(prog="viny ask", description=text)
    add_tables_flags(parser)
    parser.add_argument(
        "--miou", type=above_zero, metavar="PERCENT", help="mIoU to reach (default: `goal.miou` of the study)"
    )
    parser.add_argument(
        "--budget", type=above_zero, metavar="N", help="what may be spent (default: `budget` of the study)"
    )
    parser.add_argument(
        "--prices",
        nargs="+",
        default=[],
        metavar="KEY=N",
        help="label=0.4 image=0.001 device_hour=2.5 (default: `prices`)",
    )
    args = parser.parse_args(argv)
    setup()
    tables, _ = tables_of(args)
    goal, budget = args.miou, args.budget
    if goal is None and budget is None:
        goal, budget = tables.goal, tables.budget
    prices = _prices(args.prices) or tables.prices
    if goal is None and budget is None:
        raise VinyError("name a goal with --miou or a sum with --budget, or set `goal` or `budget` in the study file")

    from viny.analysis import buy

    lines = buy.answer(tables.grid, goal, prices, tables.confidence) if goal is not None else []
    lines += buy.budget_answer(tables.grid, budget, prices, tables.confidence) if budget is not None else []
    print(*lines, sep="\n")
    return 0


def _prices(words: Sequence[str]) -> Prices | None:
    """`label=0.4 device_hour=2.5`; None for no words."""
    try:
        return (
            Prices.model_validate({key: float(n) for key, n in (word.split("=") for word in words)}) if words else None
        )
    except ValueError:  # also pydantic's
        known = ", ".join(f"{key}=N" for key in Prices.model_fields)
        raise VinyError(f"--prices {' '.join(words)}: give {known}, or some of them, N at least 0") from None
