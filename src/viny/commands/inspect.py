"""`viny inspect`: what is in the data sets of a study, before anything is trained."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from viny.commands import contactsheet, terminal
from viny.commands.contactsheet import Tile
from viny.commands.parser import Parser, positive
from viny.commands.study import study_of
from viny.commands.terminal import plural, table
from viny.datasets.build import order_for_testing, order_for_training
from viny.datasets.layouts import list_images
from viny.datasets.leaks import Leak, described, twins
from viny.datasets.listing import Entry, Listing
from viny.datasets.parallel import Decoder, decoding
from viny.datasets.procedural import generate
from viny.datasets.store import IGNORE
from viny.datasets.trees import some
from viny.errors import VinyError, command
from viny.grid import PROCEDURAL, StoreSpec, Study
from viny.logs import Progress, setup

WHOLE = 20_000  # of larger sets only the images that the grid uses are read, and the first of these compared
TILES = 24  # images on a contact sheet
SHOWN = 20  # classes in a table


@dataclass
class ClassShare:
    """A class, or the ignored pixels: how many images show it, and its share of all pixels (or images)."""

    name: str
    images: int
    share: float


@dataclass
class Report:
    """What was found in a data set.

    Attributes:
        used: stages that read it. images: in the set. read: of those, how many were decoded here.
        widths, heights: smallest and largest, in pixels. classes: of the masks or labels.
        ignored: pixels that do not count; None without masks.
        left_out: number of files that are no part of the set, by what they are.
        twins: pairs that look the same, among the first WHOLE images. leaks: training images like test images.
        bad: images that cannot be used, with the reasons.
        problems: what would stop a run. notes: what may be intended. sheet: file of the contact sheet.
    """

    name: str
    location: str
    used: list[str]
    images: int = 0
    read: int = 0
    widths: tuple[int, int] | None = None
    heights: tuple[int, int] | None = None
    classes: list[ClassShare] = field(default_factory=list)
    ignored: ClassShare | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    twins: list[tuple[str, str]] = field(default_factory=list)
    leaks: list[Leak] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sheet: str = ""


class Look(NamedTuple):
    """What is kept of a decoded image: size, signature (776,), pixels of each class and of IGNORE (256,) or None."""

    width: int
    height: int
    signature: np.ndarray
    pixels: np.ndarray | None


class Inspected:
    """A data set as it was read.

    Args:
        specs: its stores in the study, with the numbers of labeled training images that jobs take from them.
        stages: that read it.
    """

    def __init__(self, specs: dict[StoreSpec, list[int]], stages: list[str], workers: int | None):
        self.specs = specs
        self.spec = min(specs, key=lambda spec: spec.pixels)
        self.report = Report(self.spec.name, str(self.spec.source), stages)
        self.looks: dict[str, Look] = {}
        self.listing: Listing | None = None
        try:
            if self.spec.procedural and self.spec.recipe and not self.spec.source.exists():
                generate(self.spec.name, self.spec.procedural, PROCEDURAL / self.spec.recipe)
            self.listing = list_images(self.spec)
        except VinyError as error:
            self.report.problems.append(str(error))
            return
        self._read(self.listing, workers)
        self._describe(self.listing)
        if self.looks:
            self._describe_looks(self.listing)

    def rows(self, spec: StoreSpec) -> tuple[list[Entry], list[Entry]]:
        """The test and training images of a store, without bad ones."""
        if self.listing is None:
            return [], []
        candidates, tests = order_for_testing(self.listing, spec.tests, spec.split_seed)
        good = [entry for entry in candidates if entry.name in self.looks][:tests]
        training = order_for_training(self.listing, good, spec.split_seed)
        return good, [entry for entry in training if entry.name in self.looks][: spec.images]

    def signatures(self, entries: Sequence[Entry]) -> np.ndarray:
        """Signatures (N, 776) of some of its images."""
        return np.stack([self.looks[entry.name].signature for entry in entries])

    def draw(self, folder: Path) -> None:
        """Write a contact sheet of the first training images."""
        if self.listing is None or not self.looks:
            return
        listing, masked = self.listing, self.listing.masks is not None
        entries = list(dict.fromkeys(entry for spec in self.specs for part in self.rows(spec)[::-1] for entry in part))
        decoder = Decoder(listing.images, listing.masks, listing.values, contactsheet.PIXELS)
        tiles = []
        for entry, row in zip(entries, decoder(entries[:TILES]), strict=False):
            name = listing.classes[entry.label] if listing.classes and not masked else entry.name
            if row.image is not None:
                tiles.append(Tile(row.image, row.mask, row.width / row.height, name[-32:]))
        path = folder / f"{self.spec.name}.png"
        contactsheet.draw(tiles, listing.mask_classes, f"{self.spec.name}: {listing.location}", path)
        self.report.sheet = str(path)

    def _read(self, listing: Listing, workers: int | None) -> None:
        entries = listing.entries
        if len(entries) > WHOLE:
            planned: dict[Entry, None] = {}
            for spec in self.specs:
                candidates, tests = order_for_testing(listing, spec.tests, spec.split_seed)
                training = order_for_training(listing, candidates[:tests], spec.split_seed)
                planned |= dict.fromkeys(candidates[:tests] + training[: spec.images])
            entries = list(planned)
        decoder = Decoder(listing.images, listing.masks, listing.values, self.spec.pixels, self.spec.resize)
        progress = Progress(f"read {self.spec.name}", len(entries))
        with decoding(decoder, len(entries), workers) as decode:
            for entry, row in decode(entries):
                progress.advance(1)
                if row.signature is None:
                    self.report.bad.append((entry.name, row.bad))
                else:
                    pixels = None if row.mask is None else np.bincount(row.mask.ravel(), minlength=256)
                    self.looks[entry.name] = Look(row.width, row.height, row.signature, pixels)
        progress.finish()
        self.report.read = len(entries)

    def _describe(self, listing: Listing) -> None:
        report = self.report
        report.images, report.left_out = len(listing.entries), dict(listing.ignored.most_common())
        bad = report.problems if self.spec.bad_images == "stop" else report.notes
        if report.bad:
            reasons = some((f"{name} {reason}" for name, reason in report.bad), 3)
            bad.append(f"{plural(len(report.bad), 'image')} cannot be used: {reasons}")
        if listing.broken:
            bad.append(f"{plural(len(listing.broken), 'link')} to nothing: {some(listing.broken)}")
        for spec in self.specs:
            test, training = map(len, self.rows(spec))
            tests, images = (1 if spec.tests is None or listing.published else spec.tests), spec.images or 1
            if test < tests or training < images:
                wanted = f"{tests:,} test and {images:,} training images"
                report.problems.append(f"{wanted} are needed, {test:,} and {training:,} can be used")

    def _describe_looks(self, listing: Listing) -> None:
        report, names, every = self.report, list(self.looks), list(self.looks.values())
        report.widths = min(look.width for look in every), max(look.width for look in every)
        report.heights = min(look.height for look in every), max(look.height for look in every)
        pairs = twins(np.stack([look.signature for look in every[:WHOLE]]))  # the time grows with the square
        report.twins = [(names[one], names[other]) for one, other in pairs]
        images, amounts = self._tally(listing, [entry for entry in listing.entries if entry.name in self.looks])
        shares = amounts / amounts.sum() if amounts.sum() else amounts
        classes = listing.mask_classes or listing.classes
        report.classes = [ClassShare(name, int(images[n]), float(shares[n])) for n, name in enumerate(classes)]
        if listing.masks:
            report.ignored = ClassShare("ignored", int(images[IGNORE]), float(shares[IGNORE]))
        absent = {each.name for each in report.classes if not each.images}
        if absent:
            report.notes.append(f"no image shows the classes {some(sorted(absent))}")
        for spec, sizes in self.specs.items():
            test, training = self.rows(spec)
            subsets = {f"the first {size:,} training images": training[:size] for size in sizes}
            subsets |= {f"the {len(test):,} test images": test} if sizes else {}
            for words, entries in subsets.items():
                images, _ = self._tally(listing, entries)
                missing = [name for n, name in enumerate(classes) if not images[n]]
                if set(missing) - absent:
                    report.notes.append(f"{words} show none of the classes {some(missing)}")

    def _tally(self, listing: Listing, entries: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray]:
        """How many images show each class, and how many pixels; of labels, twice how many images have it."""
        if not listing.masks:
            labels = np.array([entry.label for entry in entries if entry.label >= 0], dtype=np.int64)
            counts = np.bincount(labels, minlength=len(listing.classes))
            return counts, counts
        pixels = np.array([self.looks[entry.name].pixels for entry in entries]).reshape(-1, 256)
        return (pixels > 0).sum(axis=0), pixels.sum(axis=0)


def inspect(study: Study, output: Path, workers: int | None = None) -> list[Report]:
    """Read the data sets of a study, and write a contact sheet of each into the folder `output`."""
    specs: dict[str, dict[StoreSpec, list[int]]] = defaultdict(lambda: defaultdict(list))
    stages: dict[str, list[str]] = defaultdict(list)
    for job in study.jobs.values():
        sizes, kinds = specs[job.store.name][job.store], stages[job.store.name]
        if job.stage in ("intermediate", "finetune") and job.images and job.images not in sizes:
            sizes.append(job.images)
        if job.kind not in kinds:
            kinds.append(job.kind)
    found = {name: Inspected(of, stages[name], workers) for name, of in specs.items()}
    for spec in study.stores:
        training, report = found[spec.name].rows(spec)[1], found[spec.name].report
        for tested in spec.tested or (spec,):
            test = found[tested.name].rows(tested)[0]
            if not training or not test:
                continue
            pairs = twins(found[spec.name].signatures(training), found[tested.name].signatures(test))
            leaks = [Leak(spec.name, training[one].name, tested.name, test[other].name) for one, other in pairs]
            if leaks:
                report.leaks += leaks
                words = f"{described(leaks)}: data.leaks is {spec.leaks}"
                (report.problems if spec.leaks == "stop" else report.notes).append(words)
    for each in found.values():
        each.draw(output)
    return [each.report for each in found.values()]


def parser() -> Parser:
    """The command line."""
    text = "Say what is in the data sets of a study before anything is trained, and draw contact sheets."
    made = Parser("inspect", text, "mine.yaml", codes="exit codes: 0 done, 1 something would stop a run, 2 wrong usage")
    made.add_study()
    made.add_argument("--output", type=Path, metavar="FOLDER", help="where the contact sheets go (default: results)")
    made.add_argument("--workers", type=positive, metavar="N", help="processes that decode (default: one per core)")
    made.add_json()
    return made


@command
def main(argv: Sequence[str]) -> int:
    """Print what was found; 1 if something would stop a run."""
    args = parser().parse_args(argv)
    setup()
    output = args.output and args.output.absolute()  # relative to the caller, not to --directory
    study = study_of(args)
    reports = inspect(study, output or study.folder / "inspect", args.workers)
    if args.json:
        terminal.print_json({"study": study.name, "sets": [asdict(report) for report in reports]})
    else:
        for report in reports:
            _show(report, terminal.console())
    return int(any(report.problems for report in reports))


def _show(report: Report, console: Console) -> None:
    console.print(f"{report.name}: {report.location}", style="bold")
    few = f", of which {report.read:,} are used and were read" if report.read < report.images else ""
    rows = {"used for": ", ".join(report.used), "images": f"{report.images:,}{few}"}
    if report.widths and report.heights:
        (narrow, wide), (low, high) = report.widths, report.heights
        rows["pixels"] = f"{narrow:,} to {wide:,} wide, {low:,} to {high:,} high"
    rows["left out"] = ", ".join(f"{number:,} {kind}" for kind, number in report.left_out.items())
    if report.twins:
        pairs = some((f"{one} and {other}" for one, other in report.twins), 3)
        rows["look the same"] = f"{plural(len(report.twins), 'pair')}: {pairs}"
    rows["contact sheet"] = report.sheet
    for label, words in rows.items():
        if words:
            console.print(f"  {label:<14}{words}", soft_wrap=True)
    if report.classes:
        shares = table("class", "images", "pixels" if report.ignored else "share")
        extra = [report.ignored] if report.ignored and report.ignored.images else []
        for each in [*report.classes[:SHOWN], *extra]:
            shares.add_row(each.name, f"{each.images:,}", f"{each.share:.2%}")
        console.print(Padding(shares, (0, 0, 0, 2), expand=False))
        if len(report.classes) > SHOWN:
            console.print(f"  and {len(report.classes) - SHOWN:,} more classes", style="dim")
    for label, style, lines in (("wrong", "bold red", report.problems), ("note", "yellow", report.notes)):
        for line in lines:
            console.print(Text.assemble("  ", (f"{label}: ", style), line), soft_wrap=True)
    console.print()
