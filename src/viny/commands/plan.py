"""`viny plan`: what a run would do, how long it would take and how much disk it needs."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from rich.filesize import decimal
from rich.text import Text

from viny.advice import advice
from viny.commands import estimates, terminal
from viny.commands.estimates import Rate, pace
from viny.commands.parser import Parser, above_zero, positive
from viny.commands.study import study_of
from viny.commands.terminal import plural, span
from viny.errors import command
from viny.grid import Job, StoreSpec, Study
from viny.logs import setup
from viny.survey import survey


@dataclass(frozen=True)
class Line:
    """One kind of job: how many there are and would run, and what these cost; None where it is not known.

    Attributes:
        samples: images shown to models, as far as known. seconds: of device time.
        rate: images per second of training. source: where the times are from.
    """

    kind: str
    jobs: int
    to_run: int
    samples: int
    seconds: float | None = None
    rate: float | None = None
    source: str = ""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        stores: number of stores to decode first, which takes little time. lines: each kind of job.
        missing: files that it needs and that are not there; no times are estimated then.
        unknown: why the time of some jobs is not known; those of the whole are None then.
        advice: settings that cannot pay on this machine.
        disk_bytes: what stores and results need. free_bytes: what there is.
    """

    study: str
    device: str
    jobs_at_once: int
    stores: int
    lines: tuple[Line, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    advice: tuple[str, ...]
    device_seconds: float | None
    elapsed_seconds: float | None
    disk_bytes: int
    free_bytes: int


def parser() -> Parser:
    """The command line."""
    text = "Say what a run would do, how long it would take and how much disk it needs."
    codes = "exit codes: 0 done, 1 images or encoders are missing, 2 wrong usage"
    made = Parser("plan", text, "mine.yaml", "mine.yaml --detect 2", codes=codes)
    made.add_study()
    made.add_argument("--jobs", type=positive, metavar="N", help="jobs at once (default: as many as fit here)")
    made.add_argument("--detect", type=above_zero, metavar="POINTS", help="only say how many seeds find a difference")
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print a plan; 1 if something that a run needs is missing."""
    args = parser().parse_args(argv)
    setup()
    study = study_of(args)
    if args.detect:
        from viny.analysis import observed, power

        tables, seeds = observed.from_study(study), len(study.config.grid.seeds)
        if args.json:
            sd = power.run_sd(tables.grid) or power.PUBLISHED_SD
            needed = power.seeds_needed(args.detect, sd, tables.confidence)
            terminal.print_json({"study": study.name, "points": args.detect, "run_sd": sd, "seeds_needed": needed})
        else:
            print(power.advice(tables.grid, args.detect, seeds, tables.confidence))
        return 0
    plan = make_plan(study, args.jobs)
    if args.json:
        terminal.print_json(asdict(plan))
    else:
        _show(plan)
    return int(bool(plan.missing))


def make_plan(study: Study, at_once: int | None = None) -> Plan:
    """Find out what there is to do and how long it takes, on this machine and `at_once` jobs at a time."""
    compute, pending = study.config.compute, survey(study).pending
    device, fitting = estimates.this_device(compute)
    at_once = at_once or fitting
    needed = {job.store for job in pending}
    stores = [store for store in study.stores if store in needed and not store.manifest.exists()]
    missing = tuple(dict.fromkeys(_missing(study, pending, stores)))
    rates: dict[str, Rate] = {}
    unknown: list[str] = []
    if not missing:
        rates = estimates.Finished(pending, device, compute.threads).add_all(study.folder.parent).rates()
        others = [job for job in pending if pace(job) not in rates]
        if others:
            from viny.commands.calibrate import calibrate  # needs torch, which takes seconds

            measured, unknown = calibrate(others, compute)
            rates |= measured
        unsized = dict.fromkeys(job.store.name for job in pending if not estimates.samples(job))
        unknown += [f"the number of images of {name}, until it is decoded" for name in unsized]
    known = estimates.seconds_of(pending, rates)
    whole = len(known) == len(pending) and not missing
    kinds = dict.fromkeys(job.kind for job in study.jobs.values())
    return Plan(
        study=study.name,
        device=device,
        jobs_at_once=at_once,
        stores=len(stores),
        lines=tuple(_line(kind, study, pending, known, rates) for kind in kinds),
        missing=missing,
        unknown=tuple(dict.fromkeys(unknown)),
        advice=tuple(advice(study.config)),
        device_seconds=sum(known.values()) if whole else None,
        elapsed_seconds=estimates.elapsed(known, at_once) if whole else None,
        disk_bytes=_disk(stores, [job for job in pending if not job.metrics.exists()]),
        free_bytes=shutil.disk_usage(next(path for path in study.folder.absolute().parents if path.exists())).free,
    )


def _missing(study: Study, pending: Sequence[Job], stores: Sequence[StoreSpec]) -> Iterator[str]:
    """Images and encoders that are not there."""
    for store in stores:
        loaded = study.config.data.download and store.spec.layout == "pets"
        if not store.procedural and not loaded and not store.source.exists():
            yield f"{store.source}, the images of the data set {store.name}"
    for job in pending:
        if job.encoder and not job.upstream and not job.encoder.exists():
            yield f"{job.encoder}, the encoder {job.coordinates['pretrain']}"


def _line(kind: str, study: Study, pending: Sequence[Job], known: dict[Job, float], rates: dict[str, Rate]) -> Line:
    jobs, total = [job for job in pending if job.kind == kind], sum(job.kind == kind for job in study.jobs.values())
    samples = sum(map(estimates.samples, jobs))
    if not jobs or any(job not in known for job in jobs):
        return Line(kind, total, len(jobs), samples)
    training = sum(rates[pace(job)].image * estimates.samples(job) for job in jobs)
    sources = "; ".join(dict.fromkeys(rates[pace(job)].source for job in jobs))
    rate = samples / training if training else None
    return Line(kind, total, len(jobs), samples, sum(known[job] for job in jobs), rate, sources)


def _disk(stores: Sequence[StoreSpec], jobs: Sequence[Job]) -> int:
    """Bytes of decoded images and, about, of results: weights as float32 (not of timm's models) and some pictures."""
    needed = 0
    for store in stores:
        masks = store.spec.masks is not None or "pets" in (store.spec.layout, store.name)
        needed += sum(estimates.store_images(store) or ()) * store.pixels**2 * (4 if masks else 3)
    for job in jobs:
        model = job.model
        needed += 60 * model.image_size**2
        if job.stage != "geometry" and not model.timm:
            block = 4 * model.heads * model.head_width + 2 * model.mlp_width
            patches = (model.image_size // model.patch_size) ** 2 + 3 * model.patch_size**2
            needed += 4 * model.width * (model.depth * block + patches)
    return needed


def _show(plan: Plan) -> None:
    out = terminal.console()
    out.print(Text.assemble((plan.study, "bold"), f" on {plan.device}"), "")
    rows = [["stage", "to run", "samples", "device time", "images/s", "rate from"]]
    for line in plan.lines:
        rate = f"{line.rate:,.0f}" if line.rate else ""
        shown = (
            [f"{line.samples:,}", "" if plan.missing else span(line.seconds), rate, line.source] if line.to_run else []
        )
        rows.append([line.kind.removeprefix("intermediate "), f"{line.to_run:,} of {line.jobs:,}", *shown])
    terminal.print_table(out, rows)
    out.print()
    if plan.stores:
        out.print(f"{plural(plan.stores, 'store')} of images to decode first")
    for sentence in plan.advice:
        out.print(sentence, style="yellow")
    for what in plan.missing:
        out.print(f"missing: {what}", style="bold red")
    if plan.missing:
        out.print("Put it there, or change the study; how long a run takes is estimated once all is there.")
        return
    if not any(line.to_run for line in plan.lines):
        out.print("All results are there; snakemake would only make the analysis again if it is outdated.")
        return
    time = f"{span(plan.elapsed_seconds)} with {plural(plan.jobs_at_once, 'job')} at once, if each keeps its rate"
    if plan.device_seconds is not None:
        time += f" ({plan.device_seconds / 3600:,.2f} hours of device time)"
    out.print(f"time  {time}")
    out.print(f"disk  {decimal(plan.disk_bytes)} of {decimal(plan.free_bytes)} free")
    if plan.disk_bytes > plan.free_bytes:
        out.print("That is more disk than there is: make room, or change `results` or `stores`.", style="bold red")
    for what in plan.unknown:
        out.print(f"unknown: {what}", style="yellow")
