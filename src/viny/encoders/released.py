"""Weights of the authors' release (`encoder_*.pth`, `mim_*.pth`) to viny's safetensors.

Both hold the same numbers under other names. Of a `mim_*.pth` the encoder is taken, without mask token and decoder.
Every function raises a `VinyError` for a file that is missing, damaged, of something else, or there already.
"""

import math
import pickle
import re
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from viny.encoders.checkpoints import fill, save_model
from viny.encoders.heads import Classifier
from viny.encoders.vit import ViNy
from viny.errors import VinyError

HEAD_WIDTH = 64  # of the release; a state dict cannot tell how attention's inner width is split into heads

# Parts of viny's tensor names and what they are in the release; the first that fits is taken.
NAMES = {
    "pos_embed": "pos_embedding",
    "patch_embed.norm_in": "to_patch_embedding.1",
    "patch_embed.proj": "to_patch_embedding.2",
    "patch_embed.norm": "to_patch_embedding.3",
    "blocks": "transformer.layers",
    "norm1": "0.layernorm",
    "attn.qkv": "0.to_qkv",
    "attn.proj": "0.fc_out.0",
    "norm2": "1.network.0",
    "mlp.fc1": "1.network.1",
    "mlp.fc2": "1.network.4",
    "norm": "transformer.norm",
}


def import_released(source: Path, target: Path) -> ViNy | Classifier:
    """Convert a released `.pth` to safetensors; with a classification head it is a `Classifier`."""
    if target.exists():
        raise VinyError(f"{target}: exists already; name another file or move it away")
    model = from_released(read_released(source), source)
    save_model(model, target)
    return model


def released_name(name: str) -> str:
    """The release's name of a tensor of `ViNy` or of a `Classifier` with one."""
    parts = "|".join(map(re.escape, NAMES))
    return re.sub(parts, lambda found: NAMES[found[0]], name.removeprefix("encoder."))


def from_released(state: dict[str, Tensor], path: Path) -> ViNy | Classifier:
    """The model of a released state dict, read from `path`; its sizes are those of the tensors."""
    if "mask_token" in state:
        start = "encoder."
        state = {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}

    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in state or state[name].dim() != dimensions:
            raise VinyError(f"{path}: no tensor {name!r} of {dimensions} dimensions; is it a file of the release?")
        return state[name].shape

    _, positions, width = shape("pos_embedding", 3)
    _, values = shape("to_patch_embedding.2.weight", 2)
    inner, _ = shape("transformer.layers.0.0.to_qkv.weight", 2)
    mlp_width, _ = shape("transformer.layers.0.1.network.1.weight", 2)
    depth = len({name.split(".")[2] for name in state if name.startswith("transformer.layers.")})
    # Sizes that do not come out even give a model that the tensors do not fit.
    patch_size, grid = max(math.isqrt(values // 3), 1), math.isqrt(max(positions - 1, 1))
    heads = max(inner // (3 * HEAD_WIDTH), 1)
    with torch.device("meta"):
        encoder = ViNy(grid * patch_size, patch_size, width, depth, heads, HEAD_WIDTH, mlp_width)
        model = Classifier(encoder, shape("head.weight", 2)[0]) if "head.weight" in state else encoder
    return fill(model, state, path, released_name)


def read_released(path: Path) -> dict[str, Tensor]:
    """Read a `.pth` without running any code that it may contain."""
    if not path.is_file():
        raise VinyError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds something other than plain tensors, or is no PyTorch file; nothing was run"
        raise VinyError(f"{path}: {reason}. Only a saved state_dict can be imported") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = str(error) or type(error).__name__
        raise VinyError(f"{path}: not a readable PyTorch file, it may be damaged ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise VinyError(f"{path}: holds no state_dict (names and tensors); save the model's state_dict() instead")
    return state
