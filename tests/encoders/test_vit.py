"""ViNy: size, attention, the class token, first weights, and what the plain computation gives."""

import hashlib
import subprocess
import sys

import pytest
import torch
from plain_vit import PlainVit, randomize

from viny.config.sections import Model
from viny.encoders import build
from viny.encoders.base import patchify, unpatchify
from viny.encoders.heads import Classifier, PatchClassifier, Segmenter
from viny.encoders.vit import Attention, ViNy
from viny.errors import VinyError
from viny.tasks.simmim import SimMIM

TINY = {"image_size": 16, "patch_size": 4, "width": 24, "depth": 3, "heads": 2, "head_width": 8, "mlp_width": 40}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def tiny(**changes):
    return ViNy(**{**TINY, **changes}, generator=seeded())


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, generator=seeded(1))


def test_the_papers_sizes_have_exactly_the_papers_parameters():
    model = build(Model())
    assert isinstance(model, ViNy)
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_842_880
    assert (model.patches, model.width, model.blocks[0].attn.qkv.weight.shape) == (64, 128, (1536, 128))
    assert {part.eps for part in model.modules() if isinstance(part, torch.nn.LayerNorm)} == {1e-5}


def test_it_needs_no_timm():
    code = "import sys, viny.encoders; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_patches_are_flattened_row_column_channel():
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    patches = patchify(images, 2)
    assert patches.shape == (2, 4, 12)
    expected = [images[1, c, row, column].item() for row in (0, 1) for column in (2, 3) for c in range(3)]
    assert patches[1, 1].tolist() == expected
    assert torch.equal(unpatchify(patches, 2), images)


# SHA-256 of all weights in the order of their names, drawn by the first version of this model, on timm's classes.
FIRST_WEIGHTS = {
    ("timm", "paper"): "fd3e4945500bd08c",
    ("timm", "tiny"): "6e15bb8682aecefc",
    ("pytorch", "paper"): "e6a03dec2a32916e",
    ("pytorch", "tiny"): "44032ba3116cd521",
}


@pytest.mark.parametrize(("how", "sizes"), FIRST_WEIGHTS)
def test_first_weights_never_change(how, sizes):
    torch.rand(1)  # the global generator does not matter
    model = ViNy(**(TINY if sizes == "tiny" else {}), initialization=how, generator=seeded(5))
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.numpy().tobytes())
    assert digest.hexdigest()[:16] == FIRST_WEIGHTS[how, sizes]


def test_first_weights_are_timms_or_pytorchs():
    model = ViNy(generator=seeded())
    assert model.blocks[3].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.blocks[0].mlp.fc1.bias.abs().max() == 0
    other = ViNy(initialization="pytorch", generator=seeded())
    bound = other.blocks[0].mlp.fc1.in_features ** -0.5
    for values in other.blocks[0].mlp.fc1.parameters():
        assert values.abs().max() <= bound
        assert values.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert other.pos_embed.std().item() == pytest.approx(1, rel=0.05)


def test_what_is_put_on_an_encoder_is_drawn_like_it():
    plain, other = (Segmenter(tiny(initialization=how), 3, seeded()) for how in ("timm", "pytorch"))
    assert not plain.head.bias.any()
    assert other.head.bias.any()
    assert SimMIM(tiny(initialization="pytorch"), generator=seeded()).mask_token.std() > 0.5
    again = Segmenter(tiny(), 3, seeded())
    assert torch.equal(again.head.weight, plain.head.weight)
    assert not torch.equal(Segmenter(tiny(), 3, seeded(2)).head.weight, plain.head.weight)


def test_it_computes_what_a_plain_implementation_computes(images):
    plain = randomize(PlainVit(image=16, patch=4, width=24, depth=3, heads=2, head_width=8, hidden=40), 0).double()
    from viny.encoders.released import released_name

    ours = tiny().double()
    ours.load_state_dict({name: plain.state_dict()[released_name(name)] for name in ours.state_dict()})
    torch.testing.assert_close(ours.patch_tokens(images.double()), plain.patch_tokens(images.double()))
    torch.testing.assert_close(ours.class_token(images.double()), plain.class_token(images.double()))


def test_the_class_token_takes_part_in_classification_only(images):
    model = tiny()
    with torch.no_grad():
        before_patches, before_class = model.patch_tokens(images), model.class_token(images)
        model.cls_token.add_(1.0)
        model.pos_embed[:, 0].add_(1.0)
        assert before_patches.shape == (3, 16, 24)
        assert torch.equal(model.patch_tokens(images), before_patches)
        assert not torch.allclose(model.class_token(images), before_class)


def test_fused_and_explicit_attention_agree(images):
    results = []
    for mode in ("fused", "explicit", "auto"):
        model = tiny()
        model.set_attention(mode)
        (model.patch_tokens(images).square().mean() + model.class_token(images).square().mean()).backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(results[1], results[2], strict=True))  # auto on a CPU: explicit


@pytest.mark.parametrize("queries", [None, slice(1, 3)])
def test_under_autocast_attention_is_bfloat16_and_close_to_float32(queries):
    layer = Attention(24, 2, 4)
    torch.nn.init.normal_(layer.qkv.weight, std=0.2, generator=seeded())
    tokens = torch.randn(3, 7, 24, generator=seeded(1))
    exact = layer(tokens, queries)
    torch.testing.assert_close(exact, layer(tokens)[:, queries or slice(None)])
    with torch.autocast("cpu", torch.bfloat16):
        rounded = layer(tokens, queries)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.02)


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(VinyError, match="not a multiple of patch_size 5"):
        tiny(patch_size=5)
    with pytest.raises(ValueError, match="the model takes"):
        tiny().patch_tokens(torch.zeros(1, 3, 32, 32))


def test_heads_have_their_shapes_and_a_pixels_logits_come_from_its_own_patch(images):
    assert Classifier(tiny(), 6)(images).shape == (3, 6)
    assert PatchClassifier(tiny(), 5)(images).shape == (3, 16, 5)
    model = Segmenter(tiny(), 7)
    logits = model(images)
    assert logits.shape == (3, 7, 16, 16)
    token = model.encoder.patch_tokens(images)[0, 1]  # second patch of the first row
    torch.testing.assert_close(logits[0, :, 2, 4 + 3], model.head(token).reshape(4, 4, 7)[2, 3])  # row, column, class
    assert Segmenter(ViNy(), 3).head.weight.shape == (16 * 16 * 3, 128)
