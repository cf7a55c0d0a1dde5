"""The command `viny`: what to know about a study before, while and after Snakemake runs it.

    viny plan      what a run would do, how long it would take and how much disk it needs
    viny status    what is done, running, interrupted, failed or waiting
    viny verify    whether the results are whole and belong together
    viny settle    wait for the jobs that a killed Snakemake left on a cluster, or cancel them

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
    if not args.directory.is_dir():
        raise VinyError(f"--directory: there is no folder {args.directory}")
    try:
        return args.run(args)
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and their flags."""
    place, study = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    study.add_argument(
        "--configfile", type=Path, default=Path("config.yaml"), metavar="FILE", help="the study (default: config.yaml)"
    )
    place.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where Snakemake works: results, stores and logs are relative to it (default: here)",
    )
    made = argparse.ArgumentParser(prog="viny", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--version", action="version", version=f"viny {viny.__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[*parents, place], help=text, description=text)
        added.set_defaults(run=run)
        return added

    plan = add("plan", _plan, "What a run would do, how long it would take and how much disk it needs.", study)
    plan.add_argument("--jobs", type=_positive, metavar="N", help="jobs at once (default: as many as fit here)")
    plan.add_argument(
        "--review", action="store_true", help="compare the estimate made before the run with what was measured"
    )
    plan.add_argument("--json", action="store_true", help="print JSON for scripts")

    status = add("status", _status, "What is done, running, interrupted, failed or waiting; disturbs no job.", study)
    status.add_argument(
        "--watch", type=float, nargs="?", const=5.0, metavar="S", help="again every S seconds (5) until all is done"
    )
    status.add_argument("--json", action="store_true", help="print JSON for scripts")

    verify = add("verify", _verify, "Whether the results are whole and belong together; exit code 1 if not.", study)
    verify.add_argument("--complete", action="store_true", help="missing results are errors, too")
    verify.add_argument("--json", action="store_true", help="print JSON for scripts")

    settle = add("settle", _settle, "Wait for the jobs that a killed Snakemake left on a cluster, or cancel them.")
    settle.add_argument("--cancel", action="store_true", help="cancel the jobs; they save their state")
    return made


def _study(args: argparse.Namespace) -> tuple:
    """The study and its config file; from here on the working directory is where Snakemake works."""
    configfile = args.configfile.absolute()
    if not configfile.exists():
        raise VinyError(f"there is no config file {args.configfile}; name the study's with --configfile FILE")
    os.chdir(args.directory)  # paths of a study are relative to it, as with snakemake --directory

    from viny.study import Study

    return Study.from_config(configfile), configfile


def _plan(args: argparse.Namespace) -> int:
    from viny.operations import plan, review

    study, configfile = _study(args)
    if args.review:
        return review.review(study, as_json=args.json)
    return plan.plan(study, configfile, at_once=args.jobs, as_json=args.json)


def _status(args: argparse.Namespace) -> int:
    from viny.operations import status

    return status.show(_study(args)[0], every=args.watch, as_json=args.json)


def _verify(args: argparse.Namespace) -> int:
    from viny.operations import verify

    return verify.show(_study(args)[0], complete=args.complete, as_json=args.json)


def _settle(args: argparse.Namespace) -> int:
    from viny.operations import settle

    return settle.settle(args.directory, args.cancel)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)
