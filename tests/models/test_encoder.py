"""ViNy: size, the timm interface, attention variants, initialization."""

import pytest
import timm
import torch

from viny.errors import VinyError
from viny.models import build_encoder
from viny.models.heads import Segmenter
from viny.models.layers import patchify, unpatchify
from viny.models.simmim import SimMIM

TINY = {
    "image_size": 16,
    "patch_size": 4,
    "width": 24,
    "depth": 3,
    "heads": 2,
    "head_width": 8,
    "mlp_width": 40,
}


def tiny(**changes):
    return build_encoder(**{**TINY, **changes}, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_papers_sizes_have_exactly_the_papers_parameters():
    model = timm.create_model("viny_patch16_128", num_classes=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_842_880
    assert model.model_section == build_encoder().model_section
    assert model.blocks[0].attn.qkv.weight.shape == (1536, 128)
    assert model.blocks[0].attn.qkv.bias is None
    assert {part.eps for part in model.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-5}


def test_patches_are_flattened_row_column_channel():
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    patches = patchify(images, 2)
    assert patches.shape == (2, 4, 12)
    expected = [images[1, c, row, column].item() for row in (0, 1) for column in (2, 3) for c in range(3)]
    assert patches[1, 1].tolist() == expected
    assert torch.equal(unpatchify(patches, 2), images)


def test_class_token_takes_part_in_classification_only(images):
    model = tiny()
    with torch.no_grad():
        before_patches, before_class = model.patch_tokens(images), model.class_token(images)
        model.cls_token.add_(1.0)
        model.pos_embed[:, 0].add_(1.0)
        assert before_patches.shape == (3, 16, 24)
        assert torch.equal(model.patch_tokens(images), before_patches)
        assert not torch.allclose(model.class_token(images), before_class)


def test_class_token_equals_running_all_tokens(images):
    model = tiny(num_classes=5)
    features = model.forward_features(images)
    assert features.shape == (3, 17, 24)
    torch.testing.assert_close(model.class_token(images), features[:, 0])
    torch.testing.assert_close(model(images), model.forward_head(features))


def test_timm_interface(images):
    model = timm.create_model("viny_patch16_128", num_classes=4, img_size=32, depth=1)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    model = tiny()
    assert model.num_classes == 0
    assert model(images).shape == (3, 24)
    model.reset_classifier(6)
    assert model.num_classes == 6
    assert model(images).shape == (3, 6)
    model.reset_classifier(6, global_pool="avg")
    torch.testing.assert_close(model(images), model.head(model.forward_features(images)[:, 1:].mean(1)))
    features = model.forward_intermediates(images, indices=1, intermediates_only=True)
    assert features[0].shape == (3, 24, 4, 4)
    config = timm.data.resolve_model_data_config(timm.create_model("viny_patch16_128"))
    assert config["input_size"] == (3, 128, 128)
    with pytest.raises(TypeError):
        timm.create_model("viny_patch16_128", drop_path_rate=0.1)


def test_fused_and_explicit_attention_agree(images):
    results = []
    for mode in ("fused", "explicit", "auto"):
        model = tiny()
        model.set_attention(mode)
        loss = model.patch_tokens(images).square().mean() + model.class_token(images).square().mean()
        loss.backward()
        results.append([loss.detach(), *(parameter.grad for parameter in model.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))  # auto on CPU: explicit


def test_the_generator_alone_decides_the_first_weights():
    first = tiny()
    torch.rand(1)  # the global generator moves on, which must not matter
    again, other = tiny(), build_encoder(**TINY, generator=torch.Generator().manual_seed(7))
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.pos_embed, other.pos_embed)


def test_first_weights_are_timms():
    model = build_encoder(generator=torch.Generator().manual_seed(0))
    assert model.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.patch_embed.proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].mlp.fc1.bias.abs().max() == 0
    assert torch.equal(model.norm.weight, torch.ones(128))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"patch_size": 5}, "not a multiple of patch_size 5"), ({"attention": "flash"}, "'flash' is unknown")],
)
def test_sizes_that_do_not_fit_are_named(changes, message):
    with pytest.raises(VinyError, match=message):
        tiny(**changes)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="the model takes"):
        tiny().patch_tokens(torch.zeros(1, 3, 32, 32))


def test_pytorchs_initialization_is_that_of_its_layers_and_unit_embeddings():
    made = build_encoder(initialization="pytorch", generator=torch.Generator().manual_seed(0)).requires_grad_(False)
    weight, bias = made.blocks[0].mlp.fc1.weight, made.blocks[0].mlp.fc1.bias
    bound = weight.shape[1] ** -0.5
    for values in (weight, bias):
        assert values.abs().max() <= bound
        assert values.std() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert made.pos_embed.std() == pytest.approx(1, rel=0.05)
    assert made.cls_token.std() == pytest.approx(1, rel=0.3)
    again = build_encoder(initialization="pytorch", generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.blocks[3].attn.qkv.weight, again.blocks[3].attn.qkv.weight)


def test_what_is_put_on_an_encoder_is_initialized_like_it():
    torch.manual_seed(0)
    plain, other = Segmenter(build_encoder()), Segmenter(build_encoder(initialization="pytorch"))
    assert not plain.head.bias.any()
    assert other.head.bias.any()
    assert SimMIM(build_encoder(initialization="pytorch")).mask_token.std() > 0.5


def test_an_unknown_initialization_is_refused():
    with pytest.raises(VinyError, match=r"model\.initialization"):
        build_encoder(initialization="keras")
