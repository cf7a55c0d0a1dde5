"""`viny forecast`: seal what cells without a result will score, before they are run."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

from viny.commands import terminal
from viny.commands.parser import Parser, positive
from viny.commands.study import tables_of
from viny.errors import VinyError, command
from viny.logs import log, setup


def parser() -> Parser:
    """The command line."""
    text = (
        "Forecast what cells without a result will score, with intervals, and seal it in a file with time and "
        "fingerprint of the cells behind it; the analysis later sets it beside the results."
    )
    made = Parser("forecast", text, "mine.yaml", "results/mine --labels 800 1600")
    made.add_study(tables=True)
    made.add_argument("--labels", type=positive, nargs="+", default=[], metavar="N", help="forecast these sizes, too")
    made.add_argument("--pretrain", type=positive, nargs="+", default=[], metavar="N", help="and these")
    where = "where to seal (default: beside the results; --published: nowhere)"
    made.add_argument("--output", type=Path, metavar="FOLDER", help=where)
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print forecasts and seal them in a file; 1 if the data allow none."""
    args = parser().parse_args(argv)
    setup()
    tables, _ = tables_of(args)

    from viny.analysis import forecast, names
    from viny.analysis.contrasts import measure
    from viny.analysis.seals import seal
    from viny.analysis.summary import grid

    cells, confidence = tables.grid, tables.confidence
    sizes, tasks, labels = grid(cells)
    more = [*product(sizes, tasks, args.labels), *product(args.pretrain, tasks, [*labels, *args.labels])]
    found, laws = forecast.forecast(cells, confidence, more), forecast.laws(measure(cells))
    if not laws:
        raise VinyError(
            "no forecast: it takes three sizes on one axis, in cells with two runs each, to choose a law and check it"
        )
    if found.empty:
        raise VinyError("every declared cell has a result; name further sizes with --labels or --pretrain")
    folder, sealed = args.output or tables.folder, None
    if folder:
        path, checksum = seal(folder, tables.name, cells, laws, found, confidence)
        sealed = {"path": str(path), "checksum": checksum}
    if args.json:
        terminal.print_json({"study": tables.name, "forecasts": found.to_dict("records"), "sealed": sealed})
        return 0
    rows = [["start", "task", "labels", "forecast", f"{confidence:.0%} interval", "x known", "law"]]
    for row in found.itertuples():
        beyond = " (not checked so far)" if row.factor > row.checked_factor else ""
        interval = f"{row.low:.2f} to {row.high:.2f}"
        place = names.start(row.pretrain), names.task(row.intermediate), f"{row.downstream:,}"
        rows.append([*place, f"{row.predicted:.2f}", interval, f"{row.factor:.2g}{beyond}", forecast.FORMULAS[row.law]])
    terminal.print_table(terminal.console(), rows, left=2)
    if sealed:
        log.info("sealed in %s, checksum %s", *sealed.values())
    return 0
