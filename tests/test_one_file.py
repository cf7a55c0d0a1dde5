"""`docs/viny_in_one_file.py` computes what the package computes."""

import importlib.util
from pathlib import Path

import pytest
import torch

from viny.encoders.heads import Segmenter
from viny.encoders.vit import ViNy
from viny.tasks import metrics
from viny.tasks.simmim import SimMIM

FILE = Path(__file__).parents[1] / "docs" / "viny_in_one_file.py"
SIZES = {"image": 16, "patch": 4, "width": 24, "depth": 3, "heads": 2, "head_width": 8, "mlp_width": 40}


@pytest.fixture(scope="module", name="one")
def _one():
    spec = importlib.util.spec_from_file_location("viny_in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def encoders(one, sizes=SIZES, seed=0):
    """The one file's encoder and the package's with the same weights, in float64."""
    names = {"image": "image_size", "patch": "patch_size"}
    ours = ViNy(**{names.get(name, name): size for name, size in sizes.items()}, generator=seeded(seed)).double()
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=seeded(seed), dtype=torch.float64)
    theirs = one.Encoder(**sizes).double()
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def with_head(make, source):
    model = make.double()
    model.load_state_dict(source.state_dict())
    return model


def images(count=4, side=16):
    return torch.randn(count, 3, side, side, generator=seeded(1), dtype=torch.float64)


def masks(count=4, patches=16):
    """The same masks as the package's order and as the one file's booleans."""
    order = torch.rand(count, patches, generator=seeded(2)).argsort(dim=1)
    return order, torch.zeros(count, patches, dtype=torch.bool).scatter(1, order[:, -patches // 2 :], True)


def same_gradients(theirs, ours):
    wanted = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        if wanted[name].grad is None:
            assert name == "encoder.cls_token"
            continue
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-9, atol=1e-12)


def test_it_is_short_and_needs_torch_alone():
    lines = FILE.read_text().splitlines()
    assert len(lines) <= 180
    assert [line for line in lines if line.startswith(("import ", "from "))] == [
        "import torch",
        "from torch import Tensor, nn",
        "from torch.nn import functional as F",
    ]


def test_its_encoder_is_the_papers(one):
    encoder = one.Encoder()
    assert {name: value.shape for name, value in encoder.state_dict().items()} == {
        name: value.shape for name, value in ViNy().state_dict().items()
    }
    theirs, ours = encoders(one)
    torch.testing.assert_close(theirs(images()), ours.patch_tokens(images()), rtol=1e-9, atol=1e-9)


def test_pre_training_is_the_packages(one):
    theirs, ours = encoders(one)
    ours = SimMIM(ours, generator=seeded(3)).double()
    theirs = with_head(one.SimMIM(theirs), ours)
    order, mask = masks()
    loss, expected = theirs(images(), mask), ours(images(), order)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    loss.backward()
    expected.backward()
    same_gradients(theirs, ours)
    seen = []
    theirs.forward = lambda images, mask: seen.append(mask)
    theirs.loss(images(), None)
    assert (seen[0].sum(dim=1) == 8).all()


def test_fine_tuning_and_miou_are_the_packages(one):
    theirs, ours = encoders(one)
    ours = Segmenter(ours, 3, seeded(3)).double()
    theirs = with_head(one.Segmenter(theirs, 3), ours)
    truth = torch.randint(0, 3, (4, 16, 16), generator=seeded(4))
    logits = theirs(images())
    torch.testing.assert_close(logits, ours(images()), rtol=1e-9, atol=1e-9)
    loss = theirs.loss(images(), truth)
    expected = metrics.cross_entropy(ours(images()), truth)
    torch.testing.assert_close(loss.float(), expected, rtol=1e-6, atol=0)  # the package's logits are float32 there
    prediction = logits.argmax(dim=1)
    confusion = metrics.confusion_per_image(truth, prediction, 3).sum(dim=0)
    assert one.mean_iou(truth, prediction, 3) == pytest.approx(metrics.mean_iou(confusion), abs=1e-12)
    assert one.mean_iou(truth % 2, prediction % 2, 3) == pytest.approx(
        metrics.mean_iou(metrics.confusion_per_image(truth % 2, prediction % 2, 3).sum(dim=0)), abs=1e-12
    )


def test_training_steps_are_the_packages(one):
    theirs, ours = encoders(one)
    ours = SimMIM(ours, generator=seeded(3)).double()
    theirs = with_head(one.SimMIM(theirs), ours)
    optimizers = [torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05) for model in (theirs, ours)]
    order, mask = masks()
    for _ in range(5):
        for loss, optimizer in zip((theirs(images(), mask), ours(images(), order)), optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    wanted = ours.state_dict()
    for name, value in theirs.state_dict().items():
        if name != "encoder.cls_token":  # not trained here, but decayed where it has a gradient
            torch.testing.assert_close(value, wanted[name], rtol=1e-6, atol=1e-8)


def test_it_runs(one, capsys):
    scores = one.main(unlabeled=16, labeled=4, tested=4, epochs=(1, 1))
    assert all(0 <= score <= 1 for score in scores)
    assert capsys.readouterr().out.count("mIoU") == 2
