"""The page of a study: what was run, the verdicts, figures, tables, cost and provenance, in one file."""

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from viny.analysis import names
from viny.analysis.formats import Table, any_number, is_missing, joined, render
from viny.analysis.frames import KEYS, Tables
from viny.analysis.mixtures import compute_differences

VERDICTS = ("supported", "contradicted", "negligible", "undecided", "not tested")
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
# The figures of the page in their order, with their captions.
FIGURES = {
    "miou": "mIoU by pre-training and fine-tuning size, mean ± standard error over runs. Grey lines: "
    "predictions that see no image. A cross: no result yet.",
    "change_by_pretraining": "What pre-training changes against a random start, with standard errors.",
    "change_by_intermediate": "What an intermediate task changes, cell by cell, with standard errors.",
    "effective_data": "What pre-training is worth in labeled images: above the dotted line it replaces labels. Open "
    "markers with an arrow: beyond all scores without pre-training, so only a bound is known.",
    "isoquants": "Labels that reach the same mIoU after different amounts of pre-training, with intervals that hold "
    "the error of the law. Above the dotted line no labels were measured. Open markers with an arrow: beyond what "
    "forecasts were checked for, or below the fewest labels.",
    "forecast": "Forecasts against results; in the grey band the interval covers the result. Filled: sealed before the "
    "runs. Open: made from the smaller sizes alone, after the runs.",
    "heldout_loss": "Does the loss on held-out images, known before any label, say what segmentation will score?",
    "gain_per_doubling": "Points of mIoU bought by each doubling of labels and of pre-training images.",
    "scaling_fits": "Solid lines: saturating power laws a - b n^-c that the data determine. Dashed: they do not, and "
    "growth by the same amount per doubling describes them as well. No line: neither does. Bands: bootstrap intervals.",
    "gain_against_compute": "The same scores against all the compute behind them.",
    "variants": "What each variant changes, with standard errors (thick) and intervals (thin).",
    "beside_paper": "This study beside the paper, for the cells that both have.",
    "examples": "The first test images through one cell per encoder, fewest labels, first seed, with the image's mIoU.",
    "failures": "Of each of these cells the test image with the best, the median and the worst mIoU.",
    "reconstructions": "Held-out images, the same with patches masked, and what each encoder paints there.",
    "similarity_by_distance": "Similarity of two patch tokens against the distance of their patches. A flat line: all "
    "patches of an image look alike to the encoder.",
    "similarity_maps": "Cosine similarity of one reference patch (square) with all patches of its image.",
    "training_pretrain": "Pre-training loss of each epoch, one thin line per run.",
    "training_intermediate": "Training loss of the intermediate tasks.",
    "training_finetune": "Training loss of segmentation. A curve that still falls at its end was stopped early.",
}


def page(
    tables: Tables,
    claims: list[dict[str, Any]],
    shown: Mapping[str, Table],
    figures: Path,
    note: str = "",
    remark: str = "",
) -> str:
    """The page as HTML.

    Args:
        figures: the folder with the figures, which the page holds.
        note: stands at the top. remark: stands with the verdicts.
    """
    verdicts = Counter(claim["verdict"] for claim in claims)
    return render(
        "page.html",
        study=tables.name,
        note=note,
        sentences=_what_was_run(tables),
        differences=compute_differences(tables.cells, tables.costs),
        leaks=tables.settings.get("leaks", ""),
        verdicts={verdict: verdicts[verdict] for verdict in VERDICTS if verdicts[verdict]},
        claims=claims,
        remark=remark,
        figures=[_figure(path, name) for name in FIGURES if (path := figures / f"{name}.png").exists()],
        tables=shown.values(),
        cost=_cost(tables.costs),
        provenance=_provenance(tables.settings),
    )


def claims_page(study: str, confidence: float, claims: list[dict[str, Any]]) -> str:
    """claims.md: the verdicts with criteria, numbers and the cells behind them."""
    records = []
    for claim in claims:
        cells = claim["cells"]
        columns = [name for name in cells[0] if not all(is_missing(cell[name]) for cell in cells)] if cells else []
        record = {"columns": [HEADINGS.get(name, name.replace("_", " ")) for name in columns]}
        record["left"] = [i for i, name in enumerate(columns) if isinstance(cells[0][name], str)]
        record["rows"] = [[any_number(cell[name]) for name in columns] for cell in cells]
        records.append(claim | record)
    return render("claims.md", study=study, confidence=confidence, claims=records, directions=DIRECTIONS)


def _what_was_run(tables: Tables) -> list[str]:
    cells, images = tables.cells, tables.images
    runs = int(cells["runs"].sum()) if "runs" in cells else len(cells)
    missing, seeds = int((cells["status"] != "done").sum()), cells["seed"].dropna().nunique()
    places = len(cells[["encoder", *KEYS]].drop_duplicates())
    sizes, labels = (joined([f"{n:,}" for n in sorted(set(v))]) for v in (tables.grid["pretrain"], cells["downstream"]))
    starts = [f"{sizes} images{_of(images, 'pretrain')}"] if sizes else []
    starts += [f"the encoder {name}" for name in dict.fromkeys(tables.external["encoder"])]
    tasks = [
        f"{names.task(task)}{_of(images, f'intermediate {task}')}" for task in dict.fromkeys(cells["intermediate"])
    ]
    each = f"{seeds} seed{'s' * (seeds != 1)} each" if seeds else "means over 3 published runs"
    sentences = [
        f"{places:,} cells, {runs:,} run{'s' * (runs != 1)}.",
        f"Segmentation by a Vision Transformer, pre-trained on {joined(starts)}, with intermediate task "
        f"{joined(tasks)}, fine-tuned on {labels} labeled images{_of(images, 'finetune')}, {each}.",
    ]
    if missing:
        sentences.append(f"{missing:,} runs have no result yet; they are shown as missing everywhere.")
    if tables.settings.get("miou") in MIOU:
        sentences.append(f"mIoU is taken from {MIOU[tables.settings['miou']]}.")
    return sentences


def _of(images: Mapping[str, str], kind: str) -> str:
    return f" of {images[kind]}" if kind in images else ""


def _figure(path: Path, name: str) -> dict[str, Any]:
    content = path.read_bytes()
    # Drawn at 200 dots per inch for print; shown at 130, both columns of the printed page fill the text's width.
    width = int.from_bytes(content[16:20], "big") * 130 // 200
    return {"name": name, "caption": FIGURES[name], "width": width, "data": base64.b64encode(content).decode()}


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
