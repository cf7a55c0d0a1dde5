"""Settings that cannot pay are said, and no others."""

import pytest

from viny.advice import advice
from viny.config import load

ZEN3, ZEN4 = "flags\t\t: fpu avx2\n", "flags\t\t: fpu avx2 avx512_bf16\n"


def said(tmp_path, cpuinfo=ZEN3, **sections):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{cpuinfo}\n")
    sections["compute"] = {"device": "cpu"} | sections.get("compute", {})
    return advice(load(sections), path)


def test_the_defaults_need_no_advice(tmp_path):
    assert said(tmp_path) == []


@pytest.mark.parametrize("cpuinfo", [ZEN3, "Features\t: fp asimd\n"])
def test_bfloat16_in_software_is_said_with_the_stages_that_ask_for_it(tmp_path, cpuinfo):
    [sentence] = said(
        tmp_path, cpuinfo, pretrain={"precision": "bf16"}, intermediate={"cls_intel": {"precision": "bf16"}}
    )
    assert sentence.startswith("precision: bf16 (pretrain, intermediate.cls_intel): ")
    assert "fp32" in sentence


@pytest.mark.parametrize("cpuinfo", [ZEN4, "Features\t: fp bf16\n", "vendor_id\t: unknown\n"])
def test_bfloat16_in_hardware_or_of_a_processor_that_does_not_say_is_not(tmp_path, cpuinfo):
    assert said(tmp_path, cpuinfo, finetune={"precision": "bf16"}) == []


def test_compiling_and_threads_on_a_cpu_are_said(tmp_path):
    sentences = said(tmp_path, compute={"compile": True, "threads": 2})
    assert [sentence.partition(":")[0] for sentence in sentences] == ["compute.compile", "compute.threads"]


def test_a_gpu_needs_no_advice(tmp_path):
    how = {"device": "cuda", "compile": True, "threads": 2}
    assert said(tmp_path, compute=how, finetune={"precision": "bf16"}) == []
