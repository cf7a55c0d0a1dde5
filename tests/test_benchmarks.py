"""The benchmarks run, say what they document, and compare the same work."""

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu, together
from benchmarks.__main__ import NAMES, main
from benchmarks.measure import ROOT, Group, Options, compare
from benchmarks.planning import GRIDS, grid
from benchmarks.step import PLAIN, TINY, finetuning, plain, simmim, stable_pretraining_simmim, transformers_vit
from viny.config import load
from viny.config.sections import Model
from viny.grid import Study

MODEL = Model(**TINY)
IMAGES = torch.randn(3, 3, MODEL.image_size, MODEL.image_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_quick_run_says_what_was_measured_and_on_what(name, tmp_path, capsys):
    assert main([name, "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {
        "schema", "quick", "rounds", "measured", "commit", "machine", "versions", "benchmarks",
    }  # fmt: skip
    table = capsys.readouterr().out
    for work, group in found["benchmarks"].items():
        assert set(group) == {"unit", "peer", "note", "variants"}
        assert group["peer"] in group["variants"]
        for variant, measured in group["variants"].items():
            assert set(measured) == {"median", "ratio", "values"}
            assert set(measured["ratio"]) == {"median", "min", "max"}
            assert f"| {work} | {variant} |" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stepp"], "there is no benchmark stepp"),
        (["step", "--rounds", "0"], "--rounds must be at least 1"),
        (["demo"], "demo and --against FOLDER, a checkout with a Snakefile, go together"),
        (["demo", "--against", str(ROOT / "docs")], "a checkout with a Snakefile"),
        (["step", "--against", str(ROOT)], "go together"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_variants_take_turns_and_are_compared_within_a_round():
    order = []

    def case(name, speeds):
        speeds = iter(speeds)
        return lambda: order.append(name) or next(speeds)

    variants = {"peer": case("peer", [10.0, 5.0]), "ours": case("ours", [20.0, 30.0])}
    group = compare("work", "images/s", variants, Options(rounds=2))
    assert order == ["peer", "ours", "ours", "peer"]
    assert group.peer == "peer"
    assert group.ratios("ours") == [2.0, 6.0]
    assert Group("work", "s", group.values).ratios("ours") == [0.5, 1 / 6]


def test_caches_are_filled_before_anything_counts():
    speeds = iter([1.0, 2.0, 3.0])
    group = compare("work", "s", {"alone": lambda: next(speeds)}, Options(rounds=2, quick=False))
    assert group.values == {"alone": [2.0, 3.0]}


def test_what_does_not_run_here_is_left_out_with_a_note():
    variants = {"runs": lambda: 1.0, "fails": lambda: 1 / 0}
    group = compare("work", "s", variants, Options(quick=False), "as it is")
    assert group.values == {"runs": [1.0]}
    assert group.note == "as it is; fails failed (ZeroDivisionError: division by zero)"


@pytest.mark.parametrize("computations", [simmim, finetuning])
def test_the_plain_peer_computes_the_same_loss_and_gradients(computations):
    torch.set_float32_matmul_precision("highest")
    found = computations(MODEL, IMAGES)
    ours, theirs = found["viny"], found[PLAIN]
    for each in (ours, theirs):
        each.loss().backward()
    torch.testing.assert_close(ours.loss(), theirs.loss())
    gradients = dict(ours.model.named_parameters())
    for name, parameter in theirs.model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)


def test_the_peer_of_transformers_has_wide_heads_and_the_same_definition_of_the_loss():
    pytest.importorskip("transformers")
    model = transformers_vit(MODEL)
    assert model.vit.layers[0].attention.q_proj.out_features == MODEL.heads * MODEL.head_width
    patches = (MODEL.image_size // MODEL.patch_size) ** 2
    mask = torch.arange(patches).expand(len(IMAGES), -1) % 2 == 0
    found = model(IMAGES, bool_masked_pos=mask)
    cut = [plain.patchify(each, MODEL.patch_size) for each in (found.reconstruction, IMAGES)]
    torch.testing.assert_close(found.loss, (cut[0] - cut[1])[mask].abs().mean(), rtol=1e-4, atol=1e-6)


def test_the_peer_of_stable_pretraining_has_the_same_products():
    pytest.importorskip("stable_pretraining")
    theirs, ours = stable_pretraining_simmim(MODEL), simmim(MODEL, IMAGES)[PLAIN].model
    shapes = [
        sorted(p.shape for p in model.parameters() if p.dim() == 2)
        for model in (theirs.encoder.blocks, ours.encoder.blocks)
    ]
    assert shapes[0] == shapes[1]
    assert theirs(IMAGES).loss.isfinite()


@pytest.mark.parametrize("cells", GRIDS)
def test_planned_grids_have_as_many_jobs_as_the_bare_snakefile(cells):
    sizes, labels, seeds = GRIDS[cells]
    study = Study(load(grid(sizes, labels, seeds)))
    assert len(study.cells) == cells
    assert len(study.jobs) == cells + 2 * sizes * seeds


def test_the_gpu_script_runs_on_a_cpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "AT_ONCE", (1,))
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    stages = {"pretrain", "intermediate cls_intel", "finetune"}
    at_once = "pre-trainings at once, tiny model, fp32"
    paper = set(found) - stages - {at_once, "cells of 250 labels"}
    assert len(paper) == 1
    for name in stages | paper:
        assert {"fp32", "bf16", "matrix products alone, fp32"} <= set(found[name]["variants"])
    assert set(found[at_once]["variants"]) == {"one run", "3 processes", "3 runs on streams", "3 runs stacked"}
    assert set(found["cells of 250 labels"]["variants"]) == {"1 at once"}
    assert "| finetune | bf16 |" in capsys.readouterr().out


def test_stacked_runs_are_the_runs_one_by_one():
    runs = together.Runs(MODEL, "fp32", Options())
    several = [runs.problem(seed) for seed in range(3)]
    stacked = runs.stacked(several)
    one_by_one = [runs.step(*each) for each in several]
    for _ in range(3):
        losses = [step().clone() for step in one_by_one]
        assert len({loss.item() for loss in losses}) == 3
        torch.testing.assert_close(stacked(), sum(losses))


def test_the_papers_hours_follow_from_the_rates_of_its_stages():
    jobs = Study(load(gpu.PAPER)).jobs.values()
    rates = {kind: 1000.0 * (i + 1) for i, kind in enumerate(dict.fromkeys(job.kind for job in jobs))}
    stages = {kind: Group(kind, "images/s", {"fp32": [rate]}) for kind, rate in rates.items()}
    seconds = sum(job.settings.samples_seen(job.images or 14034) / rates[job.kind] for job in jobs)
    assert gpu.paper(stages).values["fp32"] == pytest.approx([seconds / 3600])


def test_on_a_gpu_captured_and_compiled_steps_are_measured_too():
    options = Options(device=torch.device("cuda"))
    assert len(gpu.ways(options)) == 4
    ways = gpu.ways(replace(options, compiled=True))
    assert len(ways) == 8
    for name, execution in ways.items():
        assert (execution.capture is not None) == ("captured" in name)
        assert execution.compiled == ("compiled" in name)
        assert name.startswith(execution.precision)
