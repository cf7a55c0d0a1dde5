"""SimMIM pre-training of ViNy (Section 3.2, Table A1).

    python -m viny.stages.pretrain --store MANIFEST --images 45000 --seed 1 --output FOLDER

Writes encoder.safetensors (without mask token and decoder), metrics.json, history.jsonl and examples.npz.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from viny.stages import run as stage  # isort: skip, the first import starts the clock

import numpy as np
import torch
from torch import Tensor

from viny import console, settings
from viny.data import augment
from viny.data.rows import Rows
from viny.data.store import Store
from viny.errors import command
from viny.models.files import save_encoder
from viny.models.simmim import SimMIM, random_masks
from viny.training.streams import torch_stream

EXAMPLES = 8
_EVALUATION_BATCH = 250


class Pretraining:
    """Masked image modeling on rows [heldout, heldout + images) of the store; measured on rows [0, heldout)."""

    def __init__(self, request: stage.Request, store: Store, images: int, device: torch.device, seed: int):
        self.values, self.store, self.images, self.device, self.seed = request.values, store, images, device, seed
        self.heldout = request.values["heldout_images"]
        self.model = SimMIM(
            stage.starting_encoder(request, seed),
            mask_ratio=self.values["mask_ratio"],
            loss=self.values["loss"],
            generator=torch_stream(seed, "head"),
        ).to(device)
        self.rows = Rows(store.images, self.heldout + images, device)
        self.aspect = torch.from_numpy(np.array(store.aspect))
        self.size = request.model["image_size"]

    def draw(self, epoch: int) -> dict[str, Tensor]:
        """Order, crops, flips and mask noise of one pass."""
        n = self.images
        row = self.heldout + torch.randperm(n, generator=torch_stream(self.seed, "order", epoch))
        stream = torch_stream(self.seed, "augment", epoch)
        return {
            "row": row,
            "crop": augment.draw_crops(
                self.aspect[row], self.values["crop_scale"], self.values["crop_ratio"], generator=stream
            ),
            "flip": augment.draw_flips(n, stream),
            "noise": torch.rand(n, self.model.patches, generator=torch_stream(self.seed, "mask", epoch)),
        }

    def read(self, row: Tensor) -> dict[str, Tensor]:
        """The stored images."""
        return {"image": self.rows[row]}

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean absolute error on masked patches of randomly cropped and flipped images."""
        images = augment.crop_and_resize(batch["image"], batch["crop"], self.size)
        images = augment.normalize_(augment.unit_range(augment.flip(images, batch["flip"])))
        return self.model(images, random_masks(batch["noise"]))

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Held-out loss: whole images, masks that are the same for every run."""
        total = 0.0
        for start in range(0, self.heldout, _EVALUATION_BATCH):
            images, order = self._heldout(start, min(start + _EVALUATION_BATCH, self.heldout))
            total += self.model(images, order).item() * len(images)
        return {"loss": total / self.heldout}

    def write(self, folder: Path) -> None:
        """The encoder, and reconstructions of the first held-out images."""
        save_encoder(self.model.encoder, folder / "encoder.safetensors")
        count = min(EXAMPLES, self.heldout)
        images, order = self._heldout(0, count)
        with torch.inference_mode():
            reconstruction = self.model.reconstruct(images, order)
            mask = self.model.pixel_mask(order)
        np.savez_compressed(
            folder / "examples.npz",
            images=augment.denormalize(images).cpu().numpy(),
            mask=mask.cpu().numpy(),
            reconstruction=augment.denormalize(reconstruction).cpu().numpy(),
            names=np.array(self.store.names[:count]),
        )

    def _heldout(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Normalized held-out images [start, stop) and their patch orders."""
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], device=self.device).expand(stop - start, 4)
        images = augment.crop_and_resize(self.rows[torch.arange(start, stop)], whole, self.size)
        noise = torch.rand(stop - start, self.model.patches, generator=torch_stream(0, "heldout", start))
        return augment.normalize_(augment.unit_range(images)), random_masks(noise.to(self.device))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = stage.parser("SimMIM pre-training of ViNy.", "pretrain")
    parser.add_argument(
        "--images", type=stage.positive, required=True, metavar="N", help="number of pre-training images"
    )
    args = parser.parse_args(argv)
    console.open_log(args.log)
    store = Store.open(args.store)
    values = settings.from_args(args, "pretrain")
    stage.require(store, values["heldout_images"] + args.images)
    request = stage.Request(
        "pretrain", args, "pretrain", values, settings.from_args(args, "model"), stage.checksums(args, store=store)
    )
    return stage.run(
        request, args.images, [store], lambda device, seed: Pretraining(request, store, args.images, device, seed)
    )


if __name__ == "__main__":
    sys.exit(main())
