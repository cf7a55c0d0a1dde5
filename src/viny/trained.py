"""Trained models in use: from pictures to features and masks, with the sizes and the normalization of training.

A picture is the name of an image file, an image of Pillow, or an array (H, W, 3) or (H, W) uint8.
"""

import json
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from viny.datasets.augment import IMAGENET_MEAN, IMAGENET_STD, unit_range
from viny.datasets.decode import BadImage, Decoded, decode_image
from viny.encoders import load_encoder, load_model
from viny.encoders.heads import Segmenter
from viny.errors import VinyError
from viny.result import Result, read_file

Picture = str | Path | Image.Image | np.ndarray
Pictures = Picture | Sequence[Picture]  # one or several; also an array (B, H, W, 3) uint8


class Trained(nn.Module):
    """What all trained models have in common.

    Attributes:
        image_size: side in pixels of the images that the model takes.
        mean, std: per channel, of the normalization that it was trained with; 0 and 1 if there was none.
        result: what metrics.json says of the run.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.result = _result(folder)
        self.settings = next(part for name, part in self.result.settings.items() if name.startswith(self.result.stage))
        self.image_size: int
        normalized = self.settings.get("normalize", True)
        self.mean, self.std = (IMAGENET_MEAN, IMAGENET_STD) if normalized else ((0.0,) * 3, (1.0,) * 3)

    def prepare(self, pictures: Pictures) -> Tensor:
        """Pictures of any size as the model's input, squashed to squares and normalized: (B, 3, S, S) on its device.

        Raises:
            VinyError: a picture cannot be read.
        """
        return self._input([_decode(picture, self.image_size) for picture in _listed(pictures)])

    def _input(self, decoded: Sequence[Decoded]) -> Tensor:
        images = unit_range(torch.stack([torch.from_numpy(each.pixels.copy()) for each in decoded]))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((images - mean) / std).to(next(self.parameters()).device)


class TrainedEncoder(Trained):
    """The encoder of a pre-training, intermediate or fine-tuning run.

    Attributes:
        width: of a feature vector. patches: number N of tokens of an image, row by row.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.encoder = load_encoder(_weights(folder)).eval()
        self.image_size, self.width, self.patches = self.encoder.image_size, self.encoder.width, self.encoder.patches
        config = folder / "config.json"  # which models of timm do not have after fine-tuning, whose head reads patches
        pool = json.loads(config.read_bytes())["model_args"]["global_pool"] if config.is_file() else "avg"
        self._uses_class_token = pool == "token"

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of all patches: (B, 3, S, S), as `prepare` makes them -> (B, N, width)."""
        return self.encoder.patch_tokens(images)

    @torch.no_grad()
    def features(self, pictures: Pictures) -> Tensor:
        """A vector for each picture, (B, width): the mean of its patch tokens, or the class token if it was trained.

        Raises:
            VinyError: a picture cannot be read.
        """
        images = self.prepare(pictures)
        return self.encoder.class_token(images) if self._uses_class_token else self(images).mean(dim=1)


class TrainedSegmenter(Trained):
    """The model of a fine-tuning run.

    Attributes:
        classes: their names; a mask holds their numbers.
    """

    def __init__(self, folder: Path):
        super().__init__(folder)
        model = load_model(_weights(folder)).eval()
        if not isinstance(model, Segmenter):
            raise VinyError(f"{folder} is a run of {self.result.stage} and segments nothing; name one of finetune")
        self.model, self.image_size = model, model.encoder.image_size
        self.classes = list(self.result.metrics.class_iou)

    def forward(self, images: Tensor) -> Tensor:
        """Scores of all classes, whose largest is the answer: (B, 3, S, S), as `prepare` makes them -> (B, K, S, S)."""
        scores = self.model(images)
        if self.settings.get("loss") == "log_softmax_over_pixels":  # as in `viny.tasks.segmentation`
            scores = scores.flatten(2).log_softmax(dim=-1).view_as(scores)
        return scores

    @torch.no_grad()
    def segment(self, picture: Picture) -> np.ndarray:
        """The class number of each pixel of a picture: uint8 (H, W), of the picture's own height and width.

        Raises:
            VinyError: the picture cannot be read.
        """
        decoded = _decode(picture, self.image_size)
        scores = self(self._input([decoded]))
        if (size := (decoded.height, decoded.width)) != scores.shape[2:]:
            scores = F.interpolate(scores, size, mode="bilinear")
        return scores[0].argmax(dim=0).byte().cpu().numpy()


def _result(folder: Path) -> Result:
    result = read_file(folder / "metrics.json")
    if result is None or result.stage == "geometry":
        raise VinyError(
            f"{folder} is not the folder of a trained model: it holds no metrics.json of pretrain, intermediate or "
            "finetune; name one such as results/demo/pretrain/pretrain=4096/seed=1"
        )
    return result


def _weights(folder: Path) -> Path:
    found = [path for name in ("model", "encoder") if (path := folder / f"{name}.safetensors").is_file()]
    if not found:
        raise VinyError(f"{folder} holds no weights any more; delete its metrics.json and run snakemake again")
    return found[0]


def _listed(pictures: Pictures) -> Iterable[Picture]:
    if isinstance(pictures, str | Path | Image.Image):
        return [pictures]
    return [pictures] if isinstance(pictures, np.ndarray) and pictures.ndim < 4 else pictures


def _decode(picture: Picture, side: int) -> Decoded:
    """A picture as a store holds it."""
    name: object = "a picture"
    if isinstance(picture, str | Path):
        name, data = picture, Path(picture).read_bytes()
    elif isinstance(picture, Image.Image) or (isinstance(picture, np.ndarray) and picture.dtype == np.uint8):
        image, buffer = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture, BytesIO()
        image.convert("RGB").save(buffer, "PPM")
        data = buffer.getvalue()
    else:
        kind = f"array of {picture.dtype}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise VinyError(f"a picture is a file, an image of Pillow or an array (H, W, 3) uint8, not {kind}")
    try:
        return decode_image(data, side)
    except BadImage as error:
        raise VinyError(f"{name} {error}") from None
