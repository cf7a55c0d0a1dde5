"""Many images: a store that is not in memory, and 1.28 million images listed and put into their order."""

import dataclasses
import itertools
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from benchmarks.measure import CPU, Group, Options, compare
from viny.config import load
from viny.datasets.build import order_for_testing, order_for_training
from viny.datasets.layouts import list_images
from viny.datasets.rows import Rows
from viny.grid import Study

PIXELS, BATCH, STEPS = 160, 64, 20
STEP = 0.3  # seconds that a step computes
CLASSES, IMAGES = 1000, 1280  # of ImageNet; images of each class
MOST_LINKS = 16  # folders that link to the same file: a file system allows a file so many names


def run(options: Options) -> Iterator[Group]:
    """Seconds that a step waits for its images, and that a data set takes to list."""
    with tempfile.TemporaryDirectory() as folder:
        yield waiting(Path(folder), options)
        yield listing(Path(folder), options)


def waiting(folder: Path, options: Options) -> Group:
    """Batches in random order from a file of which nothing is in memory."""
    path, steps = folder / "images.u8", 2 if options.quick else STEPS
    rows = steps * BATCH * (1 if options.quick else 20)
    with path.open("wb") as file:
        for _ in range(rows // BATCH):
            file.write(os.urandom(BATCH * PIXELS * PIXELS * 3))
        os.fsync(file.fileno())

    def seconds(ahead: bool = False) -> float:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        images = Rows(np.memmap(path, np.uint8, "r", shape=(rows, PIXELS, PIXELS, 3)), rows, CPU)
        batches, waited = torch.randperm(rows)[: steps * BATCH].split(BATCH), []
        for batch, following in itertools.pairwise(batches):
            clock = time.perf_counter()
            images[batch]
            if ahead:
                images.prefetch(following)
            waited.append(time.perf_counter() - clock)
            time.sleep(0 if options.quick else STEP)
        return median(waited)

    variants = {"read by the step that needs them": seconds, "asked for a step ahead": lambda: seconds(ahead=True)}
    note = f"{BATCH} rows of {PIXELS} x {PIXELS} pixels, a step of {STEP} s"
    return compare("images that are not in memory", "s", variants, options, note, warm=False)


def listing(folder: Path, options: Options) -> Group:
    """ImageNet's layout with files of one byte: folders, by torchvision and by viny, and the tar of tars."""
    classes, images = (4, 8) if options.quick else (CLASSES, IMAGES)
    names = [f"n{number:08d}" for number in range(classes)]
    tree, archive = folder / "tree", folder / "train.tar"
    for number, name in enumerate(names):
        (tree / "train" / name).mkdir(parents=True)
        if number % MOST_LINKS == 0:
            one = folder / f"{number}.JPEG"
            one.write_bytes(b"x")
        for image in range(images):
            os.link(one, tree / "train" / name / f"{name}_{image}.JPEG")
    with tarfile.open(archive, "w") as outer:
        for name in names:
            content = BytesIO()
            with tarfile.open(fileobj=content, mode="w") as inner:
                for image in range(images):
                    inner.addfile(_member(f"{name}_{image}.JPEG", 1), BytesIO(b"x"))
            outer.addfile(_member(f"{name}.tar", len(content.getvalue())), BytesIO(content.getvalue()))

    def planned(source: Path) -> float:
        settings = {"data": {"root": str(folder), "sets": {"imagenet": {"images": str(source)}}}, "stores": str(folder)}
        grid = {"grid": {"pretrain": [8], "intermediate": ["none"]}, "pretrain": {"heldout_images": 8}}
        spec = next(store for store in Study(load(settings | grid)).stores if store.name == "imagenet")
        clock = time.perf_counter()
        found = list_images(spec)
        candidates, tests = order_for_testing(found, spec.tests, spec.split_seed)
        order_for_training(found, candidates[:tests], spec.split_seed)
        return time.perf_counter() - clock

    def plainly() -> float:
        clock = time.perf_counter()
        make_dataset(str(tree / "train"), {name: number for number, name in enumerate(names)}, IMG_EXTENSIONS)
        return time.perf_counter() - clock

    variants = {
        "torchvision ImageFolder": plainly,
        "viny, folders": lambda: planned(tree),
        "viny, tar of tars": lambda: planned(archive),
    }
    few = dataclasses.replace(options, rounds=min(options.rounds, 2))
    return compare(f"list {classes * images:,} images", "s", variants, few, "torchvision sorts and does not order")


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    return member
