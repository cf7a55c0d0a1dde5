"""How long it takes to decode (or generate) the images that are not in their stores yet."""

import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from viny.data.decode import decode_image
from viny.grid import Store
from viny.operations import work
from viny.study import Study

STARTUP = 1.0  # seconds of a job beside its images
_SAMPLE = 24  # images that are decoded to see how fast it goes
_PHOTOGRAPH = (500, 375)  # width and height of a usual photograph of the data sets
_WORKERS = 8  # processes of one decoding job (see workflow/rules/data.smk)


def images_to_decode(study: Study, stores: Sequence[Store]) -> dict[Store, int]:
    """Images that each job of the given stores adds; the largest part of a data set comes first and brings all."""
    added, there = {}, {}
    for store in sorted(stores, key=work.part_order, reverse=True):
        folder = study.manifest(store).parent
        have = there.setdefault(folder, work.decoded_images(study, store))
        added[store] = max(0, work.store_images(study, store) - have)
        there[folder] = have + added[store]
    return added


def rate(study: Study) -> float:
    """Images per second of a decoding job on this machine, measured on a few images; generating them included."""
    pixels = study.config["data"]["store_pixels"]
    if study.procedural:
        from viny.data.procedural import make_imagenet

        with tempfile.TemporaryDirectory() as folder:
            clock = time.perf_counter()
            for path in make_imagenet(Path(folder), _SAMPLE, study.procedural["pixels"], 0):
                decode_image(path.read_bytes(), pixels)
            return _SAMPLE / (time.perf_counter() - clock)
    photograph = _photograph()
    clock = time.perf_counter()
    for _ in range(_SAMPLE):
        decode_image(photograph, pixels)
    return _SAMPLE / (time.perf_counter() - clock) * min(_WORKERS, work.cores())


def _photograph() -> bytes:
    """A JPEG about as hard to decode as a photograph: a blurred random image with a little noise."""
    random, (width, height) = np.random.default_rng(0), _PHOTOGRAPH
    coarse = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(_PHOTOGRAPH, Image.Resampling.BICUBIC)).astype(float)
    noisy = (pixels + random.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
