"""ViNy, the paper's small Vision Transformer (Section 3.1), on timm's VisionTransformer."""

from functools import partial
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from viny.errors import VinyError
from viny.models.attention import ATTENTION_MODES
from viny.models.layers import INITIALIZATIONS, NORM_EPS, Block, NormPatchEmbed, initialize

PAPER_SIZES = {
    "image_size": 128,
    "patch_size": 16,
    "width": 128,
    "depth": 12,
    "heads": 8,
    "head_width": 64,
    "mlp_width": 512,
}


class ViNy(VisionTransformer):
    """timm's VisionTransformer with heads of a width of their own and a patch embedding between two LayerNorms.

    The class token takes part in classification only (`forward`, `forward_features`, `class_token`);
    `patch_tokens` runs the patches alone, as SimMIM and segmentation do.
    Parameter names are timm's. Keyword names are timm's too; `build_encoder` takes those of the settings.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 128,
        patch_size: int = 16,
        embed_dim: int = 128,
        depth: int = 12,
        num_heads: int = 8,
        head_dim: int = 64,
        mlp_dim: int = 512,
        in_chans: int = 3,
        num_classes: int = 0,
        global_pool: str = "token",
        attention: str = "auto",
        initialization: str = "timm",
        generator: torch.Generator | None = None,
    ):
        height, image_width = to_2tuple(img_size)
        if height != image_width:
            raise VinyError(f"ViNy takes square images, not {height} x {image_width} pixels")
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            fc_norm=False,
            weight_init="skip",
            embed_layer=NormPatchEmbed,
            norm_layer=partial(nn.LayerNorm, eps=NORM_EPS),
            block_fn=partial(_block, head_dim=head_dim, mlp_dim=mlp_dim, mode=attention),
        )
        self.model_section = {
            "image_size": height,
            "patch_size": patch_size,
            "width": embed_dim,
            "depth": depth,
            "heads": num_heads,
            "head_width": head_dim,
            "mlp_width": mlp_dim,
        }
        self.initialization = initialization
        self.initialize(generator)

    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew; the same generator state gives the same weights.

        `initialization` says how: `timm`, or `pytorch`, which is the authors' release: embeddings standard normal, the
        rest as PyTorch does by itself. What is put on the encoder (heads, mask token) follows it.
        """
        initialize(self, generator, self.initialization)
        if self.initialization == "pytorch":
            nn.init.normal_(self.pos_embed, generator=generator)
            nn.init.normal_(self.cls_token, generator=generator)
        else:
            nn.init.trunc_normal_(self.pos_embed, std=0.02, generator=generator)
            nn.init.normal_(self.cls_token, std=1e-6, generator=generator)

    def set_attention(self, mode: str) -> None:
        """Choose how attention is computed: `auto`, `fused` or `explicit` (same mathematics)."""
        _check_attention(mode)
        for block in self.blocks:
            block.attn.mode = mode

    def patch_tokens(self, images: Tensor) -> Tensor:
        """Tokens of all patches after the final norm, without a class token: (B, 3, S, S) -> (B, N, width)."""
        return self.transform(self.patch_embed(images) + self.patch_positions)

    def class_token(self, images: Tensor) -> Tensor:
        """The class token after the final norm: (B, 3, S, S) -> (B, width)."""
        tokens = self._pos_embed(self.patch_embed(images))
        return self.transform(tokens, slice(0, 1))[:, 0]

    @property
    def patch_positions(self) -> Tensor:
        """Position embeddings of the patches, without that of the class token: (1, N, width)."""
        return self.pos_embed[:, 1:]

    def transform(self, tokens: Tensor, asking: slice | None = None) -> Tensor:
        """Run embedded tokens (B, N, width) through all blocks and the final norm.

        Given `asking`, only those tokens are returned, (B, asking, width): the last block then computes queries
        and MLP for them alone, which changes no value.
        """
        *blocks, last = self.blocks
        for block in blocks:
            tokens = block(tokens)
        return self.norm(last(tokens, asking))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits (B, num_classes), or pooled features (B, width) if there is no head."""
        if self.global_pool == "token":
            return self.head(self.class_token(images))
        return self.forward_head(self.forward_features(images))


def build_encoder(
    *,
    image_size: int = 128,
    patch_size: int = 16,
    width: int = 128,
    depth: int = 12,
    heads: int = 8,
    head_width: int = 64,
    mlp_width: int = 512,
    num_classes: int = 0,
    initialization: str = "timm",
    attention: str = "auto",
    generator: torch.Generator | None = None,
) -> ViNy:
    """Build an encoder from the `model` section of the settings (defaults: the paper's sizes).

    Raises:
        VinyError: if the sizes do not fit together, or a choice is unknown.
    """
    if image_size % patch_size:
        raise VinyError(
            f"model: image_size {image_size} is not a multiple of patch_size {patch_size}; choose sizes that divide"
        )
    _check_attention(attention)
    if initialization not in INITIALIZATIONS:
        raise VinyError(f"model.initialization: {initialization!r} is unknown; choose {' or '.join(INITIALIZATIONS)}")
    return ViNy(
        img_size=image_size,
        patch_size=patch_size,
        embed_dim=width,
        depth=depth,
        num_heads=heads,
        head_dim=head_width,
        mlp_dim=mlp_width,
        num_classes=num_classes,
        attention=attention,
        initialization=initialization,
        generator=generator,
    )


default_cfgs = generate_default_cfgs(
    {
        "viny_patch16_128.untrained": {
            "url": "",
            "input_size": (3, 128, 128),
            "fixed_input_size": True,
            "num_classes": 0,
            "crop_pct": 1.0,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "classifier": "head",
            "license": "mit",
        }
    }
)


@register_model
def viny_patch16_128(pretrained: bool = False, **kwargs: Any) -> ViNy:
    """ViNy at the paper's sizes, 4,842,880 parameters without head."""
    return build_model_with_cfg(ViNy, "viny_patch16_128", pretrained, **kwargs)


def _block(dim: int, num_heads: int, head_dim: int, mlp_dim: int, mode: str, **_unused: Any) -> Block:
    """A block from what VisionTransformer hands out (dropout and the like are not part of ViNy)."""
    return Block(dim, num_heads, head_dim, mlp_dim, mode)


def _check_attention(mode: str) -> None:
    if mode not in ATTENTION_MODES:
        raise VinyError(f"compute.attention: {mode!r} is unknown; choose one of {', '.join(ATTENTION_MODES)}")
