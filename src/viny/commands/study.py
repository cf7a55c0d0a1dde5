"""What commands are about: a study, named as Snakemake names it, or a table of cells."""

import argparse
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from viny.config import load, yamlfile
from viny.errors import VinyError
from viny.grid import Study

if TYPE_CHECKING:
    from viny.analysis.frames import Tables

DEFAULT = Path("config.yaml")
PROCEDURAL = "procedural images, not a result about real ones"


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say which study a command is about; read them with `study_of`."""
    parser.add_argument(
        "--configfile",
        type=Path,
        nargs="+",
        default=[DEFAULT],
        metavar="FILE",
        help="the study; of several files later ones are laid over earlier ones (default: config.yaml)",
    )
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings laid over the files, as in snakemake"
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where Snakemake works: results, stores and logs are relative to it, config files are not (default: here)",
    )


def add_tables_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of commands that also take results without their study; read them with `tables_of`."""
    parser.add_argument(
        "cells", type=Path, nargs="?", metavar="CELLS.csv", help="a table of cells, or a study file as --configfile"
    )
    add_study_flags(parser)
    parser.add_argument("--published", action="store_true", help="the paper's own numbers")


def tables_of(args: argparse.Namespace) -> tuple["Tables", str]:
    """The tables that a command line names, and a note on their data for figures.

    Raises:
        VinyError: more than one source is named, or the one is not valid.
    """
    named = [bool(args.cells), args.published, bool(args.configfile != [DEFAULT] or args.config)]
    if sum(named) > 1:
        raise VinyError("give only one of CELLS.csv, --published, and a study (--configfile, --config)")

    from viny.analysis import frames, published

    if args.published:
        return published.tables(), published.NOTE
    if args.cells and args.cells.suffix == ".csv":
        return frames.from_csv(args.cells), ""
    if args.cells:
        args.configfile = [args.cells]
    study = study_of(args)
    return frames.from_study(study), PROCEDURAL if study.config.data.procedural else ""


def study_of(args: argparse.Namespace) -> Study:
    """The study that a command line names; from here on `--directory` is the working directory.

    Raises:
        VinyError: there is no such folder; a file or a setting is not valid.
    """
    # Shown in messages as they were given, where that is the same file.
    files = args.configfile if args.directory == Path() else [path.absolute() for path in args.configfile]
    try:
        os.chdir(args.directory)
    except (FileNotFoundError, NotADirectoryError):
        raise VinyError(f"--directory {args.directory}: there is no such folder") from None
    return Study(load(*files, *map(_override, args.config)))


def positive(text: str) -> int:
    """A number of a command line that is 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def above_zero(text: str) -> float:
    """A number of a command line above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _override(text: str) -> dict[str, Any]:
    """`study=mine`, `finetune.epochs=3` or `grid={seeds: [1]}` as settings."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise VinyError(f"--config {text}: is not of the form KEY=VALUE")
    try:
        settings = yamlfile.parse(value)
    except (yaml.YAMLError, ValueError) as error:
        raise VinyError(f"--config {text}: {yamlfile.said(error)}") from None
    for part in reversed(key.split(".")):
        settings = {part: settings}
    return settings
