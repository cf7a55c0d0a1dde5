"""Tasks on a small store in memory, with a tiny encoder."""

import dataclasses
from pathlib import Path

import numpy as np
import torch

from viny import tasks
from viny.config.sections import Finetuning, Geometry, Intermediate, Pretraining
from viny.datasets.store import Store
from viny.encoders.vit import ViNy
from viny.tasks.base import Context
from viny.training.rng import torch_stream

MODEL = {"image_size": 16, "patch_size": 4, "width": 16, "depth": 2, "heads": 1, "head_width": 16, "mlp_width": 32}
SETTINGS = {
    "simmim": Pretraining(batch_size=8),
    "classification": Intermediate(task="classification", images="pets", batch_size=8, mixup=0.5),
    "patches": Intermediate(task="patches", images="pets", batch_size=8),
    "segmentation": Finetuning(batch_size=8),
    "geometry": Geometry(images=30),
}
IMAGES = {"simmim": 24, "segmentation": 24}
COUNT, TESTS = 80, 20
TRIMAP = ("foreground", "background", "border")


def random_store(pixels=16, mask_classes=TRIMAP, ignored=0.0, folder=Path("stores/pets")):
    """80 images, 20 of them test images; patches of 4 x 4 pixels have masks of 2 x 2 blocks."""
    rng = np.random.default_rng(0)
    # The same draws for every size of image, in an order that the expected numbers depend on.
    small, large = (rng.integers(0, 256, (COUNT, side, side, 3), dtype=np.uint8) for side in (16, 20))
    blocks = rng.integers(0, len(mask_classes), (COUNT, 8, 8), dtype=np.uint8)
    labels, aspect = rng.integers(0, 5, COUNT), rng.uniform(0.6, 1.6, COUNT)
    masks = blocks.repeat(2, axis=1).repeat(2, axis=2)
    masks[rng.random(masks.shape) < ignored] = 255
    given = {
        "folder": folder,
        "name": "pets",
        "count": COUNT,
        "tests": TESTS,
        "pixels": pixels,
        "images": small if pixels == 16 else large,
        "masks": masks,
        "labels": labels.astype(np.int64),
        "aspect": aspect.astype(np.float32),
        "names": [f"image-{row}" for row in range(COUNT)],
        "classes": list("abcde"),
        "mask_classes": list(mask_classes),
    }
    return Store(**{field.name: given.get(field.name) for field in dataclasses.fields(Store)})


def make_task(name, store=None, seed=1, images=None, tests=TESTS, module=None, initialization="timm", **changes):
    """A task with settings that differ from its usual ones by `changes`."""
    module = module or tasks.load(name)
    settings = SETTINGS.get(name) or module.Settings(task=name, images="pets", batch_size=8)
    encoder = ViNy(**MODEL, initialization=initialization, generator=torch_stream(seed, "init"))
    context = Context(
        settings=settings.model_copy(update=changes),
        store=store or random_store(20 if name == "simmim" else 16),
        encoder=encoder,
        device=torch.device("cpu"),
        seed=seed,
        images=images or IMAGES.get(name, 30),
        tests=tests,
    )
    return module.Task(context)


def batches(task, epoch=0):
    """The batches of a pass, as the training loop makes them."""
    drawn = task.sample_epoch(epoch)
    rows = drawn.pop("row")
    for start in range(0, len(rows), 8):
        shown = slice(start, start + 8)
        yield {name: values[shown] for name, values in drawn.items()} | task.read(rows[shown])


def train(task, epochs=2):
    """Plain training; returns the losses."""
    optimizer, losses = torch.optim.AdamW(task.model.parameters(), 1e-3), []
    for epoch in range(epochs):
        for batch in batches(task, epoch):
            loss = task.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    task.model.eval()
    return losses


# A mask of four patches of 2 x 2 pixels.
MASK = torch.tensor([[1, 1, 1, 2], [1, 1, 2, 0], [1, 2, 0, 0], [2, 2, 0, 0]], dtype=torch.uint8)
