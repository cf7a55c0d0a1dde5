"""Geometry of an encoder's patch tokens on Oxford-IIIT Pet (second version of the paper, its Table 2).

    python -m viny.stages.geometry --store MANIFEST --encoder FILE --test-images 1000 --seed 1 --output FOLDER

Everything is measured on the test images, rows [0, test_images), which no stage trains on; the linear probe is
trained on the rows behind them. Writes metrics.json and similarity.npz (similarity by distance, and heat maps of some
test images).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from viny.stages import run as stage  # isort: skip, the first import starts the clock

import numpy as np
import torch
from torch import Tensor

from viny import console, settings
from viny.data import augment
from viny.data.rows import Rows
from viny.data.store import Store
from viny.errors import command
from viny.evaluation import geometry
from viny.models.encoder import ViNy
from viny.training.device import peak_memory_mb
from viny.training.streams import torch_stream

MAPPED_IMAGES = 4
PROBE_BATCH = 64
_BATCH = 250


def patch_tokens(encoder: ViNy, store: Store, stop: int, device: torch.device) -> Tensor:
    """Patch tokens of rows [0, stop) of a store, unaugmented and normalized as in training: (stop, P, width)."""
    rows = Rows(store.images, stop, device)
    encoder = encoder.to(device).eval()
    found = []
    with torch.inference_mode():
        for row in torch.arange(stop).split(_BATCH):
            found.append(encoder.patch_tokens(augment.normalize_(augment.unit_range(rows[row]))))
    return torch.cat(found).clone()


def measure(
    tokens: Tensor, masks: Tensor, tested: int, values: dict[str, Any], patch_size: int, seed: int
) -> tuple[dict[str, Any], Tensor]:
    """The `metrics` of metrics.json, and the standard errors of the similarities by distance.

    Args:
        tokens: (N, P, width), test images first. masks: (N, S, S). tested: number of test images.
    """
    labels = geometry.majority_labels(masks, patch_size)
    probe = geometry.probe_accuracy(
        tokens[tested:],
        labels[tested:],
        tokens[:tested],
        labels[:tested],
        epochs=values["probe_epochs"],
        learning_rate=values["probe_learning_rate"],
        batch_size=PROBE_BATCH,
        generator=torch_stream(seed, "probe"),
    )
    mean, error = geometry.similarity_by_distance(tokens[:tested])
    metrics = {
        "within_image_variance": geometry.within_image_variance(tokens[:tested]),
        "across_image_variance": geometry.across_image_variance(tokens[:tested]),
        "probe_accuracy": probe.held_out,
        "probe_accuracy_training": probe.training,
        "probe_chance": labels[:tested].flatten().bincount().max().item() / labels[:tested].numel(),
        "similarity_by_distance": mean.tolist(),
    }
    return metrics, error


def write_similarities(
    path: Path, store: Store, tokens: Tensor, mean: Sequence[float], error: Tensor, patch: int
) -> None:
    """Heat maps of the first test images, one for each kind of reference patch, and similarity by distance."""
    chosen = [
        (image, kind, reference)
        for image in range(min(MAPPED_IMAGES, len(tokens)))
        for kind, reference in geometry.reference_patches(torch.tensor(store.masks[image]), patch).items()
    ]
    images, kinds, references = zip(*chosen, strict=True) if chosen else ((), (), ())
    maps = [geometry.similarity_map(tokens[image], reference).cpu().numpy() for image, _, reference in chosen]
    np.savez_compressed(
        path,
        images=store.images[list(images)],
        kind=np.array(kinds),
        reference=np.array(references, dtype=np.int64),
        maps=np.array(maps, dtype=np.float32),
        distances=np.arange(len(mean)),
        mean=np.array(mean),
        se=error.cpu().numpy(),
    )


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = stage.parser("Geometry of an encoder's patch tokens.", "geometry")
    parser.add_argument(
        "--test-images",
        type=stage.positive,
        required=True,
        metavar="N",
        help="the first N rows are measured, never trained on",
    )
    args = parser.parse_args(argv)
    console.open_log(args.log)
    store = Store.open(args.store)
    values, model = settings.from_args(args, "geometry"), settings.from_args(args, "model")
    tested, used = args.test_images, args.test_images + values["images"]
    stage.require(store, used, model["image_size"], masks=True)
    request = stage.Request("geometry", args, "geometry", values, model, stage.checksums(args, store=store))
    job = stage.Job(request, values["images"])
    with job.state.lock():
        if job.finished_before():
            return 0
        store.verify()
        encoder = stage.starting_encoder(request, args.seed)
        startup = time.perf_counter() - stage.STARTED
        clock = time.perf_counter()
        tokens = patch_tokens(encoder, store, used, job.device)
        masks = Rows(store.masks, used, job.device)[torch.arange(used)]
        measured, error = measure(tokens, masks, tested, values, model["patch_size"], args.seed)
        seconds = time.perf_counter() - clock
        passes = used + values["images"] * values["probe_epochs"]
        with job.state.finishing() as folder:
            means = measured["similarity_by_distance"]
            write_similarities(folder / "similarity.npz", store, tokens[:tested], means, error, model["patch_size"])
            job.write_metrics(
                folder,
                measured,
                {
                    "images": values["images"],
                    "epochs": values["probe_epochs"],
                    "steps": -(-values["images"] // PROBE_BATCH) * values["probe_epochs"],
                    "image_passes": passes,
                    "batch_size": PROBE_BATCH,
                },
                {
                    "train_seconds": 0.0,
                    "evaluate_seconds": seconds,
                    "startup_seconds": startup,
                    "images_per_second": used / seconds,
                    "peak_memory_mb": peak_memory_mb(job.device),
                    "resumes": 0,
                },
                args.seed,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
