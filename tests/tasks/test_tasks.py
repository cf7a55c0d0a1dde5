"""Each task: rows, random numbers, switches, ignored pixels; and the numbers that the first version computed."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from task_store import COUNT, SETTINGS, TESTS, TRIMAP, batches, make_task, random_store, train
from torch.nn import functional as F

from viny import tasks
from viny.datasets import augment
from viny.encoders import load_encoder, load_model
from viny.errors import VinyError

TRAINED = ("simmim", "classification", "patches", "segmentation")
RELEASED = {
    "loss": "log_softmax_over_pixels",
    "augmentation": "frozen",
    "augment_test": True,
    "normalize": False,
    "test_set": "moving",
}

# Losses of every third batch and scores that the first version of the code computed from the same stores and seeds.
EXPECTED = [
    ("simmim", {}, [0.6792509, 0.7276078], {"loss": 0.5793030}),
    (
        "simmim",
        {"loss": "divided_by_masked_patches", "initialization": "pytorch"},
        [0.1012635, 0.1047949],
        {"loss": 0.0860429},
    ),
    ("classification", {}, [1.5700375, 1.5236435, 1.6604124], {"loss": 1.6771491, "accuracy": 0.15}),
    ("classification", {"mixup": 0.0}, [1.5697519, 1.5261089, 1.6603863], {"loss": 1.6767601}),
    ("patches", {}, [1.1108484, 1.1035049, 1.1037931], {"loss": 1.0987475, "accuracy": 0.346875}),
    (
        "segmentation",
        {},
        [1.1028417, 1.1007314],
        {"loss": 1.0998185, "pixel_accuracy": 0.334375, "miou": 0.2005666, "miou_per_image": 0.1998949},
    ),
    (
        "segmentation",
        {**RELEASED, "initialization": "pytorch"},
        [1.1880165, 1.2104146],
        {"loss": 1.2038782, "pixel_accuracy": 0.3298828, "miou": 0.1974934, "miou_per_image": 0.1969752},
    ),
]


@pytest.mark.parametrize(("name", "changes", "losses", "scores"), EXPECTED, ids=lambda value: str(value)[:20])
def test_numbers_are_those_of_the_first_version(trained, name, changes, losses, scores):
    _, found, metrics, _ = trained(name, **changes)
    assert found[::3] == pytest.approx(losses, rel=1e-4)
    assert {key: metrics[key] for key in scores} == pytest.approx(scores, rel=2e-3)


@pytest.mark.parametrize("name", TRAINED)
def test_every_pass_has_an_order_and_augmentation_of_its_own(name):
    task = make_task(name)
    one, again, other = task.sample_epoch(0), task.sample_epoch(0), task.sample_epoch(1)
    for key, values in one.items():
        assert torch.equal(values, again[key]), key
        assert not torch.equal(values, other[key]), key
        assert values.device.type == "cpu"
    assert sorted(one["row"].tolist()) == sorted(other["row"].tolist()) == list(range(TESTS, TESTS + task.images))
    another = make_task(name, seed=2)
    assert not torch.equal(another.sample_epoch(0)["row"], one["row"])
    assert any(not torch.equal(a, b) for a, b in zip(another.model.parameters(), task.model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["simmim", "classification", "patches"])
def test_the_encoder_is_kept_and_the_head_is_not(trained, name):
    task, _, _, folder = trained(name)
    assert load_file(folder / "encoder.safetensors").keys() == task.encoder.state_dict().keys()
    kept = load_encoder(folder / "encoder.safetensors").state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in task.encoder.state_dict().items())


def by_row(drawn, name):
    """A drawn quantity, the same image at the same place in every pass."""
    return drawn[name][drawn["row"].argsort()]


def test_frozen_augmentation_keeps_each_images_draw():
    one, other = (make_task("segmentation", augmentation="frozen").sample_epoch(epoch) for epoch in range(2))
    assert not torch.equal(one["row"], other["row"])
    for name in ("flip", "contrast"):
        assert torch.equal(by_row(one, name), by_row(other, name))
    one, other = (make_task("segmentation").sample_epoch(epoch) for epoch in range(2))
    assert not torch.equal(by_row(one, "contrast"), by_row(other, "contrast"))


def test_contrast_is_drawn_within_its_strength():
    for strength in (0.0, 0.3):
        contrast = make_task("segmentation", contrast=strength).sample_epoch(0)["contrast"]
        assert (contrast - 1).abs().max() <= strength + 1e-6
    assert contrast.std() > 0.05


def test_crops_lie_in_the_image_and_in_their_range():
    crops = make_task("simmim", crop_scale=(0.5, 0.6), crop_ratio=(0.9, 1.1)).sample_epoch(0)["crop"]
    left, top, width, height = crops.T
    assert torch.minimum(left, top).min() >= 0
    assert torch.maximum(left + width, top + height).max() <= 1 + 1e-6
    assert ((width * height > 0.49) & (width * height < 0.61)).float().mean() > 0.8


def test_mixup_has_one_share_a_batch_and_none_without():
    drawn = make_task("classification").sample_epoch(0)
    assert "share" not in make_task("classification", mixup=0.0).sample_epoch(0)
    shares = drawn["share"].split(8)
    assert len(drawn["share"]) == 30
    assert all((share == share[0]).all() for share in shares)
    assert len({share[0].item() for share in shares}) == 4
    assert 0 <= drawn["share"].min() < drawn["share"].max() <= 1


def test_mixup_mixes_images_and_labels():
    task = make_task("classification")
    batch = next(batches(task))
    with torch.no_grad():
        whole, partner, half = (task.loss(batch | {"share": torch.full((8,), share)}) for share in (1.0, 0.0, 0.5))
        del batch["share"]
        plain = task.loss(batch)
        images, labels = task.prepare(batch)["image"], batch["label"]
        logits = task.model(0.5 * images + 0.5 * images.flip(0))
        expected = 0.5 * F.cross_entropy(logits, labels) + 0.5 * F.cross_entropy(logits, labels.flip(0))
    assert whole.item() == pytest.approx(plain.item(), rel=1e-5)
    assert partner.item() == pytest.approx(plain.item(), rel=1e-5)  # the same images, in another order
    assert half.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_moving_test_set_follows_the_training_images(trained):
    moving, _, metrics, folder = trained("segmentation", test_set="moving")
    assert sorted(moving.sample_epoch(0)["row"].tolist()) == list(range(24))
    assert sum(map(sum, metrics["confusion"])) == TESTS * 16 * 16
    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        assert set(arrays["names"]) <= {f"image-{row}" for row in range(24, 44)}


def test_examples_show_the_test_set(trained):
    task, _, metrics, folder = trained("segmentation")
    with np.load(folder / "examples.npz", allow_pickle=False) as arrays:
        assert list(arrays["names"][:4]) == [f"image-{row}" for row in range(4)]
        assert list(arrays["kind"]) == ["first"] * 4 + ["best"] * 2 + ["median"] * 2 + ["worst"] * 4
        assert list(arrays["classes"]) == list(TRIMAP) == list(metrics["class_iou"])
        rows = [int(name.split("-")[1]) for name in arrays["names"]]
        assert np.array_equal(arrays["truth"], task.store.masks[rows])
        assert np.array_equal(arrays["images"], task.store.images[rows])
        assert arrays["iou"][4] == arrays["iou"].max()
        assert arrays["iou"][-1] == arrays["iou"].min()


def test_augmented_test_images_are_flipped_and_jittered_with_their_truth():
    plain, changed = (make_task("segmentation", augment_test=value) for value in (False, True))
    here, there = next(plain.test_batches()), next(changed.test_batches())
    flipped = 0
    for one, other in zip(here["mask"], there["mask"], strict=True):
        assert torch.equal(one, other) or torch.equal(one, other.flip(-1))
        flipped += not torch.equal(one, other)
    assert 0 < flipped < TESTS
    assert not torch.equal(here["image"], there["image"])


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("loss", ["per_pixel", "log_softmax_over_pixels"])
def test_metrics_are_those_of_the_saved_model(trained, loss, normalize):
    task, _, metrics, folder = trained("segmentation", loss=loss, normalize=normalize)
    images = torch.tensor(task.store.images[:TESTS]).permute(0, 3, 1, 2).float() / 255
    truth = torch.tensor(task.store.masks[:TESTS]).long()
    if normalize:
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (augment.IMAGENET_MEAN, augment.IMAGENET_STD))
        images = (images - mean) / std
    with torch.inference_mode():
        scores = load_model(folder / "model.safetensors").eval()(images)
    if loss != "per_pixel":
        scores = torch.log_softmax(scores.reshape(TESTS, 3, -1), dim=-1).reshape(scores.shape)
    assert metrics["loss"] == pytest.approx(F.cross_entropy(scores, truth).item(), rel=1e-5)
    predicted = scores.argmax(1)
    assert metrics["pixel_accuracy"] == pytest.approx((predicted == truth).float().mean().item())
    confusion = [[((truth == t) & (predicted == p)).sum().item() for p in range(3)] for t in range(3)]
    assert metrics["confusion"] == confusion
    iou = [confusion[c][c] / (sum(confusion[c]) + sum(row[c] for row in confusion) - confusion[c][c]) for c in range(3)]
    assert list(metrics["class_iou"].values()) == pytest.approx(iou)
    assert metrics["miou"] == pytest.approx(sum(iou) / 3)


def test_the_releases_loss_cannot_see_a_classs_prior():
    """Adding a constant to one class's logits changes nothing after a log-softmax over pixels."""
    losses = {}
    for loss in ("per_pixel", "log_softmax_over_pixels"):
        task = make_task("segmentation", loss=loss)
        batch, bias = next(batches(task)), task.model.head.bias.data
        with torch.no_grad():
            before = task.loss(batch)
            bias.view(-1, 3)[:, 0] += 5.0
            losses[loss] = task.loss(batch).item() - before.item()
    assert abs(losses["log_softmax_over_pixels"]) < 1e-5 < 0.1 < abs(losses["per_pixel"])


def test_pre_training_losses_differ_by_the_number_of_masked_patches():
    mean, divided = (
        make_task("simmim", loss=loss, mask_ratio=0.25).evaluate()["loss"]
        for loss in ("mean", "divided_by_masked_patches")
    )
    assert divided == pytest.approx(mean / 4, rel=1e-5)  # 4 of 16 patches are masked


def test_held_out_masks_are_the_same_for_every_run(trained):
    arrays = [np.load(trained("simmim", seed=seed)[-1] / "examples.npz", allow_pickle=False) for seed in (1, 2)]
    assert np.array_equal(arrays[0]["mask"], arrays[1]["mask"])
    assert np.array_equal(arrays[0]["images"], arrays[1]["images"])
    assert arrays[0]["images"].shape == (8, 16, 16, 3)
    assert (arrays[0]["mask"].sum(axis=(1, 2)) == 8 * 16).all()
    assert trained("simmim")[2] != trained("simmim", seed=2)[2]


def commonest(labels, axis=None):
    """The class that occurs most often, along an axis."""
    labels = labels.reshape(-1) if axis is None else labels
    return np.apply_along_axis(lambda values: np.bincount(values, minlength=5).argmax(), 0, labels)


def test_chance_is_what_training_labels_alone_say_of_the_test_images(trained):
    store = random_store()
    test, training = slice(TESTS), slice(TESTS, TESTS + 30)
    metrics = trained("classification")[2]
    assert metrics["chance"] == np.mean(store.labels[test] == commonest(store.labels[training]))
    assert "chance_position" not in metrics
    patches = store.masks.reshape(COUNT, 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16)
    patches = np.array([commonest(patch) for patch in patches]).reshape(COUNT, 16)
    metrics = trained("patches")[2]
    assert metrics["chance"] == np.mean(patches[test] == commonest(patches[training]))
    assert metrics["chance_position"] == np.mean(patches[test] == commonest(patches[training], axis=0))


def test_chance_of_segmentation_has_the_scores_of_a_model():
    store = random_store(ignored=0.2)
    found = make_task("segmentation", store).evaluate()["chance"]
    truth, masks = store.masks[:TESTS], store.masks[TESTS : TESTS + 24]
    counts = np.array([(masks == c).sum(axis=0) for c in range(3)])  # of each class at each pixel
    answers = {"majority": np.full((16, 16), counts.sum(axis=(1, 2)).argmax()), "position": counts.argmax(axis=0)}
    assert list(found) == list(answers)
    for name, answer in answers.items():
        right = (truth == answer) & (truth != 255)
        assert found[name]["pixel_accuracy"] == right.sum() / (truth != 255).sum()
        predicted = np.where(truth != 255, answer, 255)
        iou = [right[truth == c].sum() / ((truth == c) | (predicted == c)).sum() for c in range(3)]
        assert found[name]["miou"] == pytest.approx(np.mean(iou))
    assert found["position"]["miou_per_image"] != found["position"]["miou"]


def test_a_run_keeps_the_confusion_matrix_of_each_test_image(trained):
    _, _, metrics, folder = trained("segmentation")
    with np.load(folder / "confusions.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == [f"image-{row}" for row in range(TESTS)]
        assert arrays["confusions"].shape == (TESTS, 3, 3)
        assert arrays["confusions"].sum(axis=0).tolist() == metrics["confusion"]


@pytest.mark.parametrize("name", ["classification", "patches", "segmentation"])
def test_batches_of_the_evaluation_change_no_metric(trained, monkeypatch, name):
    task, _, metrics, _ = trained(name)
    monkeypatch.setattr(tasks.base, "TEST_BATCH", 7)
    split = task.evaluate()
    assert split.get("confusion") == metrics.get("confusion")
    assert {k: v for k, v in split.items() if isinstance(v, float)} == pytest.approx(
        {k: v for k, v in metrics.items() if isinstance(v, float)}, rel=1e-5
    )


@pytest.mark.parametrize("name", ["patches", "segmentation"])
def test_any_number_of_classes_and_ignored_pixels(name, tmp_path):
    names = [f"class {number}" for number in range(6)]
    store = random_store(mask_classes=names, ignored=0.4)
    store.masks[3] = 255  # an image in which nothing counts
    task = make_task(name, store)
    assert all(np.isfinite(train(task, epochs=1)))
    metrics = task.evaluate()
    task.write(tmp_path)
    for batch in batches(task):  # what is ignored takes no part in the loss
        batch["mask"][:] = 255
        assert task.loss(batch).item() == 0
    if name == "segmentation":
        assert list(metrics["class_iou"]) == names
        assert np.sum(metrics["confusion"]) == (store.masks[:TESTS] != 255).sum()
        assert load_model(tmp_path / "model.safetensors").classes == 6
        with np.load(tmp_path / "examples.npz", allow_pickle=False) as arrays:
            assert np.isnan(arrays["iou"][3])
            assert "image-3" not in set(arrays["names"][4:])


def test_a_class_that_never_occurs_has_no_score():
    store = random_store(mask_classes=["a", "b", "c", "d"])
    store.masks[:] = store.masks % 2
    task = make_task("segmentation", store)
    task.model.head.bias.data.view(-1, 4)[:, 2:] -= 100.0
    metrics = task.evaluate()
    assert metrics["class_iou"]["c"] is metrics["class_iou"]["d"] is None
    assert metrics["miou"] == pytest.approx((metrics["class_iou"]["a"] + metrics["class_iou"]["b"]) / 2)


def test_what_a_task_needs_and_the_store_lacks_is_named():
    with pytest.raises(VinyError, match=rf"holds {COUNT} images, but 120 are needed"):
        make_task("segmentation", images=100)
    store = random_store()
    for name, missing in (("segmentation", "masks"), ("patches", "masks"), ("classification", "labels")):
        bare = type(store)(**{**vars(store), "masks": None, "labels": None, "classes": [], "mask_classes": []})
        with pytest.raises(VinyError, match=f"images of pets without {missing}"):
            make_task(name, bare)
    with pytest.raises(VinyError, match=r"masks of 20 pixels, but model\.image_size is 16"):
        make_task("segmentation", type(store)(**{**vars(store), "pixels": 20}))
    store.masks[:TESTS] = 255
    with pytest.raises(VinyError, match="20 test images of pets have no pixel that is not ignored"):
        make_task("segmentation", store)


def test_images_of_another_size_are_resized_for_tasks_without_masks():
    task = make_task("classification", random_store(20))
    assert np.isfinite(train(task, epochs=1)).all()
    assert next(task.test_batches())["image"].shape == (TESTS, 3, 16, 16)


def test_class_255_of_images_is_a_class_like_any_other():
    store = random_store()
    wide = type(store)(**{**vars(store), "classes": [str(number) for number in range(300)]})
    wide.labels[:] = 255
    task = make_task("classification", wide, mixup=0.0)
    assert task.loss(next(batches(task))).item() == pytest.approx(np.log(300), rel=0.05)
    assert task.evaluate()["chance"] == 1


def test_every_task_has_its_settings():
    assert tasks.names() == ["classification", "geometry", "patches", "segmentation", "simmim"]
    for name in tasks.names():
        assert isinstance(SETTINGS[name], tasks.load(name).Settings)
