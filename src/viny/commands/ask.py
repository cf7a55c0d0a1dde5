"""`viny ask`: what a goal takes, or what a budget buys, in a few lines."""

from collections.abc import Sequence
from typing import Any

from viny.commands import terminal
from viny.commands.parser import Parser, above_zero
from viny.commands.study import tables_of
from viny.config.sections import Prices
from viny.errors import UsageError, VinyError, command
from viny.logs import setup


def parser() -> Parser:
    """The command line."""
    text = "Say how many labels a goal takes with each encoder and what is cheapest, or what a budget buys."
    made = Parser("ask", text, "results/mine --miou 60", "mine.yaml --budget 500 --prices label=0.4 device_hour=2.5")
    made.add_study(tables=True)
    made.add_argument("--miou", type=above_zero, metavar="PERCENT", help="mIoU to reach (default: the study's `goal`)")
    made.add_argument(
        "--budget", type=above_zero, metavar="N", help="what may be spent (default: the study's `budget`)"
    )
    made.add_argument(
        "--prices", nargs="+", default=[], metavar="KEY=N", help="of label, image, device_hour (default: `prices`)"
    )
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print the answer."""
    args = parser().parse_args(argv)
    setup()
    tables, _ = tables_of(args)
    goal, budget = args.miou, args.budget
    if goal is None and budget is None:
        goal, budget = tables.goal, tables.budget
    prices = _prices(args.prices) or tables.prices
    if goal is None and budget is None:
        raise UsageError("name a goal with --miou or a sum with --budget, or set `goal` or `budget` in the study file")

    from viny.analysis import buy

    asked: dict[str, Any] = {
        "goal": (goal, buy.cost_of, buy.answer),
        "budget": (budget, buy.bought_for, buy.budget_answer),
    }
    out, document = terminal.console(), {"study": tables.name}
    for name, (amount, tabulate, say) in asked.items():
        if amount is not None:
            document[name] = tabulate(tables.grid, amount, prices, tables.confidence).to_dict("records")
            if not document[name]:
                raise VinyError(buy.NO_LAW)
            for line in say(tables.grid, amount, prices, tables.confidence) if not args.json else ():
                out.print(line, soft_wrap=not out.is_terminal)
    if args.json:
        terminal.print_json(document)
    return 0


def _prices(words: Sequence[str]) -> Prices | None:
    """`label=0.4 device_hour=2.5`; None for no words."""
    try:
        return (
            Prices.model_validate({key: float(n) for key, n in (word.split("=") for word in words)}) if words else None
        )
    except ValueError:  # also pydantic's
        known = ", ".join(f"{key}=N" for key in Prices.model_fields)
        raise UsageError(f"--prices {' '.join(words)}: give {known}, or some of them, N at least 0") from None
