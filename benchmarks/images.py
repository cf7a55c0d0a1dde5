"""Images from disk to the model on one core: torchvision's ImageFolder pipeline against a store.

The benchmark generates JPEG files of ImageNet's usual size itself.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.measure import Group, Options, in_turns
from viny.data import augment
from viny.data.ingest import ingest
from viny.data.rows import Rows
from viny.data.store import Store
from viny.settings import defaults

WIDTH, HEIGHT, CLASSES, BATCH = 500, 375, 8, 64
FOLDER, STORE, DECODE = "torchvision ImageFolder", "viny, store", "viny, first decoding"


def run(options: Options) -> list[Group]:
    """Batches of 64 augmented, normalized images, and the first decoding that a store costs."""
    torch.set_num_threads(1)
    count = 16 if options.quick else 512
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "imagenet")
        kilobytes = generate(root, count) / count / 1000
        pretrain, size = defaults("pretrain"), defaults("model")["image_size"]
        ingest("imagenet", root, Path(folder, "store", "all.json"))
        variants = {
            FOLDER: lambda: _rate(folder_batches(root, pretrain, size)),
            STORE: lambda: _rate(store_batches(Path(folder, "store", "all.json"), pretrain, size)),
            DECODE: lambda: decoding(root),
        }
        for variant in variants.values():
            variant()  # fills the file system's cache
        values = in_turns(variants, options.rounds)
    note = f"one core, JPEG files of {WIDTH} x {HEIGHT} pixels and {kilobytes:.0f} KB"
    return [Group("input of pre-training", "images/s", FOLDER, values, note)]


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


def folder_batches(root: Path, pretrain: dict, size: int):
    """The usual pipeline, in this process."""
    steps = [
        transforms.RandomResizedCrop(size, tuple(pretrain["crop_scale"]), tuple(pretrain["crop_ratio"])),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(augment.IMAGENET_MEAN, augment.IMAGENET_STD),
    ]
    dataset = datasets.ImageFolder(str(root), transforms.Compose(steps))
    for images, _ in DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=0):
        yield images


def store_batches(manifest: Path, pretrain: dict, size: int):
    """What `viny.stages.pretrain` does with a store."""
    store = Store.open(manifest)
    rows, aspect = Rows(store.images, store.count, torch.device("cpu")), torch.from_numpy(store.aspect)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(store.count, generator=generator)
    crops = augment.draw_crops(aspect[order], pretrain["crop_scale"], pretrain["crop_ratio"], generator)
    flips = augment.draw_flips(store.count, generator)
    for start in range(0, store.count, BATCH):
        at = slice(start, start + BATCH)
        images = augment.crop_and_resize(rows[order[at]], crops[at], size)
        yield augment.normalize_(augment.unit_range(augment.flip(images, flips[at])))


def decoding(root: Path) -> float:
    """Images a second of making a store with one worker, files and checksums included."""
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        made = ingest("imagenet", root, Path(folder, "all.json"))
        return made["count"] / (time.perf_counter() - clock)


def _rate(batches) -> float:
    clock = time.perf_counter()
    count = sum(len(images) for images in batches)
    return count / (time.perf_counter() - clock)
