"""What all jobs promise: valid results, the same bits from the same seed, the budget that was asked for."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import KINDS, MODEL, SHORT

from viny import job as viny_job
from viny import run as viny_run
from viny.files import file_sha256
from viny.job import run_job
from viny.result import read_history, read_result

STILL = {"learning_rate": 1e-30, "weight_decay": 0.0, "steps": 1, "milestones": []}  # trained, but nothing moves
IMAGES = {"pretrain": 24, "cls_intel": 30, "cls_pets": 54, "spatial_pets": 54, "finetune": 24}


def same(one: dict, other: dict) -> bool:
    """Whether weights are equal but for what `STILL` moves."""
    return one.keys() == other.keys() and all(np.allclose(one[key], other[key], rtol=0, atol=1e-20) for key in one)


@pytest.mark.parametrize("kind", [*KINDS, "geometry"])
def test_results_are_valid_and_whole(once, kind):
    done = once.run(kind)
    result = read_result(done.job)
    names = {path.name for path in done.folder.iterdir()}
    assert result.outputs == {name: file_sha256(done.folder / name) for name in names - {"metrics.json"}}
    assert done.job.checkpoint.name in names
    assert result.settings == done.job.recorded_settings
    assert (result.provenance.key, result.provenance.code) == (done.job.key, done.job.code)
    assert result.provenance.seed == 1
    assert result.cost.startup_seconds > 0
    assert result.cost.resumes == 0
    assert set(result.provenance.inputs) == ({"store", "encoder"} if kind == "geometry" else {"store"})


@pytest.mark.parametrize("kind", KINDS)
def test_budget_and_history_are_what_was_asked_for(once, kind):
    done, steps = once.run(kind), -(-IMAGES[kind] // 8)
    rows = read_history(done.job)
    assert [row["step"] for row in rows] == [steps, 2 * steps, 3 * steps]
    gamma = done.job.settings.gamma
    assert [row["learning_rate"] for row in rows] == pytest.approx([3e-3, 3e-3, 3e-3 * gamma])
    assert done.document["budget"] == {
        "images": IMAGES[kind],
        "epochs": 3,
        "steps": 3 * steps,
        "samples_seen": 3 * IMAGES[kind],
        "batch_size": 8,
    }


@pytest.mark.parametrize("kind", [*KINDS, "geometry"])
def test_a_seed_decides_every_bit_and_another_one_too(once, jobs, kind):
    first = once.run(kind)
    assert jobs.run(kind, "again").repeatable == first.repeatable
    other = jobs.run(kind, seed=2)
    assert other.weights != first.weights
    assert other.metrics != first.metrics


def test_steps_replace_epochs_and_milestones_keep_their_place(jobs):
    done = jobs.run("finetune", steps=5, epochs=10, milestones=[2, 8], gamma=0.1)
    assert done.document["budget"]["steps"] == done.history[-1]["step"] == 5
    assert done.document["budget"]["epochs"] == pytest.approx(5 / 3)
    assert done.history[-1]["learning_rate"] == pytest.approx(3e-5)


def test_runs_from_random_weights_share_the_seeds_initialization(once):
    runs = {kind: once.run(kind, **STILL) for kind in KINDS}
    for kind, done in runs.items():
        assert same(done.encoder, runs["finetune"].encoder), kind
    assert not same(once.run("finetune", seed=2, **STILL).encoder, runs["finetune"].encoder)


@pytest.mark.parametrize("kind", ["cls_intel", "finetune"])
def test_training_begins_with_the_encoder_made_before(once, kind):
    started = once.run(kind, pretrain=24, **STILL)
    given = load_file(started.job.encoder)
    assert same(started.encoder, given)
    assert not same(once.run(kind, **STILL).encoder, given)
    assert started.document["provenance"]["inputs"]["encoder"] == file_sha256(started.job.encoder)
    if kind == "finetune":  # the head depends on the seed alone
        heads = [load_file(done.job.checkpoint)["head.weight"] for done in (started, once.run(kind, **STILL))]
        assert np.allclose(*heads, rtol=0, atol=1e-20)


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_seeding_of_the_split_alone_leaves_the_rest_to_chance(jobs, kind):
    runs = [jobs.run(kind, name, seeding="split_only") for name in "ab"]
    assert runs[0].weights != runs[1].weights
    seeds = [run.document["provenance"]["seed"] for run in runs]
    assert seeds[0] != seeds[1]


def test_bfloat16_is_another_run_close_to_the_first(once, jobs):
    full, half = once.run("finetune"), jobs.run("finetune", precision="bf16")
    assert half.weights != full.weights
    assert half.metrics["loss"] == pytest.approx(full.metrics["loss"], rel=0.1)
    assert {tensor.dtype for tensor in half.encoder.values()} == {np.dtype(np.float32)}


def test_how_it_was_computed_is_recorded_as_it_really_was(once, jobs):
    explicit, fused = once.run("finetune"), jobs.run("finetune", compute={"attention": "fused"})
    how = explicit.document["provenance"]["compute"]
    assert how == {
        "threads": 1, "attention": "explicit", "float32_products": "float32", "compile": False, "cuda_graphs": False,
    }  # fmt: skip
    assert fused.document["provenance"]["compute"] == {**how, "attention": "fused"}
    assert fused.metrics["loss"] == pytest.approx(explicit.metrics["loss"], rel=1e-3)
    assert fused.document["settings"] == explicit.document["settings"]
    assert fused.document["provenance"]["key"] == explicit.document["provenance"]["key"]
    assert fused.document["provenance"]["run_key"] != explicit.document["provenance"]["run_key"]


@pytest.mark.parametrize("steps", [1, 20], ids=["in the last step", "on the way"])
@pytest.mark.parametrize("kind", ["pretrain", "cls_intel", "finetune"])
def test_a_loss_that_is_not_finite_is_final_and_leaves_nothing(jobs, kind, steps, capsys):
    changes = {"learning_rate": 10.0, "weight_decay": 1e30, "optimizer": "adamw", "milestones": [], "steps": steps}
    assert viny_run.main([*jobs.arguments(kind, **changes), "--save-every", "0"]) == 4
    said = capsys.readouterr().err
    assert "viny: error: " in said
    assert "the loss is" in said
    assert "lower learning_rate" in said
    assert not jobs.job(kind, **changes).folder.exists()


def test_coordinates_are_recorded_and_the_job_is_named(once, jobs, capsys):
    assert once.run("finetune").document["coordinates"] == {
        "study": "tiny", "variant": "", "pretrain": 0, "intermediate": "none", "downstream": 24, "seed": 1,
    }  # fmt: skip
    assert viny_run.main(jobs.arguments("finetune", steps=1, milestones=[])) == 0
    assert "finetune/pretrain=0/intermediate=none/downstream=24/seed=1: loss" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_files_are_for_those_whom_the_umask_lets_read(jobs, kind):
    before = os.umask(0o027)
    try:
        folder = jobs.run(kind).folder
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(modes, 0o640)


def forbid_training(monkeypatch):
    monkeypatch.setattr(viny_job, "train", None)


def test_finished_results_are_recognized_without_their_state(jobs, monkeypatch, caplog):
    """As after a copy without dates, or when Snakemake asks again for what is there."""
    done = jobs.run("finetune", **STILL)
    before = done.repeatable
    for state in done.job.state.iterdir():
        state.rename(jobs.folder / state.name)
    for path in done.folder.iterdir():
        os.utime(path, (0, 0))
    forbid_training(monkeypatch)
    run_job(done.job, jobs.study().config.compute)
    assert done.repeatable == before
    assert all(path.stat().st_mtime > 0 for path in done.folder.iterdir())


@pytest.mark.parametrize("changed", ["a bit", "settings", "encoder", "nothing but threads"])
def test_results_of_another_run_are_not_taken_for_this_one(jobs, changed, monkeypatch):
    done = jobs.run("finetune", pretrain=24, **STILL)
    for state in done.job.state.iterdir():
        state.rename(jobs.folder / state.name)
    trained = []
    monkeypatch.setattr(viny_job, "train", lambda *args, **kw: (trained.append(1), train(*args, **kw))[1])
    job, compute = done.job, jobs.study().config.compute
    if changed == "a bit":
        content = bytearray(job.checkpoint.read_bytes())
        content[-1] ^= 1
        job.checkpoint.write_bytes(content)
    elif changed == "settings":
        monkeypatch.setitem(job.__dict__, "key", "0" * 12)
    elif changed == "encoder":
        job.encoder.write_bytes(once_more(job.encoder.read_bytes()))
    else:
        compute = compute.model_copy(update={"threads": 2})
    run_job(job, compute)
    assert bool(trained) == (changed != "nothing but threads")


train = viny_job.train


def once_more(content: bytes) -> bytes:
    """The last bit of an encoder's weights, changed."""
    return content[:-4] + bytes([content[-4] ^ 1]) + content[-3:]


def test_settings_are_recorded_with_the_defaults_of_those_not_given(once):
    settings = once.run("finetune").document["settings"]
    assert settings["finetune"]["epochs"] == SHORT["epochs"]
    assert settings["finetune"]["weight_decay"] == 1e-4
    assert settings["model"] == {**MODEL, "initialization": "timm", "timm": None}
    assert settings["seeding"] == "everything"


def test_metrics_are_json_without_nan(once):
    for kind in KINDS:
        text = (once.run(kind).folder / "metrics.json").read_text()
        json.loads(text, parse_constant=pytest.fail)


def test_a_run_whose_loss_is_not_finite_is_not_trained_again(jobs, monkeypatch):
    from viny.errors import FinalError

    job = jobs.job("finetune", learning_rate=10.0, weight_decay=1e30)
    compute = jobs.study().config.compute
    with pytest.raises(FinalError, match="the loss is"):
        viny_job.run_job(job, compute)
    monkeypatch.setattr(viny_job, "train", lambda *_: pytest.fail("it was trained again"))
    with pytest.raises(FinalError, match="it failed so before"):
        viny_job.run_job(job, compute)
