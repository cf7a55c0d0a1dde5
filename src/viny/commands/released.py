"""`viny import`: weights of the authors' release to viny's safetensors."""

from collections.abc import Sequence
from pathlib import Path

from viny import logs
from viny.commands.parser import Parser
from viny.errors import command


def parser() -> Parser:
    """The command line."""
    text = "Convert weights of the authors' release to viny's safetensors."
    made = Parser("import", text, "vit_4M_pretrain.pth released.safetensors")
    made.add_argument("source", type=Path, metavar="IN", help="file to read")
    made.add_argument("target", type=Path, metavar="OUT", help="file to write; must not be there yet")
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Convert a file of the release; returns the exit code."""
    args = parser().parse_args(argv)
    logs.setup()
    from viny.encoders.released import import_released  # needs torch, which takes a second

    model = import_released(args.source, args.target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    logs.log.info("%s -> %s: %s, %s parameters", args.source, args.target, type(model).__name__, f"{parameters:,}")
    return 0
