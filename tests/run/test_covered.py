"""The fingerprint of a task covers all code that really runs when its numbers are computed."""

import sys
from pathlib import Path

import pytest
from tiny import KINDS

from viny import fingerprint
from viny.fingerprint import MASKS, ROOTS, SILENT, SOURCE, TRAINING, reachable

NUMERICAL = ("tasks", "encoders", "training", "datasets.augment", "datasets.rows", "datasets.decode", "datasets.order")
# What only shows, keeps or measures the cost of a run, in modules that also compute.
APART = {f"training.device:{name}" for name in ("device_name", "peak_memory_mb", "float32_products")}
# What only picks the attention kernel, which is recorded and compared.
APART |= {"training.device:attention_kernel"}


def definitions_run(action):
    """`module:definition` of all code of viny's numerical modules that runs during a call."""
    found = set()

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and SOURCE in path.parents:
            name = frame.f_code.co_qualname.split(".")[0]
            if not name.startswith("<"):
                found.add((".".join(path.relative_to(SOURCE).with_suffix("").parts), name))

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    return {place for place in found if place[0].startswith(NUMERICAL) and not place[0].startswith(SILENT)}


@pytest.mark.parametrize("kind", [*KINDS, "geometry"])
def test_the_fingerprint_covers_what_runs(jobs, kind):
    job = jobs.job(kind, pretrain=24)
    ran = definitions_run(lambda: jobs.run(kind, "covered", pretrain=24))
    covered = set()
    for each in (job, job.upstream):
        if each is not None:
            covered |= reachable((f"tasks.{each.task}", "encoders.vit", *ROOTS.get(each.task, (*TRAINING, *MASKS))))
    missing = {f"{module}:{name}" for module, name in ran - covered} - APART
    assert {module for module, _ in ran} >= {"encoders.vit", f"tasks.{job.task}"}
    assert not {place for place in missing if not place.startswith(("tasks.__init__", "encoders.__init__"))}


def test_what_is_decoded_is_covered(tmp_path):
    from tiny import Jobs

    from viny.run import make_store

    spec = Jobs(tmp_path / "stores", tmp_path).job("finetune").store
    ran = definitions_run(lambda: make_store(spec, workers=1))
    assert ("datasets.decode", "decode_mask") in ran
    assert not ran - reachable(fingerprint.ROOTS["decoding"])
