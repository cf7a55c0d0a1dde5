"""One training step on one thread, of ViNy and of the default study's model: forward, backward and update.

Peers: the same computation written plainly (`docs/viny_in_one_file.py`), and what bounds every step, its products at
the rate of large ones. If they are installed, ViTForMaskedImageModeling of transformers (it has a class token) and
SimMIM of stable-pretraining on a ViT of timm (which draws its masks itself), of the same sizes, but without norms
around the patch embedding. All get the same images, and all keep freed memory, as viny's jobs do.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import ROOT, Group, Options, Variants, compare, rate, script
from viny.config import load
from viny.config.sections import Compute, Model
from viny.encoders import build
from viny.encoders.heads import Segmenter
from viny.tasks.metrics import cross_entropy
from viny.tasks.simmim import SimMIM
from viny.training.device import select_device, set_matmul_precision
from viny.training.schedule import Schedule
from viny.training.update import Execution, Update

PLAIN = "plain PyTorch, fp32"
CLASSES = 3
TINY = {"image_size": 32, "width": 32, "depth": 2, "mlp_width": 64}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

plain = script("docs/viny_in_one_file.py")


@dataclass(frozen=True)
class Computation:
    """The loss of a model on a batch."""

    model: nn.Module
    loss: Callable[[], Tensor]


def run(options: Options) -> Iterator[Group]:
    """Pre-training and fine-tuning; bf16 only where its products are faster."""
    device, seconds = select_device(Compute(device="cpu")), 0.0 if options.quick else 1.0
    configs = {"ViNy": load(), "default study's model": load(ROOT / "config.yaml")}
    if options.quick:
        configs = {"tiny model": load({"model": TINY, "pretrain": {"batch_size": 4}})}
    rates = {precision: product_rate(precision, options) for precision in _DTYPES}
    precisions = ["fp32", *(["bf16"] if rates["bf16"] > rates["fp32"] else [])]
    for name, config in configs.items():
        batch, model = config.pretrain.batch_size, config.model
        images = torch.randn(batch, 3, model.image_size, model.image_size, device=device)
        for stage, pair, settings in (
            ("SimMIM", simmim(model, images), config.pretrain),
            ("fine-tuning", finetuning(model, images), config.finetune),
        ):
            variants = {PLAIN: plain_step(pair[PLAIN], batch, seconds, device)}
            for peer in pair.keys() - {PLAIN, "viny"}:
                variants[f"{peer}, fp32"] = plain_step(pair[peer], batch, seconds, device)
            ours = pair["viny"]
            for precision in precisions:
                optimizer = Schedule(batch, settings).make_optimizer(ours.model.parameters())
                how = Execution(device, precision)
                variants[f"viny, {precision}"] = _step(ours, optimizer, how, "auto", batch, seconds)
            variants |= bounds(flop(ours.loss) / batch, precisions, options)
            note = f"batch {batch}, one thread" + ("" if "bf16" in precisions else "; bf16 products are slower here")
            yield compare(f"{stage} step, {name}", "images/s", variants, options, note)


def simmim(model: Model, images: Tensor) -> dict[str, Computation]:
    """Masked image modeling by variant, with the same weights where the mathematics is the same."""
    ours = SimMIM(build(model)).to(images.device)
    theirs = plain.SimMIM(_plain_encoder(model)).to(images.device)
    theirs.load_state_dict(ours.state_dict())
    order = torch.rand(len(images), ours.encoder.patches, device=images.device).argsort(dim=1)
    mask = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, -ours.masked :], True)
    found = {
        PLAIN: Computation(theirs, lambda: theirs(images, mask)),
        "viny": Computation(ours, lambda: ours(images, order)),
    }
    if find_spec("transformers"):
        vit = transformers_vit(model).to(images.device)
        found["transformers"] = Computation(vit, lambda: vit(images, bool_masked_pos=mask).loss)
    if find_spec("stable_pretraining"):
        method = stable_pretraining_simmim(model).to(images.device)
        found["stable-pretraining"] = Computation(method, lambda: method(images).loss)
    return found


def finetuning(model: Model, images: Tensor) -> dict[str, Computation]:
    """Segmentation by variant, with the same weights."""
    ours = Segmenter(build(model), CLASSES).to(images.device)
    theirs = plain.Segmenter(_plain_encoder(model), CLASSES).to(images.device)
    theirs.load_state_dict(ours.state_dict())
    truth = torch.randint(0, CLASSES, (len(images), *images.shape[2:]), device=images.device)
    return {
        PLAIN: Computation(theirs, lambda: theirs.loss(images, truth)),
        "viny": Computation(ours, lambda: cross_entropy(ours(images).float(), truth)),
    }


def _plain_encoder(model: Model) -> nn.Module:
    sizes = model.model_dump(exclude={"timm", "initialization", "image_size", "patch_size"})
    return plain.Encoder(image=model.image_size, patch=model.patch_size, **sizes)


def transformers_vit(model: Model) -> nn.Module:
    """ViTForMaskedImageModeling of the same sizes, wide heads included."""
    from transformers import ViTConfig, ViTForMaskedImageModeling

    config = ViTConfig(
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.heads,
        intermediate_size=model.mlp_width,
        image_size=model.image_size,
        patch_size=model.patch_size,
        encoder_stride=model.patch_size,
        qkv_bias=False,
    )
    config.head_dim = model.head_width
    return ViTForMaskedImageModeling(config).train()


def stable_pretraining_simmim(model: Model) -> nn.Module:
    """SimMIM of stable-pretraining on timm's ViT of the same sizes, wide heads included."""
    from stable_pretraining.methods.simmim import SimMIM
    from timm.layers import Attention
    from timm.models import VisionTransformer

    class WideHeads(Attention):
        def __init__(self, dim: int, num_heads: int, **settings: Any):
            super().__init__(dim, num_heads, attn_head_dim=model.head_width, **settings)

    vit = VisionTransformer(
        img_size=model.image_size,
        patch_size=model.patch_size,
        embed_dim=model.width,
        depth=model.depth,
        num_heads=model.heads,
        mlp_ratio=model.mlp_width / model.width,
        qkv_bias=False,
        class_token=False,
        num_classes=0,
        global_pool="",
        attn_layer=WideHeads,
    )
    return SimMIM(vit, model.patch_size, mask_ratio=0.5, image_size=model.image_size).train()


def plain_step(plainly: Computation, batch: int, seconds: float, device: torch.device) -> Callable[[], float]:
    """Measures images per second of a step as PyTorch computes it by itself."""
    optimizer = torch.optim.AdamW(plainly.model.parameters(), weight_decay=0.05)
    return _step(plainly, optimizer, Execution(device), "highest", batch, seconds)


def _step(
    what: Computation, optimizer: torch.optim.Optimizer, how: Execution, precision: str, batch: int, seconds: float
) -> Callable[[], float]:
    """Measures images per second of a step; `precision` is that of float32 matrix products."""
    update = Update(lambda _: what.loss(), optimizer, how)

    def measure() -> float:
        set_matmul_precision(precision, how.device)
        return rate(lambda: update({}, 1e-4), batch, seconds, how.device)

    return measure


def flop(loss: Callable[[], Tensor]) -> float:
    """Operations in the matrix products of a loss, forward and backward, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return float(counter.get_total_flops())


def bounds(flop_per_image: float, precisions: list[str], options: Options) -> Variants:
    """Images per second if there were nothing but matrix products, and all of them large."""

    def bound(precision: str) -> Callable[[], float]:
        return lambda: product_rate(precision, options) / flop_per_image

    return {f"matrix products alone, {precision}": bound(precision) for precision in precisions}


def product_rate(precision: str, options: Options) -> float:
    """Operations per second of products of large square matrices."""
    device = options.device
    side = 256 if options.quick else 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=_DTYPES[precision]) for _ in range(2))
    set_matmul_precision("auto", device)
    return rate(lambda: a @ b, 2 * side**3, 0.02 if options.quick else 0.4, device)
