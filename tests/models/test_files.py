"""Model files: rebuilt from themselves alone, loaded by timm, refused when damaged."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from viny.errors import VinyError
from viny.models import build_encoder
from viny.models.files import load_encoder, load_model, save_encoder, save_model
from viny.models.heads import Classifier, PatchClassifier, Segmenter
from viny.models.simmim import SimMIM

TINY = {"image_size": 16, "patch_size": 8, "width": 8, "depth": 2, "heads": 1, "head_width": 4, "mlp_width": 8}


def tiny(**changes):
    return build_encoder(**TINY, **changes)


@pytest.mark.parametrize(
    "make",
    [
        tiny,
        lambda: tiny(num_classes=5),
        lambda: SimMIM(tiny()),
        lambda: Classifier(tiny(), 6),
        lambda: Segmenter(tiny()),
        lambda: PatchClassifier(tiny()),
    ],
    ids=["encoder", "encoder with head", "simmim", "classifier", "segmenter", "patches"],
)
def test_a_file_gives_the_model_and_its_encoder_back(make, tmp_path):
    model, path = make(), tmp_path / "new folder" / "model.safetensors"
    save_model(model, path)
    again = load_model(path)
    assert type(again) is type(model)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    encoder = load_encoder(path)
    original = model if isinstance(model, type(encoder)) else model.encoder
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder.patch_tokens(images), original.patch_tokens(images))
    assert encoder.model_section == TINY
    assert encoder.num_classes == 0
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]  # nothing left behind


def test_equal_weights_give_equal_bytes(tmp_path):
    model = tiny()
    save_encoder(model, tmp_path / "a")
    save_encoder(model, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_timm_loads_an_encoder_file(tmp_path):
    model, path = build_encoder(), tmp_path / "encoder.safetensors"
    save_encoder(model, path)
    by_checkpoint = timm.create_model("viny_patch16_128", num_classes=0, checkpoint_path=str(path))
    by_overlay = timm.create_model(
        "viny_patch16_128", pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": str(path)}
    )
    for other in (by_checkpoint, by_overlay):
        assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


def rewrite(path, change_tensors=lambda tensors: None, description=None):
    tensors = load_file(path)
    change_tensors(tensors)
    save_file(tensors, path, metadata={"viny": json.dumps(description)} if description else None)


DESCRIPTION = {"kind": "encoder", "model": TINY, "classes": 0}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "not a readable safetensors file"),
        (lambda p: p.write_bytes(b""), "not a readable safetensors file"),
        (lambda p: p.write_bytes(b"\x00" * 100), "not a readable safetensors file"),
        (lambda p: p.unlink(), "no such model file"),
        (lambda p: rewrite(p), "without viny's description"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "kind": "other"}), "without viny's description"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "width": "8"}}), "without viny's descr"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "patch_size": 3}}), "not a multiple"),
        (
            lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "mlp_width": 9}}),
            r"'blocks.0.mlp.fc1.weight' has shape \(8, 8\), expected \(9, 8\)",
        ),
        (lambda p: rewrite(p, lambda t: t.pop("norm.bias"), DESCRIPTION), "'norm.bias' is missing"),
        (lambda p: rewrite(p, lambda t: t.update(more=torch.zeros(1)), DESCRIPTION), "'more' is unknown"),
    ],
)
def test_damage_is_named_with_the_file(damage, message, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_encoder(tiny(), path)
    damage(path)
    with pytest.raises(VinyError, match=rf"encoder\.safetensors: .*{message}"):
        load_encoder(path)


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "encoder.safetensors"
    save_encoder(tiny(), path)
    before = path.read_bytes()

    def fail(target, data):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        save_encoder(tiny(), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]
