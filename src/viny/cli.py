"""`viny`: one table of commands, each a module that is imported only when it is called."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import viny
from viny import logs
from viny.errors import UsageError, command, did_you_mean

# For each command where its `main(argv) -> exit code` is, and a line of help.
GROUPS = {
    "Begin": {
        "init": ("viny.commands.init:main", "write a study file for a folder of images"),
        "inspect": ("viny.commands.inspect:main", "what is in the images: classes, damage, copies; contact sheets"),
    },
    "Look at a study": {
        "plan": ("viny.commands.plan:main", "what a run would do, its time and its disk"),
        "status": ("viny.commands.status:main", "what is done, running, failed, outdated or waiting"),
        "scores": ("viny.commands.scores:main", "mean scores of its cells, also while it runs"),
        "verify": ("viny.commands.verify:main", "whether the results are whole and fit each other"),
    },
    "Run a part of it": {
        "run": ("viny.preload:main", "run one job of a study, of any stage, or decode one of its stores"),
        "analyze": ("viny.analysis.analyze:main", "tables, figures, statistics and verdicts from results"),
    },
    "Look ahead": {
        "forecast": ("viny.commands.forecast:main", "seal what cells will score before they are run"),
        "ask": ("viny.commands.ask:main", "labels that a goal takes, what is cheapest, what a budget buys"),
    },
    "Encoders": {
        "import": ("viny.commands.released:main", "convert a released encoder to viny's format"),
        "model-card": ("viny.commands.modelcard:main", "describe the model of a run: data, training, scores, use"),
    },
    "Elsewhere": {
        "export": ("viny.commands.export:main", "settings, scores and curves for TensorBoard or MLflow"),
    },
    "Reference": {"settings": ("viny.config.describe:main", "every setting with its meaning, range and default")},
}
COMMANDS = {name: main for group in GROUPS.values() for name, (main, _) in group.items()}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; returns its exit code."""
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may come next
        complete()
    logs.setup()
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in ("-V", "--version"):
        print(f"viny {viny.__version__}")
    elif name in COMMANDS:
        module, function = _module(name)
        return int(getattr(module, function)(rest))
    elif name:
        raise UsageError(
            f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; `viny --help` lists the commands"
        )
    else:
        print(usage(), file=sys.stderr)
        return UsageError.exit_code
    return 0


def usage() -> str:
    """The text of `viny --help`."""
    lines = [
        "usage: viny COMMAND [STUDY] [OPTIONS]",
        "",
        "What do pre-training data, an intermediate task and labels each buy a small",
        "Vision Transformer? `snakemake` runs the study; viny looks at it, runs its parts",
        "and answers questions about the results.",
    ]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12}{text}" for name, (_, text) in group.items())]
    lines += [
        "",
        "STUDY is a study file (mine.yaml) or its results (results/mine); without it,",
        "config.yaml. `viny COMMAND --help` explains a command and shows an example.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 something is left to do.",
        'The shell completes commands after: eval "$(register-python-argcomplete viny)"',
    ]
    return "\n".join(lines)


def complete() -> None:
    """Answer what the shell asks to complete a command line; of the commands only the one in it is imported."""
    import argcomplete

    parser = argparse.ArgumentParser("viny")
    commands = parser.add_subparsers()
    for name, (_, text) in (entry for group in GROUPS.values() for entry in group.items()):
        made = getattr(_module(name)[0], "parser", None) if name in os.environ["COMP_LINE"].split()[1:2] else None
        parents = [made()] if made else []
        commands.add_parser(name, help=text, add_help=False, parents=parents, conflict_handler="resolve")
    argcomplete.autocomplete(parser)


def _module(name: str) -> tuple[ModuleType, str]:
    """The module of a command, and the name of its `main`."""
    module, _, function = COMMANDS[name].partition(":")
    return importlib.import_module(module), function
