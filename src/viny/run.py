"""`viny run`: one job of a study, of any stage, or one of its stores. This is what Snakemake runs.

viny run finetune/pretrain=0/intermediate=none/downstream=32/seed=1 [--configfile FILE ...] [--config KEY=VALUE ...]
viny run stores/pets-1f0c9a7e/32px-seed0-test200-train128
"""

from collections.abc import Sequence

from viny import logs
from viny.commands.study import study_of
from viny.datasets.build import build, locked
from viny.datasets.procedural import generate
from viny.errors import FinalError, VinyError, command, did_you_mean
from viny.grid import PROCEDURAL, StoreSpec
from viny.logs import log
from viny.preload import parser


def make_store(spec: StoreSpec, download: bool = False, workers: int | None = None) -> None:
    """Decode the images of a store, after generating them if they are not real; see `viny.datasets.build.build`."""
    if spec.procedural and spec.recipe:
        folder = PROCEDURAL / spec.recipe
        with locked(folder.with_name(f".{spec.recipe}.lock")):
            if not spec.source.exists():
                generate(spec.name, spec.procedural, folder)
    build(spec, download, workers)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command; see the head of this module."""
    args = parser().parse_args(argv)
    logs.setup(args.log)
    try:
        study = study_of(args)
    except VinyError as error:
        raise FinalError(str(error)) from error
    config = study.config
    stores = {f"stores/{store.place}": store for store in study.stores}
    if args.name in stores:
        make_store(stores[args.name], config.data.download, args.workers)
        return 0
    job = study.jobs.get(args.name)
    if job is None:
        hint = did_you_mean(args.name, [*study.jobs, *stores])
        raise FinalError(f"{args.name} is neither a job nor a store of the study {study.name}{hint}")
    if not job.store.manifest.exists():
        make_store(job.store, config.data.download, args.workers)
    from viny.job import run_job  # with torch, which stores need not wait for
    from viny.training.loop import Interrupted

    try:
        run_job(job, config.compute, args.save_every)
    except Interrupted as stop:
        log.info(f"{job.name}: {stop}; the state is saved, the same command carries on")
        return 128 + stop.signum
    return 0
