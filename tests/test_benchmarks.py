"""The benchmarks run, say what they document, and compare the same work."""

import json

import pytest
import torch

from benchmarks import gpu, plain
from benchmarks.__main__ import DEFAULT, main
from benchmarks.measure import Group, in_turns
from benchmarks.planning import GRIDS, grid
from benchmarks.step import TINY, finetuning, pretraining, transformers_vit
from viny.study import Study

IMAGES = torch.randn(3, 3, TINY["image_size"], TINY["image_size"], generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", DEFAULT)
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


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["stepp"])
    assert "there is no benchmark stepp" in capsys.readouterr().err


def test_variants_take_turns_and_are_compared_within_a_round():
    order = []

    def case(name, speeds):
        speeds = iter(speeds)
        return lambda: order.append(name) or next(speeds)

    values = in_turns({"ours": case("ours", [20.0, 30.0]), "peer": case("peer", [10.0, 5.0])}, rounds=2)
    assert order == ["ours", "peer", "peer", "ours"]
    assert Group("work", "images/s", "peer", values).ratios("ours") == [2.0, 6.0]
    assert Group("work", "s", "peer", values).ratios("ours") == [0.5, 1 / 6]


@pytest.mark.parametrize("losses", [pretraining, finetuning])
def test_the_plain_peer_computes_the_same_loss_and_gradients(losses):
    torch.set_float32_matmul_precision("highest")
    found = losses(TINY, IMAGES)
    ours, theirs = found["viny"], found["plain PyTorch, fp32"]
    for _, loss in (ours, theirs):
        loss().backward()
    torch.testing.assert_close(ours[1](), theirs[1]())
    gradients = dict(ours[0].named_parameters())
    for name, parameter in theirs[0].named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)


def test_the_plain_peer_has_the_papers_size():
    assert sum(parameter.numel() for parameter in plain.Encoder().parameters()) == 4_842_880


def test_the_peer_of_transformers_has_wide_heads_and_the_same_definition_of_the_loss():
    pytest.importorskip("transformers")
    model = transformers_vit(TINY)
    assert model.vit.layers[0].attention.q_proj.out_features == TINY["heads"] * TINY["head_width"]
    patches = (TINY["image_size"] // TINY["patch_size"]) ** 2
    mask = torch.arange(patches).expand(len(IMAGES), -1) % 2 == 0
    found = model(IMAGES, bool_masked_pos=mask)
    cut = plain.PatchEmbed(TINY["patch_size"], TINY["width"]).cut
    difference = (cut(found.reconstruction) - cut(IMAGES))[mask].abs().mean()
    torch.testing.assert_close(found.loss, difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cells", GRIDS)
def test_planned_grids_have_as_many_cells_as_they_say(cells):
    assert len(Study.from_config(grid(*GRIDS[cells])).cells) == cells


def test_the_gpu_script_runs_on_a_cpu(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "AT_ONCE", (1,))
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"device", "matmul_tflops", "stages", "plain", "cells", "paper"} <= set(found)
    assert set(found["stages"]) == set(gpu.STAGES)
    assert set(found["plain"]) == {"arithmetic", "loader", "both"}
    assert set(found["cells"]["1"]) == {"seconds", "cells_per_hour"}
    assert sum(found["paper"]["image_passes"].values()) > 150e6
    assert set(found["paper"]["hours"]) >= {"fp32", "bf16", "plainly"}
    assert "| finetune | bf16 |" in capsys.readouterr().out


def test_on_a_gpu_recorded_and_compiled_steps_are_measured_too():
    ways = gpu.variants(torch.device("cuda"))
    assert len(ways) == 6
    for name, execution in ways.items():
        assert (execution.recorder is not None) == ("recorded" in name)
        assert execution.compiled == ("compiled" in name)
        assert name.startswith(execution.precision)
