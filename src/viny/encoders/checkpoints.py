"""Models on disk: safetensors whose metadata says how to build the model again.

Tensor names are timm's, so that timm loads an encoder file too. The metadata entry `viny` is a `Description` as JSON.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from viny.config.sections import Model, Section
from viny.datasets.augment import IMAGENET_MEAN, IMAGENET_STD
from viny.encoders.base import Encoder
from viny.encoders.heads import HEADS
from viny.encoders.vit import ViNy
from viny.errors import VinyError
from viny.files import replacing, write_text

AnyModel = TypeVar("AnyModel", bound=nn.Module)


def build(model: Model, generator: torch.Generator | None = None) -> Encoder:
    """The encoder of a `model` section with random weights; the same generator state gives the same weights.

    Raises:
        VinyError: the sizes do not fit together, or timm has no such Vision Transformer.
    """
    if model.timm:
        from viny.encoders.timm_vit import TimmViT  # timm takes seconds to import

        return TimmViT(model.timm, model.image_size, model.initialization, generator)
    return ViNy(**model.model_dump(exclude={"timm"}), generator=generator)


class Description(Section):
    """What a file says of its model."""

    kind: str  # `encoder`, or a name in `HEADS`; of any other module only the encoder can be read
    model: Model  # ViNy's sizes; or `image_size` and `timm`, the name of a model of timm
    classes: int = Field(ge=0, le=65536)  # of the head


def save_model(model: nn.Module, path: Path) -> None:
    """Write an encoder, or a module that has one as `encoder`, whole or not at all; equal weights give equal bytes."""
    encoder: Any = model if isinstance(model, Encoder) else model.encoder
    kind = getattr(model, "kind", type(model).__name__)
    description = {"kind": kind, "model": encoder.sizes, "classes": getattr(model, "classes", 0)}
    tensors = {_name_in_file(name): tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        # Not `save_file`, whose files nobody but their owner may read.
        temporary.write_bytes(save(tensors, metadata={"viny": json.dumps(description, sort_keys=True)}))


def write_timm_config(folder: Path, encoder: Encoder, class_token: bool, normalized: bool = True) -> None:
    """Write the config.json with which `timm.create_model("local-dir:FOLDER", pretrained=True)` loads a file beside it.

    timm then gives the class token if that has been trained, else the mean of the patch tokens; see `timm_register`.
    What is not `normalized` takes images in 0..1, which a model of timm brings to its own statistics as if they were.
    """
    mean, std = encoder.statistics
    if not normalized:
        mean = tuple((own - usual) / by for own, usual, by in zip(mean, IMAGENET_MEAN, IMAGENET_STD, strict=True))
        std = tuple(own / usual for own, usual in zip(std, IMAGENET_STD, strict=True))
    sizes: dict[str, Any] = dict(encoder.sizes)
    size, name = sizes.pop("image_size"), sizes.pop("timm", "viny_vit")
    if sizes:  # ViNy's
        sizes |= {"embed_dim": sizes.pop("width"), "num_heads": sizes.pop("heads"), "class_token": class_token}
    # `fc_norm`: the final norm is before pooling, as in training.
    arguments = {"img_size": size, "global_pool": "token" if class_token else "avg", "fc_norm": False, **sizes}
    images = {"input_size": [3, size, size], "fixed_input_size": True, "crop_pct": 1.0, "mean": mean, "std": std}
    config = {"architecture": name, "model_args": arguments, "num_classes": 0}
    config["pretrained_cfg"] = {**images, "interpolation": "bicubic", "classifier": "head"}
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")


def load_model(path: Path) -> nn.Module:
    """Read what `save_model` wrote, on the CPU: an `Encoder` or a `Head` with one.

    Raises:
        VinyError: the file is missing, damaged, of another format, or its tensors do not fit its description.
    """
    description, encoder, tensors = _read(path)
    if description.kind == "encoder":
        return fill(encoder, tensors, path)
    if description.kind not in HEADS:
        raise VinyError(f"{path}: holds a {description.kind}, of which only the encoder can be read (`load_encoder`)")
    with torch.device("meta"):
        model = HEADS[description.kind](encoder, description.classes)
    return fill(model, tensors, path)


def load_encoder(path: Path, timm: str | None = None, image_size: int = 224) -> Encoder:
    """Read the encoder of any model file, without the head that it may have.

    Args:
        timm: the model of timm whose state dict the file holds, if it was not written by viny.
        image_size: side in pixels of the images that timm's model is to take.

    Raises:
        VinyError: see `load_model`.
    """
    foreign = Description(kind="", model=Model(image_size=image_size, timm=timm), classes=0) if timm else None
    description, encoder, tensors = _read(path, foreign)
    if description is foreign:
        tensors = encoder.adapted(tensors)
    elif description.kind != "encoder":
        start = "encoder."
        tensors = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    return fill(encoder, tensors, path)


def _read(path: Path, foreign: Description | None = None) -> tuple[Description, Encoder, dict[str, Tensor]]:
    """What a file says, the encoder that it describes, on the meta device, and its tensors.

    `foreign` describes a file that was not written by viny.
    """
    if not path.is_file():
        raise VinyError(f"{path}: no such model file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # Copies: a mapped file that is replaced would take the weights with it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118, not a dict
        description = Description.model_validate_json(metadata["viny"]) if "viny" in metadata else foreign
    except SafetensorError as error:
        raise VinyError(f"{path}: not a readable safetensors file ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "as a whole"
        raise VinyError(f"{path}: its description of the model is not valid ({where}: {first['msg']})") from error
    if description is None:
        raise VinyError(
            f"{path}: safetensors without viny's description of the model; import a released .pth with `viny import`, "
            "or name the model of timm that it is from as `timm` in `encoders`"
        )
    sizes = description.model
    if sizes.timm is None and sizes.depth > len(tensors):  # building the blocks would take seconds
        raise VinyError(f"{path}: describes {sizes.depth} blocks, but holds {len(tensors)} tensors")
    try:
        with torch.device("meta"):  # where a model takes no memory, however large it claims to be
            return description, build(sizes), tensors
    except VinyError as error:
        raise VinyError(f"{path}: {error}") from error


def _name_in_file(name: str) -> str:
    """The name of a tensor without the attribute of `TimmViT` that holds timm's model."""
    return name.replace("model.", "", 1)


def fill(
    model: AnyModel, tensors: dict[str, Tensor], path: Path, rename: Callable[[str], str] = _name_in_file
) -> AnyModel:
    """A model of the meta device with the weights of a file, in which tensors have the names that `rename` gives them.

    Raises:
        VinyError: naming the first tensor that is missing, too many, or no weights of the expected shape.
    """
    wanted = {rename(name): (name, tensor.shape) for name, tensor in model.state_dict().items()}
    for name, (_, shape) in wanted.items():
        if name not in tensors:
            raise VinyError(f"{path}: tensor {name!r} is missing; the file does not hold the whole model")
        if tensors[name].shape != shape:
            found = tuple(tensors[name].shape)
            raise VinyError(f"{path}: tensor {name!r} has shape {found}, expected {tuple(shape)}")
        if not tensors[name].is_floating_point():
            raise VinyError(f"{path}: tensor {name!r} has values of type {tensors[name].dtype}, expected real numbers")
        if not tensors[name].float().isfinite().all():
            raise VinyError(f"{path}: tensor {name!r} has values that are not finite float32 numbers")
    if unknown := tensors.keys() - wanted:
        raise VinyError(f"{path}: tensor {min(unknown)!r} is unknown to the model that the file describes")
    model.load_state_dict({own: tensors[name].float() for name, (own, _) in wanted.items()}, assign=True)
    return model
