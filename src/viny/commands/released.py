"""`viny import`: weights of the authors' release to viny's safetensors."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from viny import logs
from viny.errors import command


@command
def main(argv: Sequence[str]) -> int:
    """Convert a file of the release; returns the exit code."""
    description = "Convert weights of the authors' release to viny's safetensors."
    parser = argparse.ArgumentParser(prog="viny import", description=description)
    parser.add_argument("source", type=Path, metavar="IN", help="file to read")
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write; must not be there yet")
    args = parser.parse_args(argv)
    logs.setup()
    from viny.encoders.released import import_released  # needs torch, which takes a second

    model = import_released(args.source, args.target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logs.log.info("%s -> %s: %s, %s parameters", args.source, args.target, type(model).__name__, f"{parameters:,}")
    return 0
