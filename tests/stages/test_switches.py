"""Each switch of a stage does what it says, seen in results or against plain code."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from viny.data import augment
from viny.data.store import Store
from viny.models.files import load_model
from viny.stages import run as stage_run

STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1, "milestones": []}  # trained, but nothing moves


@pytest.fixture
def draws(monkeypatch, stages):
    """A function that runs a stage and gives back the draws of its first passes."""
    seen = []
    train = stage_run.train
    monkeypatch.setattr(stage_run, "train", lambda task, *rest: (seen.append(task), train(task, *rest))[1])

    def make(kind, **changes):
        stages.run(kind, **({"steps": 1, "milestones": []} | changes))
        return [seen[-1].draw(epoch) for epoch in range(2)]

    return make


def by_row(draw, name):
    """A drawn quantity, the same image at the same place in every pass."""
    return draw[name][draw["row"].argsort()]


def test_frozen_augmentation_keeps_each_images_draw(draws):
    one, other = draws("finetune", augmentation="frozen")
    assert not torch.equal(one["row"], other["row"])
    for name in ("flip", "contrast"):
        assert torch.equal(by_row(one, name), by_row(other, name))
    fresh_one, fresh_other = draws("finetune", augmentation="fresh")
    assert not torch.equal(by_row(fresh_one, "contrast"), by_row(fresh_other, "contrast"))


def test_frozen_augmentation_trains_another_model(once):
    frozen, fresh = once.run("finetune", augmentation="frozen"), once.run("finetune")
    assert frozen.model.read_bytes() != fresh.model.read_bytes()


def test_contrast_is_drawn_within_its_strength(draws):
    for strength in (0.0, 0.3):
        contrast = draws("finetune", contrast=strength)[0]["contrast"]
        assert (contrast - 1).abs().max() <= strength + 1e-6
    assert contrast.std() > 0.05


def test_crops_lie_in_the_image_and_in_their_range(draws):
    crops = draws("pretrain", crop_scale=[0.5, 0.6], crop_ratio=[0.9, 1.1])[0]["crop"]
    left, top, width, height = crops.T
    assert torch.minimum(left, top).min() >= 0
    assert torch.maximum(left + width, top + height).max() <= 1 + 1e-6
    area = width * height
    assert ((area > 0.49) & (area < 0.61)).float().mean() > 0.8


def test_mixup_has_one_share_a_batch_and_none_without(draws):
    (mixed, _), (plain, _) = draws("cls_intel", mixup=0.5), draws("cls_intel", mixup=0.0)
    assert "share" not in plain
    shares = mixed["share"].split(8)
    assert len(mixed["share"]) == 30
    assert all((share == share[0]).all() for share in shares)
    assert len({share[0].item() for share in shares}) == 4
    assert 0 <= mixed["share"].min() < mixed["share"].max() <= 1


def test_mixup_mixes_images_and_labels(monkeypatch, stages):
    seen = []
    train = stage_run.train
    monkeypatch.setattr(stage_run, "train", lambda task, *rest: (seen.append(task), train(task, *rest))[1])
    stages.run("cls_intel", mixup=0.5, **STILL)
    (task,) = seen
    batch = {name: values[:8] for name, values in task.draw(0).items()}
    batch |= task.read(batch.pop("row"))
    with torch.no_grad():
        whole = task.loss(batch | {"share": torch.ones(8)})
        partner = task.loss(batch | {"share": torch.zeros(8)})
        half = task.loss(batch | {"share": torch.full((8,), 0.5)})
        del batch["share"]
        plain = task.loss(batch)
        images, labels = task.images(batch), batch["label"]
        logits = task.model(0.5 * images + 0.5 * images.flip(0))
        expected = 0.5 * F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(logits, labels.flip(0))
    assert whole.item() == pytest.approx(plain.item(), rel=1e-5)
    assert partner.item() == pytest.approx(plain.item(), rel=1e-5)  # the same images, in another order
    assert half.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mixup_concerns_training_alone(once):
    plain, mixed = once.run("cls_intel", mixup=0.0), once.run("cls_intel", mixup=0.5)
    assert plain.model.read_bytes() != mixed.model.read_bytes()
    still = [once.run("cls_intel", mixup=mixup, **STILL).metrics for mixup in (0.0, 0.5)]
    assert still[0] == still[1]


def test_the_number_of_a_tasks_images_can_be_set(draws):
    (draw, _) = draws("cls_pets", images=16)
    assert sorted(draw["row"].tolist()) == list(range(20, 36))
    (draw, _) = draws("cls_intel", images=10)
    assert sorted(draw["row"].tolist()) == list(range(10))


def test_a_moving_test_set_follows_the_training_images(draws, once):
    (draw, _) = draws("finetune", test_set="moving")
    assert sorted(draw["row"].tolist()) == list(range(24))
    assert once.run("finetune", test_set="moving").metrics != once.run("finetune").metrics
    assert sum(map(sum, once.run("finetune", test_set="moving").metrics["confusion"])) == 20 * 16 * 16


def test_augmented_test_images_are_flipped_and_jittered_with_their_truth(once):
    plain, changed = (once.run("finetune", augment_test=value, **STILL) for value in (False, True))
    assert plain.model.read_bytes() == changed.model.read_bytes()
    assert plain.metrics["loss"] != changed.metrics["loss"]
    shown = {name: i for i, name in enumerate(plain.examples["names"])}
    pairs = [(i, shown[name]) for i, name in enumerate(changed.examples["names"]) if name in shown]
    flipped = 0
    for here, there in pairs:
        one, other = changed.examples["truth"][here], plain.examples["truth"][there]
        assert np.array_equal(one, other) or np.array_equal(one, other[:, ::-1])
        flipped += not np.array_equal(one, other)
    assert 0 < flipped < len(pairs)
    assert changed.metrics["confusion"] != plain.metrics["confusion"]
    assert np.sum(changed.metrics["confusion"], axis=1).tolist() == np.sum(plain.metrics["confusion"], axis=1).tolist()


def test_without_normalization_the_model_sees_other_numbers_and_people_the_same(once):
    on, off = (once.run("finetune", normalize=value, **STILL) for value in (True, False))
    assert on.metrics["loss"] != off.metrics["loss"]
    first = [run.examples["images"][:4].astype(int) for run in (on, off)]
    assert np.abs(first[0] - first[1]).max() <= 1


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("loss", ["per_pixel", "log_softmax_over_pixels"])
def test_metrics_are_those_of_the_saved_model(once, stores, loss, normalize):
    result = once.run("finetune", loss=loss, normalize=normalize)
    store = Store.open(stores / "pets" / "all.json")
    images = torch.tensor(store.images[:20]).permute(0, 3, 1, 2).float() / 255
    truth = torch.tensor(store.masks[:20]).long()
    if normalize:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (augment.IMAGENET_MEAN, augment.IMAGENET_STD))
        images = (images - mean) / std
    with torch.inference_mode():
        scores = load_model(result.model).eval()(images)
    if loss != "per_pixel":
        scores = torch.log_softmax(scores.reshape(20, 3, -1), dim=-1).reshape(scores.shape)
    assert result.metrics["loss"] == pytest.approx(F.cross_entropy(scores, truth).item(), rel=1e-5)
    predicted = scores.argmax(1)
    assert result.metrics["pixel_accuracy"] == pytest.approx((predicted == truth).float().mean().item())
    confusion = [[((truth == t) & (predicted == p)).sum().item() for p in range(3)] for t in range(3)]
    assert result.metrics["confusion"] == confusion
    iou = [confusion[c][c] / (sum(confusion[c]) + sum(row[c] for row in confusion) - confusion[c][c]) for c in range(3)]
    assert list(result.metrics["class_iou"].values()) == pytest.approx(iou)
    assert result.metrics["miou"] == pytest.approx(sum(iou) / 3)


def test_the_loss_over_pixels_trains_another_model(once):
    runs = [once.run("finetune", loss=loss) for loss in ("per_pixel", "log_softmax_over_pixels")]
    assert runs[0].model.read_bytes() != runs[1].model.read_bytes()


def test_pre_training_losses_differ_by_the_share_of_masked_patches(once):
    mean, divided = (
        once.run("pretrain", loss=loss, mask_ratio=0.25, **STILL).metrics["loss"]
        for loss in ("mean", "divided_by_masked_patches")
    )
    assert divided == pytest.approx(mean / 4, rel=1e-5)  # 4 of 16 patches are masked


def test_the_share_of_masked_patches_is_that_asked_for(once):
    for ratio, patches in ((0.25, 4), (0.5, 8), (0.75, 12)):
        mask = once.run("pretrain", mask_ratio=ratio, **STILL).examples["mask"]
        assert (mask.sum(axis=(1, 2)) == patches * 16).all()


def test_held_out_masks_are_the_same_for_every_run(once):
    one, other = once.run("pretrain", **STILL), once.run("pretrain", seed=2, **STILL)
    assert np.array_equal(one.examples["mask"], other.examples["mask"])
    assert np.array_equal(one.examples["images"], other.examples["images"])
    assert one.metrics["loss"] != other.metrics["loss"]


def test_chance_is_the_commonest_class(once, stores):
    labels = Store.open(stores / "pets" / "all.json").labels[:20]
    assert once.run("cls_pets").metrics["chance"] == np.bincount(labels).max() / 20
    masks = Store.open(stores / "pets" / "all.json").masks[:20]
    patches = masks.reshape(20, 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16)
    majority = [np.bincount(patch, minlength=3).argmax() for patch in patches]
    assert once.run("spatial_pets").metrics["chance"] == pytest.approx(np.bincount(majority).max() / len(majority))


def test_how_to_compute_is_recorded_and_changes_little(once, stages):
    explicit = stages.run("finetune", attention="explicit")
    fused = stages.run("finetune", attention="fused")
    assert fused.metrics["loss"] == pytest.approx(explicit.metrics["loss"], rel=1e-3)
    assert fused.document["provenance"]["compute"]["attention"] == "fused"
    assert fused.document["settings"] == explicit.document["settings"]
    assert fused.document["provenance"]["run_key"] != explicit.document["provenance"]["run_key"]


def test_initialization_is_that_of_encoder_and_head_alike(once):
    mean = {}
    for how in ("timm", "pytorch"):
        started = once.run("finetune", "init", initialization=how, **STILL)
        assert (np.std(started.encoder["pos_embed"]) > 0.5) == (how == "pytorch")
        mean[how] = load_model(started.model).head.bias.detach().abs().mean().item()
        assert started.document["settings"]["model"]["initialization"] == how
    assert mean["timm"] < 1e-6 < 0.01 < mean["pytorch"]


def test_a_head_follows_the_initialization_also_on_a_trained_encoder(once):
    encoder = once.run("pretrain", initialization="pytorch").model
    started = once.run("finetune", "head", initialization="pytorch", encoder=encoder, **STILL)
    assert load_model(started.model).head.bias.abs().max() > 0.01
