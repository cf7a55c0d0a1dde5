"""ViNy as a model of timm: after `import viny.encoders.timm_register`, timm loads a folder of results,

    timm.create_model("local-dir:results/demo/pretrain/pretrain=1024/seed=1", pretrained=True)

as a feature extractor: the mean of the patch tokens, or the class token if it has been trained; `features_only` works.
"""

from functools import partial
from typing import Any

from timm.layers import PatchEmbed as TimmPatchEmbed
from timm.models import build_model_with_cfg, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from viny.encoders.base import patchify
from viny.encoders.vit import NORM_EPS, Block, PatchEmbed


@register_model
def viny_vit(pretrained: bool = False, *, head_width: int, mlp_width: int, **kwargs: Any) -> VisionTransformer:
    """ViNy of the sizes that `config.json` of a folder of results gives; keywords are timm's, beside the two named."""

    def block(dim: int, num_heads: int, **_unused: Any) -> Block:
        return Block(dim, num_heads, head_width, mlp_width)

    parts = {"embed_layer": _PatchEmbed, "block_fn": block, "norm_layer": partial(nn.LayerNorm, eps=NORM_EPS)}
    return build_model_with_cfg(
        VisionTransformer,
        "viny_vit",
        pretrained,
        pretrained_filter_fn=_weights,
        feature_cfg={"out_indices": kwargs.pop("out_indices", 3), "feature_cls": "getter"},
        **{"num_classes": 0, "weight_init": "skip", **parts, **kwargs},
    )


class _PatchEmbed(PatchEmbed):
    """ViNy's patch embedding with what timm asks of one."""

    feat_ratio = TimmPatchEmbed.feat_ratio
    dynamic_feat_size = TimmPatchEmbed.dynamic_feat_size
    dynamic_img_pad = False

    def __init__(self, img_size: int, patch_size: int, embed_dim: int, **_unused: Any):
        super().__init__(patch_size, embed_dim)
        grid = img_size // patch_size
        self.patch_size, self.img_size, self.grid_size = (patch_size,) * 2, (img_size,) * 2, (grid,) * 2
        self.num_patches = grid**2

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != self.img_size:
            raise ValueError(f"images are {tuple(images.shape[-2:])} pixels, the model takes {self.img_size}")
        return super().forward(patchify(images, self.patch_size[0]))


def _weights(tensors: dict[str, Tensor], model: VisionTransformer) -> dict[str, Tensor]:
    """The encoder's tensors in a file of viny, without the class token's if the model has none."""
    if any(name.startswith("encoder.") for name in tensors):
        tensors = {n.removeprefix("encoder."): t for n, t in tensors.items() if n.startswith("encoder.")}
    if model.cls_token is None:
        tensors = {name: tensor for name, tensor in tensors.items() if name != "cls_token"}
        tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
    return tensors
