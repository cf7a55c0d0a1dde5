"""The command `viny`: one table of commands, each a module that is imported only when it is called."""

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import viny
from viny import logs
from viny.errors import VinyError, command, did_you_mean


class Command(NamedTuple):
    """Where a command's `main(argv) -> exit code` is, `module` or `module:function`, and a line of help."""

    main: str
    help: str


COMMANDS = {
    "init": Command("viny.commands.init", "write a study file for a folder of images"),
    "inspect": Command("viny.commands.inspect", "what is in the data sets: classes, damage, copies; contact sheets"),
    "plan": Command("viny.commands.plan", "what a run would do, how long it would take, how much disk it needs"),
    "status": Command("viny.commands.status", "what is done, running, interrupted, failed, outdated or waiting"),
    "forecast": Command("viny.commands.forecast", "seal what cells will score before they are run"),
    "ask": Command("viny.commands.ask", "labels that a goal takes, what is cheapest, what a budget buys"),
    "verify": Command("viny.commands.verify", "whether the results are whole and fit each other"),
    "wait": Command("viny.commands.wait", "wait for the cluster jobs that a killed Snakemake left, or cancel them"),
    "run": Command("viny.preload", "run one job of a study, or a stage by hand"),
    "analyze": Command("viny.analysis.analyze", "tables, figures, statistics and verdicts from results"),
    "import": Command("viny.commands.released:import_main", "convert a released encoder to viny's format"),
    "export": Command("viny.commands.released:export_main", "convert an encoder of viny to the released format"),
    "settings": Command("viny.config.describe", "every setting with its meaning, range and default"),
}
GROUPS = {
    "Begin": ("init", "inspect"),
    "Look at a study": ("plan", "status", "verify", "wait"),
    "Run a part of it": ("run", "analyze"),
    "Look ahead": ("forecast", "ask"),
    "Encoders": ("import", "export"),
    "Reference": ("settings",),
}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names; returns its exit code."""
    logs.setup()
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    name, *rest = words
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name in ("-V", "--version"):
        print(f"viny {viny.__version__}")
        return 0
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS)
        raise _Usage(f"there is no command {name!r}{near}; `viny --help` lists the commands")
    module, _, function = COMMANDS[name].main.partition(":")
    code: int = getattr(importlib.import_module(module), function or "main")(rest)
    return code


def usage() -> str:
    """The text of `viny --help`."""
    lines = [
        "usage: viny COMMAND [OPTIONS]",
        "",
        "What do pre-training data, an intermediate task and labels each buy a small",
        "Vision Transformer? `snakemake` runs the study; viny looks at it and runs its parts.",
    ]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<10}{COMMANDS[name].help}" for name in names)]
    lines += [
        "",
        "`viny COMMAND --help` explains a command; `viny --version` says the version.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unfinished (`status`), 4 failed for",
        "good (`run`: trying again gives the same), 128 + n stopped by signal n.",
    ]
    return "\n".join(lines)


class _Usage(VinyError):
    exit_code = 2
