"""ViNy, its pre-training wrapper and heads; importing this package registers `viny_patch16_128` with timm."""

from viny.models.encoder import PAPER_SIZES, ViNy, build_encoder

__all__ = ["PAPER_SIZES", "ViNy", "build_encoder"]
