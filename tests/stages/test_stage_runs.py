"""What all stages promise: valid results, the same bits from the same seed, the budget that was asked for."""

import json
import os
from importlib import resources

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from tiny import MODEL, RUNS, SHORT

from viny.provenance import file_sha256
from viny.stages import finetune
from viny.stages import run as stage_run

STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1, "milestones": []}  # trained, but nothing moves
SCHEMA = yaml.safe_load(resources.files("viny").joinpath("schemas/metrics.schema.yaml").read_text(encoding="utf-8"))
IMAGES = {"pretrain": 24, "cls_intel": 30, "cls_pets": 54, "spatial_pets": 54, "finetune": 24}


def same(one: dict, other: dict) -> bool:
    """Whether weights are equal but for what `STILL` moves."""
    return one.keys() == other.keys() and all(np.allclose(one[key], other[key], rtol=0, atol=1e-20) for key in one)


@pytest.mark.parametrize("kind", RUNS)
def test_results_are_valid_and_whole(once, kind):
    stage, _ = RUNS[kind]
    result = once.run(kind)
    strict = SCHEMA | {"properties": SCHEMA["properties"] | {"metrics": {"$ref": f"#/$defs/{stage}"}}}
    jsonschema.Draft202012Validator(strict).validate(result.document)
    names = {path.name for path in result.folder.iterdir()}
    assert result.document["outputs"] == {name: file_sha256(result.folder / name) for name in names - {"metrics.json"}}
    steps = -(-IMAGES[kind] // 8)
    assert [row["step"] for row in result.history] == [steps, 2 * steps, 3 * steps]
    assert [row["learning_rate"] for row in result.history] == pytest.approx([3e-3, 3e-3, 3e-3 * gamma(result)])
    budget = {
        "images": IMAGES[kind],
        "epochs": 3,
        "steps": 3 * steps,
        "image_passes": 3 * IMAGES[kind],
        "batch_size": 8,
    }
    assert result.document["budget"] == budget
    assert result.document["cost"]["resumes"] == 0
    assert result.document["provenance"]["seed"] == 1


def gamma(result):
    return next(v["gamma"] for v in result.document["settings"].values() if isinstance(v, dict) and "gamma" in v)


@pytest.mark.parametrize("kind", RUNS)
def test_a_seed_decides_every_bit_and_another_one_too(once, stages, kind):
    first = once.run(kind)
    assert stages.run(kind, "again").repeatable == first.repeatable
    other = stages.run(kind, seed=2)
    assert other.model.read_bytes() != first.model.read_bytes()
    assert other.metrics["loss"] != first.metrics["loss"]


@pytest.mark.parametrize("kind", RUNS)
def test_training_lowers_the_loss(stages, kind):
    history = stages.run(kind, epochs=8, milestones=[], learning_rate=1e-2).history
    assert history[-1]["loss"] < 0.97 * history[0]["loss"]


@pytest.mark.parametrize("kind", RUNS)
def test_steps_replace_epochs_and_milestones_keep_their_place(stages, kind):
    result = stages.run(kind, steps=5, epochs=10, milestones=[2, 8], gamma=0.1)
    assert result.document["budget"]["steps"] == result.history[-1]["step"] == 5
    assert result.document["budget"]["epochs"] == pytest.approx(5 / -(-IMAGES[kind] // 8))
    last = result.history[-1]["learning_rate"]
    assert last == pytest.approx(3e-5)


def test_runs_from_random_weights_share_the_seeds_initialization(once):
    runs = {kind: once.run(kind, **STILL) for kind in RUNS}
    for kind, result in runs.items():
        assert same(result.encoder, runs["finetune"].encoder), kind
    assert not same(once.run("finetune", seed=3, **STILL).encoder, runs["finetune"].encoder)


@pytest.mark.parametrize("kind", ["cls_intel", "finetune"])
def test_training_begins_with_the_encoder_given(once, encoder, kind):
    given = load_file(encoder)
    started = once.run(kind, encoder=encoder, **STILL)
    assert same(started.encoder, given)
    assert not same(once.run(kind, **STILL).encoder, given)
    assert started.document["provenance"]["inputs"]["encoder"] == file_sha256(encoder)
    if kind == "finetune":  # the head depends on the seed alone
        heads = [load_file(r.model)["head.weight"] for r in (started, once.run(kind, **STILL))]
        assert np.allclose(*heads, rtol=0, atol=1e-20)


def test_an_intermediate_encoder_serves_segmentation(once):
    trained = once.run("cls_intel")
    assert same(once.run("finetune", encoder=trained.model, **STILL).encoder, trained.encoder)


@pytest.mark.parametrize("kind", ["pretrain", "cls_pets", "finetune"])
def test_seeding_of_the_split_alone_leaves_the_rest_to_chance(stages, kind):
    runs = [stages.run(kind, name, seeding="split_only") for name in "ab"]
    assert runs[0].model.read_bytes() != runs[1].model.read_bytes()
    seeds = [run.document["provenance"]["seed"] for run in runs]
    assert seeds[0] != seeds[1]
    again = stages.run(kind, "c", seed=seeds[0])  # chance is recorded: the seed drawn gives the same run
    assert again.model.read_bytes() == runs[0].model.read_bytes()


def test_batches_of_the_evaluation_change_no_metric(once, stages, monkeypatch):
    monkeypatch.setattr(finetune, "_EVALUATION_BATCH", 7)
    split = stages.run("finetune")
    assert split.model.read_bytes() == once.run("finetune").model.read_bytes()
    assert split.metrics["confusion"] == once.run("finetune").metrics["confusion"]
    assert split.metrics["loss"] == pytest.approx(once.run("finetune").metrics["loss"], rel=1e-5)


@pytest.mark.parametrize("kind", ["pretrain", "cls_intel", "finetune"])
def test_bfloat16_is_another_run_close_to_the_first(once, stages, kind):
    full, half = once.run(kind), stages.run(kind, precision="bf16")
    assert half.model.read_bytes() != full.model.read_bytes()
    assert half.metrics["loss"] == pytest.approx(full.metrics["loss"], rel=0.1)
    assert {tensor.dtype for tensor in half.encoder.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("steps", [1, 20], ids=["in the last step", "on the way"])
@pytest.mark.parametrize("kind", RUNS)
def test_a_loss_that_is_not_finite_is_explained_and_leaves_nothing(stages, kind, steps, capsys):
    output = stages.folder / "out"
    changes = {"learning_rate": 10.0, "weight_decay": 1e30, "optimizer": "adamw", "milestones": [], "save_every": 0}
    assert stages.main(kind, output, **changes, steps=steps) == 1
    said = capsys.readouterr().err
    assert "viny: error: " in said
    assert "the loss is" in said
    assert "lower learning_rate" in said
    assert not output.exists()


def test_coordinates_are_recorded_and_shown(stages, capsys):
    coordinates = "study=s,pretrain=0,intermediate=none,downstream=24,seed=1"
    result = stages.run("finetune", coordinates=coordinates)
    assert result.document["coordinates"] == {
        "study": "s", "pretrain": 0, "intermediate": "none", "downstream": 24, "seed": 1,
    }  # fmt: skip
    assert "finetune pretrain=0 intermediate=none downstream=24 seed=1: " in capsys.readouterr().err


def test_a_class_that_never_occurs_has_no_score(stages, monkeypatch):
    never = torch.tensor([0.5, 0.25, torch.nan], dtype=torch.float64)
    monkeypatch.setattr(finetune.segmentation, "class_iou", lambda confusion: never)
    metrics = (stages.run("finetune").folder / "metrics.json").read_text()
    document = json.loads(metrics, parse_constant=pytest.fail)
    assert document["metrics"]["class_iou"] == {"foreground": 0.5, "background": 0.25, "border": None}
    assert document["metrics"]["miou"] == 0.375
    jsonschema.Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_files_are_for_those_whom_the_umask_lets_read(stages, kind):
    before = os.umask(0o027)
    try:
        result = stages.run(kind)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in result.folder.iterdir()}
    assert modes == dict.fromkeys(modes, 0o640)


def test_a_log_repeats_what_was_said(stages, capsys):
    log = stages.folder / "logs" / "x.log"
    stages.run("finetune", log=log)
    assert log.read_text() == capsys.readouterr().err


@pytest.fixture
def task(monkeypatch, stages):
    """A function that runs a stage and gives back the task that it trained."""
    seen = []
    train = stage_run.train
    monkeypatch.setattr(stage_run, "train", lambda task, *rest: (seen.append(task), train(task, *rest))[1])

    def make(kind, **changes):
        stages.run(kind, **({"steps": 1, "milestones": []} | changes))
        return seen[-1]

    return make


def test_training_sets_are_nested_and_never_tested(task, stages):
    small, large = (set(task("finetune", images=n).draw(0)["row"].tolist()) for n in (8, 16))
    assert small == set(range(20, 28))
    assert large == set(range(20, 36))
    for kind in ("cls_pets", "spatial_pets"):
        assert set(task(kind).draw(0)["row"].tolist()) == set(range(20, 74))
    assert set(task("pretrain", images=12).draw(3)["row"].tolist()) == set(range(10, 22))
    assert set(task("cls_intel").draw(0)["row"].tolist()) == set(range(30))


@pytest.mark.parametrize("kind", RUNS)
def test_every_pass_has_an_order_and_augmentation_of_its_own(task, kind):
    made = task(kind)
    one, again, other = made.draw(0), made.draw(0), made.draw(1)
    for name, values in one.items():
        assert torch.equal(values, again[name]), name
        assert not torch.equal(values, other[name]), name
    assert sorted(one["row"].tolist()) == sorted(other["row"].tolist())


def test_pictures_show_the_test_set(once, stores):
    names = [json.loads(line)["name"] for line in (stores / "pets" / "index.jsonl").read_text().splitlines()]
    fixed = once.run("finetune").examples
    assert set(fixed["names"]) <= set(names[:20])
    assert list(fixed["names"][:4]) == names[:4]
    moving = once.run("finetune", test_set="moving").examples
    assert set(moving["names"]) <= set(names[24:44])
    assert once.run("pretrain").examples["images"].shape == (8, 16, 16, 3)


def test_settings_are_recorded_with_the_defaults_of_those_not_given(once):
    settings = once.run("finetune").document["settings"]
    assert settings["finetune"]["epochs"] == SHORT["epochs"]
    assert settings["finetune"]["weight_decay"] == 1e-4
    assert settings["model"] == {**MODEL, "initialization": "timm"}
    assert settings["seeding"] == "everything"
