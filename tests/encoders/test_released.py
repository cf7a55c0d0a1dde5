"""Weights of the release: equal outputs under a plain implementation, and the same bits."""

import pickle

import pytest
import torch
from plain_vit import PlainSimMIM, PlainVit, randomize

from viny.encoders import load_encoder, load_model
from viny.encoders.heads import Classifier
from viny.encoders.released import from_released, import_released, read_released, released_name
from viny.errors import VinyError

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
    import_released(tmp_path / "encoder.pth", tmp_path / "encoder.safetensors")
    model, encoder = load_model(tmp_path / "encoder.safetensors"), load_encoder(tmp_path / "encoder.safetensors")
    side = sizes.get("image", 128)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(encoder.patch_tokens(images), plain.patch_tokens(images), rtol=1e-5, atol=1e-5)
        expected = plain.class_token(images)
        torch.testing.assert_close(encoder.class_token(images), expected, rtol=1e-5, atol=1e-5)
        if "classes" in sizes:
            assert isinstance(model, Classifier)
            torch.testing.assert_close(model(images), plain.head(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("classes", [0, 6])
def test_import_changes_no_bit(classes, tmp_path):
    plain = randomize(PlainVit(**SMALL, classes=classes), seed=0)
    torch.save(plain.state_dict(), tmp_path / "a.pth")
    import_released(tmp_path / "a.pth", tmp_path / "b.safetensors")
    ours = load_model(tmp_path / "b.safetensors").state_dict()
    assert_same_bits({released_name(name): tensor for name, tensor in ours.items()}, dict(plain.state_dict()))


def test_of_a_mim_file_the_encoder_is_taken(tmp_path):
    plain = randomize(PlainSimMIM(PlainVit(**SMALL)), seed=0)
    state = dict(plain.state_dict())
    state["get_patch_embedding.0.weight"] = state["encoder.to_patch_embedding.1.weight"]  # the release repeats it
    torch.save(state, tmp_path / "mim.pth")
    import_released(tmp_path / "mim.pth", tmp_path / "mim.safetensors")
    encoder = load_encoder(tmp_path / "mim.safetensors").state_dict()
    assert_same_bits({released_name(name): tensor for name, tensor in encoder.items()}, plain.encoder.state_dict())


class Harmful:
    def __reduce__(self):
        return (open, ("was-run", "w"))


def test_a_file_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"pos_embedding": Harmful()}, tmp_path / "bad.pth")
    with pytest.raises(VinyError, match=r"bad\.pth: holds something other than plain tensors"):
        import_released(tmp_path / "bad.pth", tmp_path / "out.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 torn", pickle.dumps({"a": 1}, protocol=2)])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(VinyError, match=r"x\.pth: "):
        from_released(read_released(tmp_path / "x.pth"), tmp_path / "x.pth")


def test_torn_and_missing_checkpoints_are_refused(tmp_path):
    torch.save(PlainVit(**SMALL).state_dict(), tmp_path / "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    for length in (len(whole) // 2, len(whole) - 300, 10):
        (tmp_path / "torn.pth").write_bytes(whole[:length])
        with pytest.raises(VinyError, match=r"torn\.pth: "):
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
        (lambda s: s.pop("pos_embedding"), "no tensor 'pos_embedding' of 3 dimensions"),
        (lambda s: s.update({"transformer.norm.bias": torch.zeros(7)}), r"'transformer.norm.bias' has shape \(7,\)"),
        (lambda s: s.update({"extra": torch.zeros(1)}), "'extra' is unknown"),
        (lambda s: s.update({"head.weight": torch.zeros(())}), "no tensor 'head.weight' of 2 dimensions"),
        (lambda s: s.update({"pos_embedding": torch.zeros(1, 12, 32)}), r"'pos_embedding' has shape \(1, 12, 32\)"),
        (lambda s: s.update({"pos_embedding": torch.zeros(1, 1, 32)}), r"'pos_embedding' has shape \(1, 1, 32\)"),
        (lambda s: s.update({"pos_embedding": torch.zeros(1, 0, 32)}), r"'pos_embedding' has shape \(1, 0, 32\)"),
        (lambda s: s.update({"to_patch_embedding.2.weight": torch.zeros(32, 2)}), r"embedding.1.weight' has"),
        (
            lambda s: s.update({"transformer.layers.0.0.to_qkv.weight": torch.zeros(100, 32)}),
            r"to_qkv.weight' has shape",
        ),
        (lambda s: s.update({"pos_embedding": torch.zeros(17)}), "no tensor 'pos_embedding' of 3 dimensions"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(change, message):
    state = dict(PlainVit(**SMALL).state_dict())
    change(state)
    with pytest.raises(VinyError, match=f"some.pth: .*{message}"):
        from_released(state, "some.pth")


def test_nothing_is_overwritten(tmp_path):
    target = tmp_path / "there.safetensors"
    target.write_text("precious")
    with pytest.raises(VinyError, match="exists already"):
        import_released(tmp_path / "a.pth", target)
    assert target.read_text() == "precious"
