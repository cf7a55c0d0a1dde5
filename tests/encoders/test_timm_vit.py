"""Vision Transformers of timm as encoders: their own computation, masked as SimMIM asks, and their files."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from viny.config.sections import Model
from viny.datasets.augment import IMAGENET_MEAN, IMAGENET_STD
from viny.encoders import build, load_encoder, load_model, save_model
from viny.encoders.heads import Segmenter
from viny.encoders.timm_vit import TimmViT
from viny.errors import VinyError
from viny.tasks.simmim import SimMIM

NAME = "vit_tiny_patch16_224"


def made(name=NAME, size=64, **changes):
    return build(Model(image_size=size, timm=name, **changes), torch.Generator().manual_seed(0)).eval()


def images(size=64):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def renormalized(x, model):
    """As the model of timm wants it: with its own mean and standard deviation."""
    config = timm.get_pretrained_cfg(model)
    columns = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD, config.mean, config.std))
    mean, std, own_mean, own_std = columns
    return (x * std + mean - own_mean) / own_std


# One that is plain, one with two tokens beside the patches, and one that takes images of any size by itself.
@pytest.mark.parametrize(("name", "width"), [(NAME, 192), ("deit_tiny_distilled_patch16_224", 192), ("test_vit", 64)])
def test_tokens_are_those_of_timm(name, width):
    encoder = made(name)
    assert (encoder.image_size, encoder.patch_size, encoder.patches, encoder.width) == (64, 16, 16, width)
    with torch.no_grad():
        features = encoder.model.forward_features(renormalized(images(), name))
        prefix = encoder.model.num_prefix_tokens
        torch.testing.assert_close(encoder.patch_tokens(images()), features[:, prefix:])
        torch.testing.assert_close(encoder.class_token(images()), features[:, 0])
        default = encoder.patch_tokens(images())
        for mode in ("fused", "explicit"):
            encoder.set_attention(mode)
            torch.testing.assert_close(encoder.patch_tokens(images()), default)


def test_masked_tokens_replace_embeddings_and_nothing_else():
    encoder = made()
    order = torch.rand(2, 16, generator=torch.Generator().manual_seed(2)).argsort(dim=1)
    mask_token = torch.randn(192, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = encoder.masked_tokens(images(), order, 6, mask_token)
        embedded = encoder.model.patch_embed(renormalized(images(), NAME))
        for row, those in zip(embedded, order[:, -6:], strict=True):
            row[those] = mask_token
        tokens = torch.cat([encoder.model.cls_token.expand(2, -1, -1), embedded], dim=1) + encoder.model.pos_embed
        tokens = encoder.model.norm(encoder.model.blocks(tokens))[:, 1:]
        expected = torch.stack([row[those] for row, those in zip(tokens, order[:, -6:], strict=True)])
    torch.testing.assert_close(found, expected)


def test_it_is_pre_trained_and_segments():
    model = SimMIM(made(), generator=torch.Generator().manual_seed(0))
    order = torch.rand(2, 16).argsort(dim=1)
    model(images(), order).backward()
    assert all(p.grad is not None for p in model.encoder.model.blocks.parameters())
    assert Segmenter(made(), 4)(images()).shape == (2, 4, 64, 64)


def test_the_generator_alone_decides_the_first_weights():
    state = torch.random.get_rng_state()
    one, again = made().state_dict(), made().state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert made().model.pos_embed.std() < 0.05
    assert made(initialization="pytorch").model.pos_embed.std().item() == pytest.approx(1, rel=0.1)


def test_files_have_timms_names_and_give_the_model_back(tmp_path):
    encoder = made()
    save_model(encoder, tmp_path / "a.safetensors")
    plain = timm.create_model(NAME, num_classes=0, img_size=64)
    plain.load_state_dict(load_file(tmp_path / "a.safetensors"))
    save_model(Segmenter(encoder, 3), tmp_path / "b.safetensors")
    for file in ("a", "b"):
        again = load_encoder(tmp_path / f"{file}.safetensors")
        assert again.sizes == {"image_size": 64, "timm": NAME}
        with torch.no_grad():
            assert torch.equal(again.patch_tokens(images()), encoder.patch_tokens(images()))
    assert isinstance(load_model(tmp_path / "b.safetensors"), Segmenter)


def test_a_state_dict_of_timm_is_read_at_any_size_of_image(tmp_path):
    path, plain = tmp_path / "vit.safetensors", timm.create_model(NAME).eval()
    save_file(plain.state_dict(), path)
    with torch.no_grad():
        same = load_encoder(path, NAME, 224)
        expected = plain.forward_features(renormalized(images(224), NAME))[:, 1:]
        torch.testing.assert_close(same.patch_tokens(images(224)), expected, rtol=1e-4, atol=1e-4)
    small = load_encoder(path, NAME, 64)
    assert isinstance(small, TimmViT)
    assert small.model.pos_embed.shape == (1, 17, 192)
    assert torch.equal(small.model.blocks[3].mlp.fc1.weight, plain.blocks[3].mlp.fc1.weight)
    with pytest.raises(VinyError, match="without viny's description"):
        load_encoder(path)
    with pytest.raises(VinyError, match=r"vit\.safetensors: tensor .* has shape"):
        load_encoder(path, "vit_small_patch16_224", 224)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("vit_tiny_patch16_22", 64, r"no model 'vit_tiny_patch16_22' \(did you mean `vit_tiny_patch16_224`"),
        ("resnet18", 64, "resnet18 cannot be built for 64 pixels"),
        ("swin_tiny_patch4_window7_224", 224, r"\(SwinTransformer\) is no Vision Transformer with"),
        ("vit_base_patch16_siglip_224", 64, "is no Vision Transformer with class token"),
        (NAME, 60, "9 tokens for an image of 60 pixels, not a grid of 16-pixel patches"),
        ("vit_tiny_r_s16_p8_224", 64, "4 tokens for an image of 64 pixels, not a grid of 8-pixel patches"),
    ],
)
def test_what_is_no_plain_vision_transformer_is_refused(name, size, message):
    with torch.device("meta"), pytest.raises(VinyError, match=message):
        TimmViT(name, size)


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm.models._builder, "load_pretrained", fail)
    with pytest.raises(VinyError, match=r"could not get the weights .*no route to host.* as `file` beside `timm`"):
        TimmViT(NAME, 64, pretrained=True)
