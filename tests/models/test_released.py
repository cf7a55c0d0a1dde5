"""Weights of the release: equal outputs under a plain implementation, and back without a changed bit."""

import pickle

import pytest
import torch
from plain_vit import PlainSimMIM, PlainVit, randomize

from viny.errors import VinyError
from viny.models import build_encoder
from viny.models.files import load_encoder, load_model, save_encoder, save_model
from viny.models.heads import Segmenter
from viny.models.released import from_released, main, read_released, to_released
from viny.models.simmim import SimMIM

SMALL = {"image": 32, "patch": 8, "width": 32, "depth": 2, "heads": 2, "hidden": 48}


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(tensor.view(torch.int32), other[name].view(torch.int32)), name


@pytest.mark.parametrize("sizes", [{}, SMALL, {**SMALL, "classes": 6}], ids=["paper", "small", "with head"])
def test_an_imported_encoder_computes_what_the_release_computes(sizes, tmp_path):
    plain = randomize(PlainVit(**sizes), seed=0)
    torch.save(plain.state_dict(), tmp_path / "encoder.pth")
    assert main(["import", str(tmp_path / "encoder.pth"), str(tmp_path / "encoder.safetensors")]) == 0
    ours = load_model(tmp_path / "encoder.safetensors")
    side = sizes.get("image", 128)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(ours.patch_tokens(images), plain.patch_tokens(images), rtol=1e-5, atol=1e-5)
        expected = plain.class_token(images)
        torch.testing.assert_close(ours.class_token(images), expected, rtol=1e-5, atol=1e-5)
        if "classes" in sizes:
            torch.testing.assert_close(ours(images), plain.head(expected), rtol=1e-5, atol=1e-5)


def test_an_exported_encoder_computes_the_same_in_the_release(tmp_path):
    ours = randomize(build_encoder(image_size=32, patch_size=8, width=32, depth=2, heads=2, mlp_width=48), seed=3)
    save_encoder(ours, tmp_path / "encoder.safetensors")
    assert main(["export", str(tmp_path / "encoder.safetensors"), str(tmp_path / "encoder.pth")]) == 0
    plain = PlainVit(**SMALL)
    plain.load_state_dict(torch.load(tmp_path / "encoder.pth", weights_only=True))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(plain.patch_tokens(images), ours.patch_tokens(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "with head", "mim"])
def test_import_and_export_change_no_bit(kind, tmp_path):
    plain = PlainVit(**SMALL, classes=6 if kind == "with head" else 0)
    plain = randomize(PlainSimMIM(plain) if kind == "mim" else plain, seed=0)
    first, middle, last = (str(tmp_path / name) for name in ("a.pth", "b.safetensors", "c.pth"))
    torch.save(plain.state_dict(), first)
    assert main(["import", first, middle]) == 0
    assert main(["export", middle, last]) == 0
    assert_same_bits(torch.load(last, weights_only=True), dict(plain.state_dict()))


def test_a_mim_file_gives_an_encoder_too_and_its_copies_are_ignored(tmp_path):
    plain = randomize(PlainSimMIM(PlainVit(**SMALL)), seed=0)
    state = dict(plain.state_dict())
    state["get_patch_embedding.0.weight"] = state["encoder.to_patch_embedding.1.weight"]
    torch.save(state, tmp_path / "mim.pth")
    assert main(["import", str(tmp_path / "mim.pth"), str(tmp_path / "mim.safetensors")]) == 0
    assert isinstance(load_model(tmp_path / "mim.safetensors"), SimMIM)
    encoder = load_encoder(tmp_path / "mim.safetensors")
    assert_same_bits(to_released(encoder), dict(plain.encoder.state_dict()))


class Harmful:
    def __reduce__(self):
        return (open, ("was-run", "w"))


def test_a_file_with_code_is_refused_and_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"pos_embedding": Harmful()}, tmp_path / "bad.pth")
    assert main(["import", "bad.pth", "out.safetensors"]) == 1
    error = capsys.readouterr().err
    assert "bad.pth: holds something other than plain tensors" in error
    assert "Traceback" not in error
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn", pickle.dumps({"a": 1}, protocol=2)])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(VinyError, match=r"x\.pth: "):
        from_released(read_released(tmp_path / "x.pth"), tmp_path / "x.pth")


def test_a_torn_checkpoint_is_refused(tmp_path):
    torch.save(PlainVit(**SMALL).state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "torn.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VinyError, match=r"torn\.pth: not a readable"):
        read_released(tmp_path / "torn.pth")
    with pytest.raises(VinyError, match="no such file"):
        read_released(tmp_path / "absent.pth")


def test_a_whole_module_and_a_list_are_no_state_dict(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(VinyError, match="no state_dict"):
        read_released(tmp_path / "list.pth")
    torch.save(PlainVit(**SMALL), tmp_path / "module.pth")
    with pytest.raises(VinyError, match="nothing was run"):
        read_released(tmp_path / "module.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("transformer.layers.1.1.network.4.bias"),
            r"'transformer.layers.1.1.network.4.bias' is missing",
        ),
        (lambda s: s.pop("pos_embedding"), "'pos_embedding' is missing"),
        (lambda s: s.update({"transformer.norm.bias": torch.zeros(7)}), r"'transformer.norm.bias' has shape \(7,\)"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "'extra' is unknown"),
        (lambda s: s.update({"pos_embedding": torch.zeros(1, 12, 32)}), "sizes that ViNy cannot have"),
        (lambda s: s.update({"pos_embedding": torch.zeros(17)}), "not 3 dimensions"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(change, message):
    state = dict(PlainVit(**SMALL).state_dict())
    change(state)
    with pytest.raises(VinyError, match=f"some.pth: .*{message}"):
        from_released(state, "some.pth")


def test_nothing_is_overwritten_and_heads_without_a_place_are_refused(tmp_path, capsys):
    target = tmp_path / "there.safetensors"
    target.write_text("precious")
    assert main(["import", str(tmp_path / "a.pth"), str(target)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert target.read_text() == "precious"
    segmenter = Segmenter(build_encoder(image_size=16, patch_size=8, width=8, depth=1, heads=1, mlp_width=8))
    save_model(segmenter, tmp_path / "model.safetensors")
    assert main(["export", str(tmp_path / "model.safetensors"), str(tmp_path / "b.pth")]) == 1
    assert "export its encoder" in capsys.readouterr().err
