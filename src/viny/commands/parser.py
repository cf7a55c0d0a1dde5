"""Command lines of one form: a sentence, options in groups, examples, exit codes; how a study is named."""

import argparse
import math
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CODES = "exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is left to do"


class Parser(argparse.ArgumentParser):
    """The command line of `viny NAME`.

    Args:
        text: what the command does, in a sentence. examples: command lines without `viny NAME`.
        codes: exit codes, where there are more than 0, 1 and 2.
    """

    def __init__(self, name: str, text: str, *examples: str, codes: str = ""):
        shown = [textwrap.fill(codes, 79)] if codes else []
        if examples:
            lines = [f"  viny {name} {example}".rstrip() for example in examples]
            shown.insert(0, "\n".join([f"example{'s' * (len(examples) > 1)}:", *lines]))
        super().__init__(
            prog=f"viny {name}",
            description=textwrap.fill(text, 79),
            epilog="\n\n".join(shown),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_study(self, tables: bool = False) -> None:
        """The arguments that say which study a command is about; read them with `study_of`, or else `tables_of`.

        Args:
            tables: whether results without their study will do: a table of cells, or the paper's numbers.
        """
        study = self.add_argument_group("which study")
        also = ", a table of cells (cells.csv)" if tables else ""
        named = study.add_argument(
            "study",
            type=Path,
            nargs="?",
            metavar="STUDY",
            help=f"a study file{also}, or a folder of results (default: config.yaml)",
        )
        _complete(named, _study_files)
        files = study.add_argument(
            "--configfile",
            type=Path,
            nargs="+",
            default=[],
            metavar="FILE",
            help="study files, as in snakemake; later ones are laid over earlier ones",
        )
        _complete(files, _study_files)
        study.add_argument(
            "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings laid over the files, as in snakemake"
        )
        study.add_argument(
            "--directory",
            type=Path,
            metavar="DIR",
            help="where Snakemake works: results, stores and logs are below it (default: here)",
        )
        if tables:
            study.add_argument("--published", action="store_true", help="the paper's own numbers")

    def add_json(self) -> None:
        """The flag `--json`."""
        self.add_argument("--json", action="store_true", help="print JSON for scripts (docs/commands.md)")


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


def _complete(argument: argparse.Action, words: Any) -> None:
    """Have the shell complete an argument by what `words` returns for its beginning."""
    argument.completer = words  # type: ignore[attr-defined]


def _study_files(prefix: str, **_: Any) -> Iterable[str]:
    """Study files, tables and folders that begin so."""
    from argcomplete.completers import FilesCompleter

    return FilesCompleter(("yaml", "yml", "json", "csv"))(prefix)


def job_names(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterable[str]:
    """Jobs and stores of the study that a command line names."""
    from viny.commands.study import study_of
    from viny.errors import VinyError

    try:
        study = study_of(parsed_args)
    except (VinyError, OSError):
        return []
    names = [*study.jobs, *(f"stores/{store.place}" for store in study.stores)]
    return [name for name in names if name.startswith(prefix)]
