"""Measure viny beside its peers: `python -m benchmarks` in the checkout (`pip install -e '.[bench]'` first).

    python -m benchmarks                        all but the demo
    python -m benchmarks step images            some of them
    python -m benchmarks demo --against FOLDER  the default study, here and in another checkout
    python -m benchmarks --quick                tiny sizes: shows that everything runs, the numbers mean nothing
    python -m benchmarks.gpu                    every stage on a GPU

Prints a Markdown table; `--json FILE` keeps every measurement.
"""

import argparse
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Group, Options, report

NAMES = ("step", "images", "scale", "startup", "planning", "parallel", "demo")  # modules with `run(options)`


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=layout)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (default: all but demo)")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="checkout that the demo is compared with")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="measurements of each variant (default: 7)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all measurements")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in NAMES]
    if unknown or args.rounds < 1:
        parser.error(f"there is no benchmark {unknown[0]}" if unknown else "--rounds must be at least 1")
    if ("demo" in args.names) != bool(args.against and (args.against / "Snakefile").is_file()):
        parser.error("demo and --against FOLDER, a checkout with a Snakefile, go together")
    options = Options(1 if args.quick else args.rounds, args.quick, against=args.against)
    report(_groups(args.names or NAMES[:-1], options), options, args.json)
    return 0


def _groups(names: Sequence[str], options: Options) -> Iterator[Group]:
    for name in names:
        yield from importlib.import_module(f"benchmarks.{name}").run(options)


if __name__ == "__main__":
    sys.exit(main())
