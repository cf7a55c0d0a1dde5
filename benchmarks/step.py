"""One training step on one thread: forward, backward and update of ViNy on batches of 64 images.

Peers: the arithmetic written plainly (`benchmarks.plain`), and ViTForMaskedImageModeling of transformers with the same
sizes, which has a class token and no norms around the patch embedding. All get the same images and masks.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.measure import Group, Options, in_turns
from viny.models.encoder import PAPER_SIZES, build_encoder
from viny.models.heads import Segmenter, segmentation_loss
from viny.models.simmim import SimMIM, mask_from_order, random_masks
from viny.settings import defaults
from viny.training.device import autocast, set_matmul_precision
from viny.training.schedule import Schedule

CPU = torch.device("cpu")
TINY = {**PAPER_SIZES, "image_size": 32, "depth": 2, "width": 32, "mlp_width": 64}
PLAIN = "plain PyTorch, fp32"


def run(options: Options) -> list[Group]:
    """Pre-training and fine-tuning."""
    torch.set_num_threads(1)
    sizes, batch = (TINY, 4) if options.quick else (PAPER_SIZES, 64)
    images = torch.randn(batch, 3, sizes["image_size"], sizes["image_size"])
    groups = []
    for name, losses in (
        ("pre-training step", pretraining(sizes, images)),
        ("fine-tuning step", finetuning(sizes, images)),
    ):
        ours = losses.pop("viny")
        section = "pretrain" if "pre" in name else "finetune"
        variants = {name: Step(model, loss, batch) for name, (model, loss) in losses.items()}
        default = defaults("compute")["matmul_precision"]
        for precision in ("fp32", "bf16"):
            variants[f"viny, {precision}"] = Step(*ours, batch, precision, default, section)
        if options.compiled:
            compiled = (ours[0], torch.compile(ours[1]))
            variants["viny, bf16, compiled"] = Step(*compiled, batch, "bf16", default, section)
        for step in variants.values():
            step()  # warms up
        groups.append(Group(name, "images/s", PLAIN, in_turns(variants, options.rounds), f"batch {batch}, one thread"))
    return groups


def pretraining(sizes: dict[str, int], images: Tensor) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Model and loss of each variant, with the same weights where the mathematics is the same."""
    ours, theirs = SimMIM(build_encoder(**sizes)), plain.SimMIM(plain.Encoder(**sizes))
    theirs.load_state_dict(ours.state_dict())
    order = random_masks(torch.rand(len(images), ours.patches))
    mask = mask_from_order(order, ours.masked)
    found = {PLAIN: (theirs, lambda: theirs(images, mask)), "viny": (ours, lambda: ours(images, order))}
    if find_spec("transformers"):
        vit = transformers_vit(sizes)
        found["transformers, fp32"] = (vit, lambda: vit(images, bool_masked_pos=mask).loss)
    return found


def finetuning(sizes: dict[str, int], images: Tensor) -> dict[str, tuple[nn.Module, Callable[[], Tensor]]]:
    """Model and loss of each variant, with the same weights."""
    ours, theirs = Segmenter(build_encoder(**sizes)), plain.Segmenter(plain.Encoder(**sizes))
    theirs.load_state_dict(ours.state_dict())
    truth = torch.randint(0, 3, (len(images), *images.shape[2:]))
    return {
        PLAIN: (theirs, lambda: theirs(images, truth)),
        "viny": (ours, lambda: segmentation_loss(ours(images), truth)),
    }


def transformers_vit(sizes: dict[str, int]) -> nn.Module:
    """ViTForMaskedImageModeling of the same sizes, wide heads included."""
    from transformers import ViTConfig, ViTForMaskedImageModeling

    config = ViTConfig(
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["mlp_width"],
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        encoder_stride=sizes["patch_size"],
        qkv_bias=False,
    )
    config.head_dim = sizes["head_width"]
    model = ViTForMaskedImageModeling(config)
    return model.train()


class Step:
    """Images per second of a training step, measured over a few of them.

    Args:
        matmul_precision: of float32 products. section: whose optimizer it is; None for PyTorch's AdamW as it comes.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[], Tensor],
        batch: int,
        precision: str = "fp32",
        matmul_precision: str = "highest",
        section: str | None = None,
        steps: int = 3,
    ):
        self.loss, self.batch, self.precision, self.matmul_precision = loss, batch, precision, matmul_precision
        self.steps = steps
        if section:
            self.optimizer = Schedule.from_settings(batch, defaults(section)).make_optimizer(model.parameters())
        else:
            self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)

    def __call__(self) -> float:
        set_matmul_precision(self.matmul_precision, CPU)
        clock = time.perf_counter()
        for _ in range(self.steps):
            with autocast(CPU, self.precision):
                loss = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return self.steps * self.batch / (time.perf_counter() - clock)
