"""From the `model` section of a study file to an encoder."""

import torch

from viny.config.sections import Model
from viny.encoders.base import Encoder
from viny.encoders.vit import ViNy


def build(model: Model, generator: torch.Generator | None = None) -> Encoder:
    """An encoder with random weights; the same generator state gives the same weights.

    Raises:
        VinyError: the sizes do not fit together, or timm has no such Vision Transformer.
    """
    if model.timm:
        from viny.encoders.timm_vit import TimmViT  # timm takes seconds to import

        return TimmViT(model.timm, model.image_size, model.initialization, generator)
    return ViNy(**model.model_dump(exclude={"timm"}), generator=generator)
