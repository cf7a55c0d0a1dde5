"""Encoders: ViNy, Vision Transformers of timm, and their files."""

from viny.encoders.base import Encoder
from viny.encoders.checkpoints import build, load_encoder, load_model, save_model
from viny.errors import VinyError
from viny.grid import Job
from viny.training.rng import torch_stream

__all__ = ["Encoder", "build", "load_encoder", "load_model", "load_start", "save_model"]


def load_start(job: Job, seed: int | None = None) -> Encoder:
    """The encoder that a job starts from: a file's, timm's own weights, or random ones of `seed`, else the job's seed.

    Raises:
        VinyError: the file cannot be read, or its encoder takes images of another size than the study's.
    """
    size = job.model.image_size
    if job.encoder:
        encoder = load_encoder(job.encoder, job.pretrained, size)
    elif job.pretrained:
        from viny.encoders.timm_vit import TimmViT

        encoder = TimmViT(job.pretrained, size, pretrained=True)
    else:
        encoder = build(job.model, torch_stream(job.seed if seed is None else seed, "init"))
    if (found := encoder.image_size) != size:
        raise VinyError(f"{job.encoder}: its encoder takes images of {found} pixels, but model.image_size is {size}")
    encoder.initialization = job.model.initialization  # of what is put on it
    return encoder
