"""`viny.encoder` and `viny.segmenter`: a run's folder gives the model that was trained, from pictures on."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import viny
import viny.encoders.timm_register
from viny.errors import VinyError


@pytest.fixture
def photo() -> np.ndarray:
    """A picture that is no square and larger than what the models take."""
    return np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)


def segmented_as_in_the_test(folder: Path) -> bool:
    with np.load(folder / "examples.npz", allow_pickle=False) as examples:
        model = viny.segmenter(folder)
        assert model.classes == examples["classes"].tolist()
        pairs = zip(examples["images"], examples["prediction"], strict=True)
        return all((model.segment(image) == prediction).all() for image, prediction in pairs)


@pytest.mark.parametrize(
    "changes", [{}, {"normalize": False}, {"loss": "log_softmax_over_pixels"}], ids=["default", "raw", "over pixels"]
)
def test_a_segmenter_gives_the_masks_that_were_scored(once, changes):
    assert segmented_as_in_the_test(once.run("finetune", **changes).folder)


def test_a_segmenter_on_a_model_of_timm(once):
    model = {"timm": "vit_tiny_patch16_224", "image_size": 16}
    assert segmented_as_in_the_test(once.run("finetune", model=model, epochs=1, milestones=[]).folder)


def test_a_mask_has_the_size_of_its_picture(once, photo, tmp_path):
    model = viny.segmenter(once.run("finetune").folder)
    mask = model.segment(photo)
    assert (mask.shape, mask.dtype) == ((30, 50), np.uint8)
    assert set(np.unique(mask)) <= set(range(len(model.classes)))
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for same in (Image.fromarray(photo), tmp_path / "photo.png", str(tmp_path / "photo.png")):
        assert (model.segment(same) == mask).all()


@pytest.mark.parametrize("kind", ["pretrain", "cls_intel", "spatial_pets", "finetune"])
def test_features_are_those_of_timm(kind, once, photo):
    folder = once.run(kind).folder
    encoder = viny.encoder(folder)
    features = encoder.features([photo, photo[:, ::-1]])
    assert features.shape == (2, encoder.width)
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    assert (tuple(config["mean"]), tuple(config["std"])) == (encoder.mean, encoder.std)
    assert tuple(config["input_size"]) == (3, encoder.image_size, encoder.image_size)
    images = encoder.prepare([photo, photo[:, ::-1]])
    torch.testing.assert_close(model(images).detach(), features)
    assert encoder(images).shape == (2, encoder.patches, encoder.width)
    assert encoder.result.stage == {"cls_intel": "intermediate", "spatial_pets": "intermediate"}.get(kind, kind)


def test_one_picture_is_a_batch_of_one(once, photo, tmp_path):
    encoder = viny.encoder(once.run("pretrain").folder)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    for one in (photo, Image.fromarray(photo), tmp_path / "photo.png", [photo], photo[None]):
        torch.testing.assert_close(encoder.features(one), encoder.features([photo]))


@pytest.mark.parametrize(
    ("wrong", "named"), [(np.zeros((4, 4, 3)), "array of float64"), ([torch.zeros(3, 4, 4)], "Tensor"), ([3], "int")]
)
def test_what_is_no_picture_is_refused(wrong, named, once):
    with pytest.raises(VinyError, match=rf"a picture is a file, .*, not {named}$"):
        viny.encoder(once.run("pretrain").folder).features(wrong)


def test_features_of_a_gray_picture(once):
    encoder = viny.encoder(once.run("pretrain").folder)
    gray = np.full((9, 9), 100, np.uint8)
    torch.testing.assert_close(encoder.features([gray]), encoder.features([np.stack([gray] * 3, axis=2)]))


def test_what_cannot_be_loaded_says_why(once, tmp_path):
    pretrained = once.run("pretrain").folder
    with pytest.raises(VinyError, match="is a run of pretrain and segments nothing; name one of finetune"):
        viny.segmenter(pretrained)
    with pytest.raises(VinyError, match="is not the folder of a trained model"):
        viny.encoder(tmp_path)
    with pytest.raises(VinyError, match="is not the folder of a trained model"):
        viny.encoder(once.run("geometry").folder)
    shutil.copy(pretrained / "metrics.json", tmp_path)
    with pytest.raises(VinyError, match="holds no weights any more"):
        viny.encoder(tmp_path)


def test_a_picture_that_cannot_be_read_is_named(once, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with pytest.raises(VinyError, match=rf"^{re.escape(str(broken))} is no image that Pillow can read"):
        viny.encoder(once.run("pretrain").folder).features([broken])
