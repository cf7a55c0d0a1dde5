"""Images from disk to the model on one core: torchvision's ImageFolder pipeline against a store.

The benchmark generates JPEG files of ImageNet's usual size itself.
"""

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.measure import CPU, Group, Options, compare, rate
from viny.config import load
from viny.config.sections import Model, Pretraining
from viny.datasets import augment
from viny.datasets.build import build
from viny.datasets.store import Store
from viny.encoders.vit import ViNy
from viny.grid import StoreSpec, Study
from viny.tasks.base import Context
from viny.tasks.simmim import Task

WIDTH, HEIGHT, CLASSES = 500, 375, 8


def run(options: Options) -> Iterator[Group]:
    """A pass over augmented, normalized images, and the decoding that a store costs once."""
    torch.set_num_threads(1)
    count, tests = 32 if options.quick else 512, 8
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "imagenet", "train")
        kilobytes = generate(root, count + tests) / (count + tests) / 1000
        settings = {"pretrain": {"heldout_images": tests}, "grid": {"pretrain": [count], "intermediate": ["none"]}}
        study = Study(load({"data": {"root": name}, "stores": f"{name}/stores", **settings}))
        spec = next(store for store in study.stores if store.name == "imagenet")
        build(spec, workers=1)
        task = _Input(Store.open(spec.folder), count)
        loader = image_folder(root)
        variants = {
            "torchvision ImageFolder": lambda: rate(lambda: [None for _ in loader], count + tests, 0, CPU),
            "viny, store": lambda: rate(task.one_pass, count, 0, CPU),
            "viny, first decoding": lambda: rate(lambda: _decode(spec), count + tests, 0, CPU),
        }
        note = f"one core, JPEG files of {WIDTH} x {HEIGHT} pixels and {kilobytes:.0f} KB"
        yield compare("input of pre-training", "images/s", variants, options, note)


def generate(root: Path, count: int) -> int:
    """Write `count` JPEG files with detail at all scales into class folders; returns their bytes."""
    random, total = np.random.default_rng(0), 0
    for number in range(count):
        layers = np.zeros((HEIGHT, WIDTH, 3), dtype=np.float32)
        for side, strength in ((4, 60), (16, 40), (64, 25), (250, 14)):
            noise = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            scaled = Image.fromarray(noise).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            layers += (np.asarray(scaled, dtype=np.float32) - 128) / 128 * strength
        path = root / f"n{number % CLASSES:08d}" / f"n{number % CLASSES:08d}_{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((layers + 128).clip(0, 255).astype(np.uint8)).save(path, quality=92)
        total += path.stat().st_size
    return total


def image_folder(root: Path) -> DataLoader:
    """The usual pipeline, in this process."""
    settings = Pretraining()
    steps = [
        transforms.RandomResizedCrop(Model().image_size, settings.crop_scale, settings.crop_ratio),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(augment.IMAGENET_MEAN, augment.IMAGENET_STD),
    ]
    images = datasets.ImageFolder(str(root), transforms.Compose(steps))
    return DataLoader(images, batch_size=settings.batch_size, shuffle=True, num_workers=0)


class _Input(Task):
    """Pre-training with nothing to train: what is left is reading and augmenting."""

    def __init__(self, store: Store, images: int):
        encoder = ViNy(depth=1)
        super().__init__(Context(Pretraining(), store, encoder, CPU, 0, images, store.tests))
        self.model = _Nothing()

    def one_pass(self) -> None:
        """As the training loop goes through the images."""
        drawn, size = self.sample_epoch(0), self.settings.batch_size
        rows = drawn.pop("row")
        for start in range(0, self.images, size):
            shown = slice(start, start + size)
            self.loss({name: values[shown] for name, values in drawn.items()} | self.read(rows[shown]))


class _Nothing(nn.Module):
    def forward(self, images: Tensor, order: Tensor) -> Tensor:
        return images[0, 0, 0, 0]


def _decode(spec: StoreSpec) -> None:
    """Make the store with one process, checksums included."""
    with tempfile.TemporaryDirectory() as folder:
        build(dataclasses.replace(spec, root=Path(folder)), workers=1)
