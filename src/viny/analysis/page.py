"""The page of a study: answers, charts, verdicts, runs, tables, cost and provenance, in one file that works offline."""

import base64
import gzip
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import viny
from viny.analysis import charts, names, outlook_charts, runs
from viny.analysis.answers import VERDICTS, answers
from viny.analysis.chart import Chart
from viny.analysis.formats import Table, any_number, is_missing, joined, render
from viny.analysis.frames import KEYS, Tables
from viny.analysis.mixtures import compute_differences
from viny.provenance import commit
from viny.result import utc_now

DIRECTIONS = {"agrees": "agree", "disagrees": "disagree", "mixed": "mixed", "none": "–"}
HEADINGS = {
    "pretrain": "pre-train",
    "intermediate": "task",
    "downstream": "labels",
}
MIOU = {"dataset": "one confusion matrix of all test pixels", "per_image": "the mean over test images"}
# What a study may be unable to answer.
QUESTIONS = {
    "forecast": "What will cells score that were not run?",
    "goal": "What does the goal take, or the budget buy?",
    "transfer": "How does the worth of pre-training in labels grow with both kinds of data?",
    "heldout_loss": "Does the held-out loss of pre-training predict mIoU?",
}
# Name in the list of parts, heading, and what a part shows, in this order, as far as the study has it.
SECTIONS = {
    "labels": ("Labels", "What labels buy", ("miou", "gain_per_doubling", "scaling_fits")),
    "pretraining": (
        "Pre-training",
        "What pre-training buys",
        ("change_by_pretraining", "effective_data", "heldout_loss", "reconstructions"),
    ),
    "task": (
        "Task",
        "What the intermediate task changes",
        ("change_by_intermediate", "similarity_by_distance", "similarity_maps"),
    ),
    "outlook": ("Outlook", "What to expect and what to buy", ("isoquants", "forecast", "gain_against_compute")),
    "beside": ("Variants", "Variants and the paper", ("variants", "beside_paper")),
}
# Pictures of images: title, what is in them, how to read them.
PICTURES = {
    "examples": (
        "Predictions",
        "Test images with their true masks and the masks that each encoder predicts",
        "The first test images through one cell per encoder, fewest labels, first seed, with the image's mIoU.",
    ),
    "failures": (
        "Best and worst predictions",
        "For each cell three test images with true and predicted masks",
        "Of each of these cells the test image with the best, the median and the worst mIoU.",
    ),
    "reconstructions": (
        "Reconstructions",
        "Images, the same images with patches masked, and each encoder's reconstruction",
        "Held-out images, the same with patches masked, and what each encoder paints there.",
    ),
    "similarity_maps": (
        "Maps of similarity",
        "Images with one patch marked, beside heat maps of its similarity to all patches",
        "Cosine similarity of one reference patch (square) with all patches of its image.",
    ),
}
FIGURES = [*(name for _, _, shown in SECTIONS.values() for name in shown), "examples", "failures"]
FIGURES += [f"training_{stage}" for stage in names.STAGES]
TABLES = ("cells.csv", "costs.csv", "histories.csv", "variants.csv", "geometry.csv", "settings.json")


@dataclass(frozen=True)
class Section:
    """A part of the page with charts by name, the files behind each, and pictures."""

    short: str
    heading: str
    charts: dict[str, Chart]
    links: dict[str, list[tuple[str, str]]]
    pictures: list[dict[str, Any]]


@dataclass(frozen=True)
class Page:
    """Everything that the page of `source` is made from.

    Attributes:
        runs: those of variants too.
        statistics, claims, tables: by name, as they are written. remark: stands with the verdicts.
        folder: of the page. files: those that are or will be in it.
        note: stands at the top. command: that made the page.
    """

    source: Tables
    runs: runs.RunTable
    statistics: Mapping[str, pd.DataFrame]
    claims: list[dict[str, Any]]
    tables: Mapping[str, Table]
    folder: Path
    files: Sequence[str]
    note: str = ""
    remark: str = ""
    command: str = ""

    def text(self) -> str:
        """The page as HTML."""
        source, claims = self.source, self.claims
        verdicts = Counter(claim["verdict"] for claim in claims)
        sections = self._sections()
        seeds = int(source.cells["seed"].dropna().nunique())
        return render(
            "page.html",
            study=source.name,
            question=_question(source),
            note=self.note,
            progress=_progress(source.cells),
            sentences=_what_was_run(source),
            answers=answers(self.statistics, claims, seeds, source.confidence),
            made=self._made(),
            sections=sections,
            charts={name: chart.panels for each in sections.values() for name, chart in each.charts.items()},
            verdicts={verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
            claims=[with_cells(claim) for claim in claims],
            claim_files=self._links("claims.md", "claims.json"),
            differences=compute_differences(source.cells, source.costs),
            leaks=source.settings.get("leaks", ""),
            remark=self.remark,
            runs=self.runs,
            run_files=self._links("cells.csv", "variants.csv", "costs.csv"),
            curve_files=self._links("histories.csv"),
            pictures=self._pictures("examples", "failures"),
            tables=[
                (table, self._links(*(f"tables/{name}.{form}" for form in ("csv", "md", "tex"))))
                for name, table in self.tables.items()
                if table.rows
            ],
            cost=_cost(source.costs),
            provenance=_provenance(source.settings),
            files=self._links(*TABLES),
            plotly=_plotly(),
        )

    def _sections(self) -> dict[str, Section]:
        """The parts that have something to show."""
        made = charts.measured(self.source, self.statistics) | outlook_charts.expected(self.source, self.statistics)
        made |= outlook_charts.others(self.source, self.statistics)
        found = {}
        for key, (short, heading, shown) in SECTIONS.items():
            here = {name: made[name] for name in shown if name in made}
            links = {name: self._links(*chart.sources, f"figures/{name}.pdf") for name, chart in here.items()}
            section = Section(short, heading, here, links, self._pictures(*shown))
            if here or section.pictures:
                found[key] = section
        return found

    def _pictures(self, *shown: str) -> list[dict[str, Any]]:
        made = []
        for name in shown:
            path = self.folder / f"figures/{name}.png"
            if name in PICTURES and path.exists():
                title, alt, caption = PICTURES[name]
                content = path.read_bytes()
                # Drawn at 200 dots per inch for print; shown at 130, it fills the width of the page.
                width = int.from_bytes(content[16:20], "big") * 130 // 200
                words = {"name": name, "title": title, "alt": alt, "caption": caption}
                data = base64.b64encode(content).decode()
                made.append({**words, "width": width, "data": data, "links": self._links(f"figures/{name}.pdf")})
        return made

    def _links(self, *files: str) -> list[tuple[str, str]]:
        """Those files beside the page that are there, or will be."""
        there = [name for name in files if name in self.files or (self.folder / name).exists()]
        return [(Path(name).name, runs.link(self.folder / name, self.folder)) for name in there]

    def _made(self) -> dict[str, str]:
        """When, from what and by which command."""
        now = f"{utc_now().replace('T', ' ')[:16]} UTC"
        version = f"viny {viny.__version__}" + (f" at commit {found[:12]}" if (found := commit()) else "")
        finished = sorted(self.source.costs.get("finished", pd.Series(dtype=str)).dropna().astype(str))
        ran = f"Runs finished from {_time(finished[0])} to {_time(finished[-1])} UTC. " if finished else ""
        return {"when": now, "sentence": f"{ran}Page of {now}, {version}.", "command": self.command}


def with_cells(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim's record with the cells behind it as a table: columns, rows, and which columns hold words."""
    cells = claim["cells"]
    columns = [name for name in cells[0] if not all(is_missing(cell[name]) for cell in cells)] if cells else []
    return claim | {
        "columns": [HEADINGS.get(name, name.replace("_", " ")) for name in columns],
        "left": [i for i, name in enumerate(columns) if isinstance(cells[0][name], str)],
        "rows": [[any_number(cell[name]) for name in columns] for cell in cells],
    }


def claims_page(study: str, confidence: float, claims: list[dict[str, Any]]) -> str:
    """claims.md: the verdicts with criteria, numbers and the cells behind them."""
    records = [with_cells(claim) for claim in claims]
    return render("claims.md", study=study, confidence=confidence, claims=records, directions=DIRECTIONS)


def _plotly() -> str:
    """The script of plotly.js, compressed, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _question(tables: Tables) -> str:
    tasks = " an intermediate task" if (tables.cells["intermediate"] != "none").any() else ""
    starts = " pre-training" if (tables.cells["pretrain"] > 0).any() or len(tables.external) else ""
    things = [*(thing.strip() for thing in (starts, tasks) if thing), "labels"]
    what = f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else things[0]
    return f"How much {'do' if len(things) > 1 else 'does each doubling of'} {what} buy a small Vision Transformer?"


def _progress(cells: pd.DataFrame) -> dict[str, Any]:
    done = int((cells["status"] == "done").sum())
    what = "runs" if cells["seed"].notna().any() else "cells"
    return {"done": done, "all": len(cells), "missing": len(cells) - done, "what": what}


def _what_was_run(tables: Tables) -> list[str]:
    cells, images = tables.cells, tables.images
    run = int(cells["runs"].sum()) if "runs" in cells else len(cells)
    seeds = cells["seed"].dropna().nunique()
    places = len(cells[["encoder", *KEYS]].drop_duplicates())
    sizes, labels = (joined([f"{n:,}" for n in sorted(set(v))]) for v in (tables.grid["pretrain"], cells["downstream"]))
    starts = [f"{sizes} images{_of(images, 'pretrain')}"] if sizes else []
    starts += [f"the encoder {name}" for name in dict.fromkeys(tables.external["encoder"])]
    tasks = list(dict.fromkeys(cells["intermediate"]))
    after = [f"{names.task(task)}{_of(images, f'intermediate {task}')}" for task in tasks if task != "none"]
    between = ["without an intermediate task"] * ("none" in tasks) + [f"after {joined(after)}"] * bool(after)
    each = f"{seeds} seed{'s' * (seeds != 1)} each" if seeds else "means over 3 published runs"
    sentences = [
        f"{places:,} cell{'s' * (places != 1)}, {run:,} run{'s' * (run != 1)}.",
        f"Segmentation by a Vision Transformer, pre-trained on {joined(starts)}, "
        f"{' or '.join(between)}, fine-tuned on {labels} labeled images{_of(images, 'finetune')}, {each}.",
    ]
    if tables.settings.get("miou") in MIOU:
        sentences.append(f"mIoU is taken from {MIOU[tables.settings['miou']]}.")
    return sentences


def _of(images: Mapping[str, str], kind: str) -> str:
    return f" of {images[kind]}" if kind in images else ""


def _time(when: str) -> str:
    return when.replace("T", " ")[:16]


def _cost(costs: pd.DataFrame) -> Table:
    """Jobs, time and memory of each stage."""
    rows = []
    for stage, jobs in costs.groupby("stage", sort=False):
        trained, hours = jobs["train_seconds"], (jobs["train_seconds"] + jobs["startup_seconds"].fillna(0)) / 3600
        row = [f"{len(jobs)}", f"{trained.median():,.1f}", f"{trained.max():,.1f}", f"{hours.sum():,.2f}"]
        row += [f"{jobs['images_per_second'].median():,.0f}", f"{jobs['peak_memory_mb'].max():,.0f}"]
        rows.append([names.stage(stage), *row, f"{jobs['resumes'].sum():.0f}"])
    columns = ["stage", "jobs", "training, median (s)", "longest (s)", "all jobs (h)", "images/s", "peak memory (MB)"]
    return Table("", "What the jobs of each stage cost.", [*columns, "resumed"], rows)


def _provenance(settings: Mapping[str, Any]) -> Table:
    """Commits, code, devices and versions of each kind of job."""
    rows = []
    for kind, stage in settings["stages"].items():
        if "code" in stage:
            commits = ", ".join(commit[:12] for commit in stage["commits"])
            devices = ", ".join(f"{device} ({jobs})" for device, jobs in stage["devices"].items())
            packages = ", ".join(f"{name} {'/'.join(met)}" for name, met in stage["packages"].items())
            rows.append([names.stage(kind), commits, stage["code"], stage["settings_fingerprint"], devices, packages])
    columns = ["stage", "commit", "code", "settings", "devices (jobs)", "packages"]
    return Table("", "What the numbers come from.", columns, rows, left=len(columns))
