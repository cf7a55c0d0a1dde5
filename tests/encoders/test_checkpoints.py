"""Model files: rebuilt from themselves alone, refused when damaged or hostile."""

import json
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from viny.config.sections import Model
from viny.encoders import load_encoder, load_model, load_start, save_model
from viny.encoders.heads import Classifier, PatchClassifier, Segmenter
from viny.encoders.vit import ViNy
from viny.errors import VinyError
from viny.tasks.simmim import SimMIM

TINY = {"image_size": 16, "patch_size": 8, "width": 8, "depth": 2, "heads": 1, "head_width": 4, "mlp_width": 8}
MODELS = {
    "encoder": lambda: ViNy(**TINY),
    "classifier": lambda: Classifier(ViNy(**TINY), 6),
    "segmenter": lambda: Segmenter(ViNy(**TINY), 4),
    "patch classifier": lambda: PatchClassifier(ViNy(**TINY), 3),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_file_gives_the_model_and_its_encoder_back(kind, tmp_path):
    model, path = MODELS[kind](), tmp_path / "new folder" / "model.safetensors"
    save_model(model, path)
    again = load_model(path)
    assert type(again) is type(model)
    assert getattr(again, "classes", 0) == getattr(model, "classes", 0)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), model.state_dict().values(), strict=True))
    encoder, original = load_encoder(path), getattr(model, "encoder", model)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(encoder.patch_tokens(images), original.patch_tokens(images))
    assert encoder.sizes == TINY
    assert all(parameter.requires_grad for parameter in encoder.parameters())
    assert [file.name for file in path.parent.iterdir()] == ["model.safetensors"]  # nothing left behind


def test_of_a_module_of_another_task_the_encoder_can_be_read(tmp_path):
    model = SimMIM(ViNy(**TINY))
    save_model(model, tmp_path / "a")
    assert torch.equal(load_encoder(tmp_path / "a").pos_embed, model.encoder.pos_embed)
    with pytest.raises(VinyError, match="holds a SimMIM, of which only the encoder can be read"):
        load_model(tmp_path / "a")


def test_equal_weights_give_equal_bytes(tmp_path):
    model = ViNy(**TINY)
    for name in "ab":
        save_model(model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_that_is_replaced_leaves_the_loaded_model_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(ViNy(**TINY), path)
    model = load_model(path)
    before = model.pos_embed.clone()
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(model.pos_embed, before)


DESCRIPTION = {"kind": "encoder", "model": TINY, "classes": 0}


def rewrite(path, change_tensors=lambda tensors: None, description=None):
    tensors = load_file(path)
    change_tensors(tensors)
    save_file(tensors, path, metadata={"viny": json.dumps(description)} if description else None)


def filled(name, value, dtype=torch.float32):
    """Fill a tensor with what no training gives."""
    return lambda tensors: tensors.update({name: torch.full(tensors[name].shape, value, dtype=dtype)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-10]), "not a readable safetensors file"),
        (lambda p: p.write_bytes(b""), "not a readable safetensors file"),
        (lambda p: p.write_bytes(b"\x00" * 100), "not a readable safetensors file"),
        (lambda p: p.unlink(), "no such model file"),
        (lambda p: rewrite(p), "without viny's description"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "width": "8"}}), "not valid .*width"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "model": {"width": 8}}), "has shape"),
        (lambda p: rewrite(p, description={"kind": "encoder"}), "not valid"),
        (lambda p: rewrite(p, description=[1, 2]), "not valid"),
        (lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "patch_size": 3}}), "not a multiple"),
        (
            lambda p: rewrite(p, description={**DESCRIPTION, "model": {**TINY, "mlp_width": 9}}),
            r"'blocks.0.mlp.fc1.weight' has shape \(8, 8\), expected \(9, 8\)",
        ),
        (
            lambda p: rewrite(p, filled("norm.bias", torch.nan), DESCRIPTION),
            "'norm.bias' has values that are not finite",
        ),
        (lambda p: rewrite(p, filled("norm.bias", 1e300, torch.float64), DESCRIPTION), "not finite float32 numbers"),
        (lambda p: rewrite(p, filled("norm.bias", 1, torch.int8), DESCRIPTION), "of type torch.int8, expected real"),
        (lambda p: rewrite(p, lambda t: t.pop("norm.bias"), DESCRIPTION), "'norm.bias' is missing"),
        (lambda p: rewrite(p, lambda t: t.update(more=torch.zeros(1)), DESCRIPTION), "'more' is unknown"),
    ],
)
def test_damage_is_named_with_the_file(damage, message, tmp_path):
    path = tmp_path / "encoder.safetensors"
    save_model(ViNy(**TINY), path)
    damage(path)
    for load in (load_encoder, load_model):
        with pytest.raises(VinyError, match=rf"encoder\.safetensors: .*{message}"):
            load(path)


PAPER = ViNy().sizes
HUGE = {"width": 65536, "mlp_width": 262144, "heads": 1024, "depth": 1000}


@pytest.mark.parametrize(
    "description",
    [
        json.dumps({**DESCRIPTION, "model": {**PAPER, **HUGE}}),
        json.dumps({**DESCRIPTION, "model": {**PAPER, "width": 1 << 20}}),
        json.dumps({**DESCRIPTION, "model": {**PAPER, "width": 10**40}}),
        json.dumps({**DESCRIPTION, "model": {**PAPER, "image_size": 10**9, "patch_size": 10**9}}),
        json.dumps({**DESCRIPTION, "kind": "classifier", "classes": 10**12}),
        json.dumps({**DESCRIPTION, "kind": "segmenter", "classes": 65536, "model": {**PAPER, "patch_size": 128}}),
        json.dumps({**DESCRIPTION, "classes": True}),
        json.dumps({**DESCRIPTION, "model": {"image_size": 224, "timm": "vit_giant_patch14_224"}}),
        json.dumps({**DESCRIPTION, "model": {"image_size": 224, "timm": "../../etc/passwd"}}),
        json.dumps({**DESCRIPTION, "model": {"image_size": 224, "timm": "no_such_model"}}),
        "[" * 100_000,
        "1" * 100_000,
        "",
        "null",
        '"viny"',
        '{"kind": {"kind": 1}, "model": [], "classes": 0}',
    ],
)
def test_a_tiny_file_is_refused_whatever_it_says_that_it_holds(description, tmp_path):
    path = tmp_path / "tiny.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"viny": description})
    tracemalloc.start()
    for load in (load_encoder, load_model):
        with pytest.raises(VinyError, match=r"tiny\.safetensors: |model\.timm"):
            load(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "encoder.safetensors"
    save_model(ViNy(**TINY), path)
    before = path.read_bytes()

    def fail(target, data):
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        save_model(ViNy(**TINY), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.safetensors"]


def job(encoder=None, pretrained=None, seed=1, **model):
    sizes = TINY | {"initialization": "pytorch"} | model
    return SimpleNamespace(model=Model(**sizes), encoder=encoder, pretrained=pretrained, seed=seed)


def test_a_job_starts_from_its_file_or_from_weights_of_its_seed(tmp_path):
    given, path = ViNy(**TINY), tmp_path / "a.safetensors"
    save_model(given, path)
    loaded = load_start(job(path))
    assert torch.equal(loaded.pos_embed, given.pos_embed)
    assert loaded.initialization == "pytorch"  # of the head that is put on it
    one, again, other = (load_start(job(), seed).pos_embed for seed in (None, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    with pytest.raises(VinyError, match=r"takes images of 16 pixels, but model\.image_size is 32"):
        load_start(job(path, image_size=32))
