"""Weights of the authors' release (`encoder_*.pth`, `mim_*.pth`) to viny's safetensors, and back.

python -m viny.models.released import encoder_vit_4M_pretrain_200K.pth encoder.safetensors
python -m viny.models.released export encoder.safetensors encoder.pth

Both hold the same numbers under other names. A `mim_*.pth` also repeats the patch embedding under `get_patches` and
`get_patch_embedding`; those copies are ignored, and not written on export.
"""

import argparse
import math
import os
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from viny import console
from viny.errors import VinyError, command
from viny.models.encoder import ViNy, build_encoder
from viny.models.files import check_tensors, load_model, save_model
from viny.models.simmim import SimMIM

HEAD_WIDTH = 64  # of the release; a state dict cannot tell how attention's inner width is split into heads
REPEATED = ("get_patches", "get_patch_embedding")

# (viny's name, the release's name); {} is the number of the layer.
NAMES = [
    ("cls_token", "cls_token"),
    ("pos_embed", "pos_embedding"),
    ("patch_embed.norm_in", "to_patch_embedding.1"),
    ("patch_embed.proj", "to_patch_embedding.2"),
    ("patch_embed.norm", "to_patch_embedding.3"),
    ("blocks.{}.norm1", "transformer.layers.{}.0.layernorm"),
    ("blocks.{}.attn.qkv", "transformer.layers.{}.0.to_qkv"),
    ("blocks.{}.attn.proj", "transformer.layers.{}.0.fc_out.0"),
    ("blocks.{}.norm2", "transformer.layers.{}.1.network.0"),
    ("blocks.{}.mlp.fc1", "transformer.layers.{}.1.network.1"),
    ("blocks.{}.mlp.fc2", "transformer.layers.{}.1.network.4"),
    ("norm", "transformer.norm"),
    ("head", "head"),
]


def released_name(name: str) -> str:
    """The release's name of a tensor of `ViNy` or `SimMIM`."""
    prefix = "encoder." if name.startswith("encoder.") else ""
    bare = name.removeprefix(prefix)
    if bare in ("mask_token", "decoder.weight", "decoder.bias"):
        return name
    for ours, theirs in NAMES:
        pattern = re.escape(ours).replace(r"\{\}", r"(\d+)") + r"(\.weight|\.bias)?"
        if match := re.fullmatch(pattern, bare):
            *layer, suffix = match.groups()
            return prefix + theirs.format(*layer) + (suffix or "")
    raise KeyError(name)


def to_released(model: ViNy | SimMIM) -> dict[str, Tensor]:
    """The state dict that the release would have saved for these weights."""
    return {released_name(name): tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def from_released(state: dict[str, Tensor], path: str | Path) -> ViNy | SimMIM:
    """Build the model of a released state dict; sizes are read off the tensors' shapes.

    Args:
        state: content of the `.pth`.
        path: where it comes from, for messages.

    Raises:
        VinyError: a tensor is missing, unknown or of the wrong shape.
    """
    state = {name: tensor for name, tensor in state.items() if not name.startswith(REPEATED)}
    with_decoder = "mask_token" in state
    model = _build(state, "encoder." if with_decoder else "", path)
    if with_decoder:
        model = SimMIM(model)
    ours = {released_name(name): name for name in model.state_dict()}
    check_tensors(state, {name: model.state_dict()[own].shape for name, own in ours.items()}, path)
    model.load_state_dict({own: state[name] for name, own in ours.items()})
    return model


def read_released(path: str | Path) -> dict[str, Tensor]:
    """Read a `.pth` without running any code that it may contain.

    Raises:
        VinyError: the file is missing, damaged, or holds anything but named tensors.
    """
    if not Path(path).is_file():
        raise VinyError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds something other than plain tensors, or is no PyTorch file; nothing was run"
        raise VinyError(f"{path}: {reason}. Only a saved state_dict can be imported") from error
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise VinyError(f"{path}: not a readable PyTorch file, it may be damaged ({error})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise VinyError(f"{path}: holds no state_dict (names and tensors); save the model's state_dict() instead")
    return state


def _build(state: dict[str, Tensor], prefix: str, path: str | Path) -> ViNy:
    """An encoder of the sizes that a released state dict has."""

    def shape(name: str, dimensions: int) -> torch.Size:
        if prefix + name not in state:
            raise VinyError(f"{path}: tensor {prefix + name!r} is missing; is it a checkpoint of the release?")
        found = state[prefix + name].shape
        if len(found) != dimensions:
            raise VinyError(f"{path}: tensor {prefix + name!r} has shape {tuple(found)}, not {dimensions} dimensions")
        return found

    _, positions, width = shape("pos_embedding", 3)
    values = shape("to_patch_embedding.2.weight", 2)[1]
    inner = shape("transformer.layers.0.0.to_qkv.weight", 2)[0] // 3
    mlp_width = shape("transformer.layers.0.1.network.1.weight", 2)[0]
    layers = {name.removeprefix(prefix).split(".")[2] for name in state if ".layers." in name}
    patch_size, grid = math.isqrt(values // 3), math.isqrt(positions - 1)
    if patch_size**2 * 3 != values or grid**2 + 1 != positions or inner % HEAD_WIDTH:
        raise VinyError(
            f"{path}: sizes that ViNy cannot have: {values} values a patch, {positions} positions, "
            f"attention width {inner} (heads are {HEAD_WIDTH} wide)"
        )
    return build_encoder(
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=len(layers),
        heads=inner // HEAD_WIDTH,
        head_width=HEAD_WIDTH,
        mlp_width=mlp_width,
        num_classes=shape("head.weight", 2)[0] if prefix + "head.weight" in state else 0,
    )


@command
def main(arguments: list[str] | None = None) -> None:
    """Entry point of `python -m viny.models.released`."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.models.released",
        description="Convert weights of the authors' release to viny's safetensors (import) and back (export).",
    )
    parser.add_argument("direction", choices=["import", "export"])
    parser.add_argument("source", type=Path, metavar="IN", help="file to read")
    parser.add_argument("target", type=Path, metavar="OUT", help="file to write")
    args = parser.parse_args(arguments)
    if args.target.exists():
        raise VinyError(f"{args.target}: exists already; name another file or move it away")
    if args.direction == "import":
        model = from_released(read_released(args.source), args.source)
        save_model(model, args.target)
    else:
        model = load_model(args.source)
        if not isinstance(model, ViNy | SimMIM):
            raise VinyError(f"{args.source}: the release has no file for a {type(model).__name__}; export its encoder")
        args.target.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.target.with_name(f".{args.target.name}.{os.getpid()}.partial")
        try:
            torch.save(to_released(model), temporary)
            temporary.replace(args.target)
        finally:
            temporary.unlink(missing_ok=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.say(f"{args.source} -> {args.target}: {type(model).__name__}, {parameters:,} parameters")


if __name__ == "__main__":
    raise SystemExit(main())
