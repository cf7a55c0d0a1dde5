"""Vision Transformers of timm as encoders, for pre-training with SimMIM or with weights that timm knows."""

from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from viny.encoders.base import Encoder, initialize, initialize_embedding, pick
from viny.errors import VinyError, did_you_mean


class TimmViT(Encoder):
    """timm's model `name` at `image_size` pixels, without its head.

    Images come normalized with ImageNet's mean and standard deviation, and reach the model with its own.

    Args:
        pretrained: take the weights that timm has for the model, downloaded unless they are in its cache.

    Raises:
        VinyError: timm has no such model, it does not take such images, it is no plain Vision Transformer with class
            token and patch grid, or its weights cannot be had.
    """

    model: VisionTransformer
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        name: str,
        image_size: int,
        initialization: str = "timm",
        generator: torch.Generator | None = None,
        pretrained: bool = False,
    ):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            if generator is not None:
                torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=generator)))
            self.model = _created(name, image_size, pretrained)
            if initialization == "pytorch" and not pretrained:
                initialize(self.model, None, initialization)
                for embedding in ("pos_embed", "cls_token"):
                    initialize_embedding(self.model.get_parameter(embedding), None, initialization)
        self.image_size, self.patch_size = image_size, self.model.patch_embed.patch_size[0]
        self.patches, self.width = self.model.patch_embed.num_patches, self.model.embed_dim
        self.initialization, self.mode = initialization, "auto"
        self.sizes = {"image_size": image_size, "timm": name}
        config: Any = self.model.pretrained_cfg
        self.statistics = tuple(config["mean"]), tuple(config["std"])
        values = torch.tensor((*Encoder.statistics, *self.statistics), device="cpu")
        mean, std, own_mean, own_std = values.view(4, 1, 3, 1, 1)
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def patch_tokens(self, images: Tensor) -> Tensor:
        return self._transform(self._embed(images))[:, self.model.num_prefix_tokens :]

    def class_token(self, images: Tensor) -> Tensor:
        return self._transform(self._embed(images))[:, 0]

    def masked_tokens(self, images: Tensor, order: Tensor, masked: int, mask_token: Tensor) -> Tensor:
        embedded, hidden = self._embed(images), order[:, self.patches - masked :]
        is_masked = torch.zeros_like(order, dtype=torch.bool).scatter(1, hidden, True)
        embedded = torch.where(is_masked[..., None], mask_token.to(embedded.dtype), embedded)
        return pick(self._transform(embedded)[:, self.model.num_prefix_tokens :], hidden)

    def set_attention(self, mode: str) -> None:
        self.mode = mode

    def adapted(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(("head.", "head_dist."))}
        return checkpoint_filter_fn(tensors, self.model)

    def _embed(self, images: Tensor) -> Tensor:
        return self.model.patch_embed(images * self.scale + self.shift)

    def _transform(self, embedded: Tensor) -> Tensor:
        """Embedded patches (B, N, width) -> all tokens after the final norm, (B, prefix + N, width)."""
        fused = self.mode == "fused" or (self.mode == "auto" and embedded.is_cuda)
        tokens = self.model.norm_pre(self.model.patch_drop(self.model._pos_embed(embedded)))
        blocks: Any = self.model.blocks
        for block in blocks:
            block.attn.fused_attn = fused
            tokens = block(tokens)
        return self.model.norm(tokens)


def _created(name: str, size: int, pretrained: bool) -> VisionTransformer:
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise VinyError(f"model.timm: timm {timm.__version__} has no model {name!r}{hint}; see timm.list_models()")
    try:
        # With `dynamic_img_size`, which a few models have by default, patches would be embedded as a grid.
        model = timm.create_model(name, pretrained, num_classes=0, img_size=size, dynamic_img_size=False)
    except (AssertionError, TypeError, ValueError) as error:
        raise VinyError(
            f"model.timm: {name} cannot be built for {size} pixels; take a vit_* model ({error})"
        ) from error
    except Exception as error:
        if not pretrained:
            raise
        raise VinyError(
            f"timm could not get the weights of {name} ({type(error).__name__}: {error}); download them elsewhere and "
            "name their safetensors file as `file` beside `timm` in `encoders`"
        ) from error
    if not isinstance(model, VisionTransformer) or model.cls_token is None or model.pos_embed is None:
        raise VinyError(
            f"model.timm: {name} ({type(model).__name__}) is no Vision Transformer with class token and position "
            "embedding; choose another vit_* model"
        )
    patch, count = model.patch_embed.patch_size[0], model.patch_embed.num_patches
    if count * patch**2 != size**2:
        raise VinyError(
            f"model.timm: {name} makes {count} tokens for an image of {size} pixels, not a grid of {patch}-pixel "
            f"patches; choose a multiple of {patch} as model.image_size, or another vit_* model"
        )
    return model
