"""On a real GPU: steps launched as a graph, interrupted runs and repeated runs end with the same bits.

They skip where there is none.
"""

import os
import signal

import pytest
import torch
from processes import at_step
from tiny import KINDS, Done, Jobs

from viny.job import run_job
from viny.training import loop
from viny.training.loop import Interrupted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
# Rates that are the same in single precision, in which a captured step reads them; several passes with a smaller last
# batch.
HOW = {"learning_rate": 2**-8, "gamma": 0.5, "epochs": 6, "batch_size": 5}
CAPTURED, PLAIN = ({"device": "cuda", "cuda_graphs": captured} for captured in (True, False))


def run(jobs: Jobs, kind: str, name: str, precision: str, **compute) -> Done:
    return jobs.run(kind, name, **HOW, precision=precision, compute=compute)


@pytest.mark.parametrize("attention", ["fused", "explicit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_runs_repeated_and_captured_end_with_the_same_bits(kind, precision, attention, jobs):
    first = run(jobs, kind, "first", precision, **PLAIN, attention=attention)
    assert first.document["provenance"]["device"] == "cuda"
    assert run(jobs, kind, "again", precision, **PLAIN, attention=attention).weights == first.weights
    captured = run(jobs, kind, "captured", precision, **CAPTURED, attention=attention)
    assert captured.repeatable == first.repeatable


@pytest.mark.parametrize("how", [PLAIN, CAPTURED], ids=["kernel by kernel", "captured"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_carries_on_to_the_same_bits(kind, how, jobs, monkeypatch):
    whole = run(jobs, kind, "whole", "fp32", **how)
    job = jobs.job(kind, "part", **HOW, precision="fp32", compute=how)
    compute = jobs.study("part", compute=how).config.compute
    if job.upstream:
        run_job(job.upstream, compute)
    for step in (2, 9):
        with monkeypatch.context() as changed, pytest.raises(Interrupted):
            changed.setattr(loop.Progress, "advance", loop.Progress.advance)  # put back afterwards
            at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))()
            run_job(job, compute)
    run_job(job, compute)
    result = Done(job)
    assert result.document["cost"]["resumes"] == 2
    assert result.repeatable == whole.repeatable


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_computes_what_a_cpu_does(kind, jobs):
    gpu = run(jobs, kind, "gpu", "fp32", **PLAIN, matmul_precision="highest", attention="explicit")
    cpu = run(jobs, kind, "cpu", "fp32", device="cpu", matmul_precision="highest", attention="explicit")
    losses = [[row["loss"] for row in done.history] for done in (cpu, gpu)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_geometry_on_a_gpu_is_that_of_a_cpu(jobs):
    found = []
    for device in ("cpu", "cuda"):
        how = {"device": device, "matmul_precision": "highest", "attention": "explicit"}
        job = jobs.job("geometry", device)
        run_job(job.upstream, jobs.study(device, compute={"device": "cpu"}).config.compute)
        run_job(job, jobs.study(device, compute=how).config.compute)
        assert Done(job).document["provenance"]["device"] == device
        found.append({name: value for name, value in Done(job).metrics.items() if isinstance(value, float)})
    assert found[0]
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=0.02)  # a probe's accuracy moves by whole patches
