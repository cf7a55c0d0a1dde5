"""The command `viny`: what to know about a study before, while and after Snakemake runs it.

    viny plan      what a run would do, how long it would take and how much disk it needs
    viny status    what is done, running, interrupted, failed or waiting
    viny verify    whether the results are whole and belong together

Every command is a module of `viny.operations`, imported only when it is called: none of them needs torch.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import viny
from viny.errors import VinyError, command


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parser().parse_args(argv)
    configfile = args.configfile.absolute()
    if not configfile.exists():
        raise VinyError(f"there is no config file {args.configfile}; name the study's with --configfile FILE")
    if not args.directory.is_dir():
        raise VinyError(f"--directory: there is no folder {args.directory}")
    os.chdir(args.directory)  # paths of a study are relative to it, as with snakemake --directory

    from viny.study import Study

    try:
        return args.run(args, Study.from_config(configfile), configfile)
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    study = argparse.ArgumentParser(add_help=False)
    study.add_argument(
        "--configfile", type=Path, default=Path("config.yaml"), metavar="FILE", help="the study (default: config.yaml)"
    )
    study.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where Snakemake works: results, stores and logs are relative to it (default: here)",
    )
    made = argparse.ArgumentParser(prog="viny", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--version", action="version", version=f"viny {viny.__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[study], help=text, description=text)
        added.set_defaults(run=run)
        return added

    plan = add("plan", _plan, "What a run would do, how long it would take and how much disk it needs.")
    plan.add_argument("--jobs", type=_positive, metavar="N", help="jobs at once (default: as many as fit here)")
    plan.add_argument(
        "--review", action="store_true", help="compare the estimate made before the run with what was measured"
    )
    plan.add_argument("--json", action="store_true", help="print JSON for scripts")

    status = add("status", _status, "What is done, running, interrupted, failed or waiting; disturbs no running job.")
    status.add_argument(
        "--watch", type=float, nargs="?", const=5.0, metavar="S", help="again every S seconds (5) until all is done"
    )
    status.add_argument("--json", action="store_true", help="print JSON for scripts")

    verify = add("verify", _verify, "Whether the results are whole and belong together; exit code 1 if not.")
    verify.add_argument("--complete", action="store_true", help="missing results are errors, too")
    verify.add_argument("--json", action="store_true", help="print JSON for scripts")
    return made


def _plan(args: argparse.Namespace, study, configfile: Path) -> int:
    from viny.operations import plan, review

    if args.review:
        return review.review(study, as_json=args.json)
    return plan.plan(study, configfile, at_once=args.jobs, as_json=args.json)


def _status(args: argparse.Namespace, study, configfile: Path) -> int:
    from viny.operations import status

    return status.show(study, every=args.watch, as_json=args.json)


def _verify(args: argparse.Namespace, study, configfile: Path) -> int:
    from viny.operations import verify

    return verify.show(study, complete=args.complete, as_json=args.json)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
