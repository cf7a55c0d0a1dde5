"""`viny import` and `viny export`: weights between the authors' release and viny's safetensors."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from viny import logs
from viny.errors import command


@command
def import_main(argv: Sequence[str]) -> int:
    """Convert a file of the release; returns the exit code."""
    return _convert("import", "Convert weights of the authors' release to viny's safetensors.", argv)


@command
def export_main(argv: Sequence[str]) -> int:
    """Convert a file to the format of the release; returns the exit code."""
    return _convert("export", "Convert weights of viny to the format of the authors' release.", argv)


def _convert(name: str, description: str, argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"viny {name}", description=description)
    parser.add_argument("source", type=Path, metavar="IN", help="file to read")
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write; must not be there yet")
    args = parser.parse_args(argv)
    logs.setup()
    from viny.encoders import released  # needs torch, which takes a second

    model = (released.import_released if name == "import" else released.export_released)(args.source, args.target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logs.log.info("%s -> %s: %s, %s parameters", args.source, args.target, type(model).__name__, f"{parameters:,}")
    return 0
