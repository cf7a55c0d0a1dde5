"""Measure viny beside its peers: `python -m benchmarks` in the checkout (`pip install -e '.[bench]'` first).

    python -m benchmarks                 all but the default study, about half an hour on a quiet machine
    python -m benchmarks step input      some of them
    python -m benchmarks --quick         tiny sizes: shows that everything runs, the numbers mean nothing
    python -m benchmarks.gpu             every stage on a GPU

Prints a Markdown table; `--json FILE` keeps every measurement.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Options, document, markdown

# Name on the command line -> module with `run(options)`.
BENCHMARKS = {
    "step": "step",
    "input": "images",
    "start-up": "startup",
    "parallel": "parallel",
    "planning": "planning",
    "demo": "demo",
}
DEFAULT = ("step", "input", "start-up", "parallel", "planning")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all but demo)"
    )
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="measurements of each variant (default: 7)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round")
    parser.add_argument("--compiled", action="store_true", help="compiled training steps, too (a minute to begin)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all measurements")
    args = parser.parse_args(argv)
    unknown = [name for name in args.names if name not in BENCHMARKS]
    if unknown or args.rounds < 1:
        parser.error(f"there is no benchmark {unknown[0]}" if unknown else "--rounds must be at least 1")
    options = Options(1 if args.quick else args.rounds, args.quick, args.compiled)
    groups = []
    for name in args.names or DEFAULT:
        print(name, file=sys.stderr, flush=True)
        groups += importlib.import_module(f"benchmarks.{BENCHMARKS[name]}").run(options)
    if args.json:
        args.json.write_text(json.dumps(document(groups, options), indent=1) + "\n")
    print(markdown(groups))
    return 0


if __name__ == "__main__":
    sys.exit(main())
