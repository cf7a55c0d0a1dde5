"""`viny`: one table of commands, each a module that is imported only when it is called."""

import importlib
import sys
from collections.abc import Sequence

import viny
from viny import logs
from viny.errors import VinyError, command, did_you_mean

# For each command where its `main(argv) -> exit code` is, and a line of help.
GROUPS = {
    "Begin": {
        "init": ("viny.commands.init:main", "write a study file for a folder of images"),
        "inspect": ("viny.commands.inspect:main", "what is in the data sets: classes, damage, copies; contact sheets"),
    },
    "Look at a study": {
        "plan": ("viny.commands.plan:main", "what a run would do, how long it would take, how much disk it needs"),
        "status": ("viny.commands.status:main", "what is done, running, interrupted, failed, outdated or waiting"),
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
    logs.setup()
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("-h", "--help", "help"):
        print(usage())
    elif name in ("-V", "--version"):
        print(f"viny {viny.__version__}")
    elif name in COMMANDS:
        module, _, function = COMMANDS[name].partition(":")
        return int(getattr(importlib.import_module(module), function)(rest))
    elif name:
        raise _Usage(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; `viny --help` lists the commands")
    else:
        print(usage(), file=sys.stderr)
        return _Usage.exit_code
    return 0


def usage() -> str:
    """The text of `viny --help`."""
    lines = [
        "usage: viny COMMAND [OPTIONS]",
        "",
        "What do pre-training data, an intermediate task and labels each buy a small",
        "Vision Transformer? `snakemake` runs the study; viny looks at it and runs its parts.",
    ]
    for title, group in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12}{text}" for name, (_, text) in group.items())]
    lines += [
        "",
        "`viny COMMAND --help` explains a command; `viny --version` says the version.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unfinished (`status`), 4 failed for",
        "good (`run`: trying again gives the same), 128 + n stopped by signal n.",
    ]
    return "\n".join(lines)


class _Usage(VinyError):
    exit_code = 2
