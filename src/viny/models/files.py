"""Models on disk: safetensors whose metadata says how to build the model again.

Tensor names are timm's, so that timm loads an encoder file too. The single metadata entry `viny` is JSON:
{"kind": "encoder" | "simmim" | "classifier" | "segmenter" | "patch_classifier", "model": {sizes}, "classes": int}.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from viny.errors import VinyError
from viny.models.encoder import PAPER_SIZES, ViNy, build_encoder
from viny.models.heads import Classifier, PatchClassifier, Segmenter
from viny.models.simmim import SimMIM

HEADED = {"classifier": Classifier, "segmenter": Segmenter, "patch_classifier": PatchClassifier}


def save_model(model: nn.Module, path: str | Path) -> None:
    """Write an encoder, a SimMIM or an encoder with head to `path`, whole or not at all.

    Equal weights give equal bytes.
    """
    description = {"kind": _kind(model), "model": _encoder(model).model_section, "classes": _classes(model)}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Not `save_file`, whose files nobody but their owner may read.
        temporary.write_bytes(save(tensors, metadata={"viny": json.dumps(description, sort_keys=True)}))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_model(path: str | Path) -> nn.Module:
    """Read what `save_model` wrote: a `ViNy`, `SimMIM`, `Classifier`, `Segmenter` or `PatchClassifier` on the CPU.

    Raises:
        VinyError: if the file is missing, damaged, of another format, or its tensors do not fit its description.
    """
    description, tensors = _read(Path(path))
    model = _build(description, path)
    check_tensors(tensors, {name: tensor.shape for name, tensor in model.state_dict().items()}, path)
    model.load_state_dict(tensors)
    return model


def save_encoder(encoder: ViNy, path: str | Path) -> None:
    """Write an encoder (see `save_model`)."""
    save_model(encoder, path)


def load_encoder(path: str | Path) -> ViNy:
    """Read the encoder of any model file, without the head that it may have.

    Raises:
        VinyError: see `load_model`.
    """
    encoder = _encoder(load_model(path))
    encoder.reset_classifier(0)
    return encoder


def check_tensors(tensors: dict[str, Tensor], shapes: dict[str, torch.Size], path: str | Path) -> None:
    """Raise a VinyError that names the first tensor that is missing, too many, or not of the expected shape."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise VinyError(f"{path}: tensor {name!r} is missing; the file does not hold the whole model")
        if tensors[name].shape != shape:
            found = tuple(tensors[name].shape)
            raise VinyError(f"{path}: tensor {name!r} has shape {found}, expected {tuple(shape)}")
    for name in tensors:
        if name not in shapes:
            raise VinyError(f"{path}: tensor {name!r} is unknown to the model that the file describes")


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and tensors of a model file."""
    if not path.is_file():
        raise VinyError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except SafetensorError as error:
        raise VinyError(f"{path}: not a readable safetensors file ({error}); delete it and make it again") from error
    try:
        description = json.loads(metadata["viny"])
        sizes = description["model"]
        known = {"encoder", "simmim", *HEADED}
        if description["kind"] not in known or set(sizes) != set(PAPER_SIZES):
            raise ValueError
        if not all(type(value) is int and value > 0 for value in sizes.values()):
            raise ValueError
        if type(description["classes"]) is not int or description["classes"] < 0:
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise VinyError(
            f"{path}: safetensors without viny's description of the model; "
            "import a released .pth with `python -m viny.models.released import`"
        ) from error
    return description, tensors


def _build(description: dict[str, Any], path: str | Path) -> nn.Module:
    kind, classes = description["kind"], description["classes"]
    try:
        encoder = build_encoder(**description["model"], num_classes=classes if kind == "encoder" else 0)
    except VinyError as error:
        raise VinyError(f"{path}: {error}") from error
    if kind == "encoder":
        return encoder
    if kind == "simmim":
        return SimMIM(encoder)
    return HEADED[kind](encoder, classes)


def _kind(model: nn.Module) -> str:
    kinds = {ViNy: "encoder", SimMIM: "simmim", **{value: key for key, value in HEADED.items()}}
    return kinds[type(model)]


def _encoder(model: nn.Module) -> ViNy:
    return model if isinstance(model, ViNy) else model.encoder


def _classes(model: nn.Module) -> int:
    if isinstance(model, ViNy):
        return model.num_classes
    return 0 if isinstance(model, SimMIM) else model.classes
