"""From a study file to its jobs, fully resolved: settings, images, encoder, seed, and the name of every file.

Paths say what they hold, one `key=value` per folder:

    <results>/<study>/pretrain/pretrain=45000/seed=1/
    <results>/<study>/intermediate/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/finetune/pretrain=45000/intermediate=cls_intel/downstream=250/seed=1/
    <results>/<study>/geometry/pretrain=45000/intermediate=cls_intel/seed=1/
    <results>/<study>/variants/no_norm/finetune/pretrain=45000/...     runs of a variant alone
    <stores>/pets-1f0c9a7e/128px-seed0-test1000-train6000/
"""

from viny.grid.jobs import CHECKPOINTS, STAGES, Job
from viny.grid.stores import PROCEDURAL, PROCEDURAL_LAYOUT, StoreSpec
from viny.grid.study import Study

__all__ = ["CHECKPOINTS", "PROCEDURAL", "PROCEDURAL_LAYOUT", "STAGES", "Job", "StoreSpec", "Study"]
