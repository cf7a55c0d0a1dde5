"""Folders of results load in timm as what they are good for."""

import pytest
import timm
import torch

import viny.encoders.timm_register  # noqa: F401
from viny.config.sections import Model
from viny.encoders import build, save_model
from viny.encoders.checkpoints import write_timm_config
from viny.encoders.heads import Classifier, Segmenter
from viny.encoders.vit import ViNy

TINY = {"image_size": 16, "patch_size": 4, "width": 24, "depth": 3, "heads": 2, "head_width": 8, "mlp_width": 40}


@pytest.fixture(name="images")
def _images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("head", [None, Classifier, Segmenter])
def test_a_folder_gives_the_features_that_were_trained(head, images, tmp_path):
    encoder = ViNy(**TINY, generator=torch.Generator().manual_seed(1))
    whole = head is Segmenter
    save_model(Segmenter(encoder, 3) if whole else encoder, tmp_path / f"{'model' if whole else 'encoder'}.safetensors")
    write_timm_config(tmp_path, encoder, class_token=head is Classifier)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        expected = encoder.class_token(images) if head is Classifier else encoder.patch_tokens(images).mean(dim=1)
        torch.testing.assert_close(model(images), expected)
    assert model.num_features == 24
    config = timm.data.resolve_model_data_config(model)
    assert tuple(config["input_size"]) == (3, 16, 16)
    assert tuple(config["mean"]) == (0.485, 0.456, 0.406)
    assert config["crop_pct"] == 1.0


def test_features_only(images, tmp_path):
    encoder = ViNy(**TINY, generator=torch.Generator().manual_seed(1))
    save_model(encoder, tmp_path / "encoder.safetensors")
    write_timm_config(tmp_path, encoder, class_token=False)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, out_indices=(0, 2)).eval()
    maps = model(images)
    assert [tuple(found.shape) for found in maps] == [(2, 24, 4, 4)] * 2
    assert model.feature_info.channels() == [24, 24]
    with torch.no_grad():
        tokens = encoder.norm(maps[1].flatten(2).mT)
        torch.testing.assert_close(tokens, encoder.patch_tokens(images))


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("name", [None, "vit_tiny_patch16_224"])
def test_timm_normalizes_as_in_training(name, normalized, tmp_path):
    size = 64 if name else 16
    model = {"timm": name} if name else {key: value for key, value in TINY.items() if key != "image_size"}
    encoder = build(Model(image_size=size, **model), torch.Generator().manual_seed(0)).eval()
    save_model(encoder, tmp_path / "encoder.safetensors")
    write_timm_config(tmp_path, encoder, class_token=False, normalized=normalized)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(model)
    pixels = torch.rand(2, 3, size, size)

    def channels(values):
        return torch.tensor(values).view(3, 1, 1)

    trained = pixels
    if normalized:
        trained = (pixels - channels((0.485, 0.456, 0.406))) / channels((0.229, 0.224, 0.225))
    with torch.no_grad():
        expected = encoder.patch_tokens(trained).mean(dim=1)
        given = (pixels - channels(config["mean"])) / channels(config["std"])
        torch.testing.assert_close(model(given), expected, rtol=1e-4, atol=1e-4)
