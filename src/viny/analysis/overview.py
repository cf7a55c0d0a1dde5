r"""The opening page of the report: what was run, the verdicts, the main figures and the tables, in one file.

    python -m viny.analysis.overview --folder results/demo --output results/demo/overview.html

Reads cells.csv, settings.json, costs.csv (if there), claims.json, figures/*.png and tables/*.html of the folder. It
carries the figures inside, so that it can be sent as it is; the Snakemake report opens with it.
"""

import argparse
import base64
import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from viny import console
from viny.analysis import names
from viny.analysis.files import read_cells, read_frame, write_text
from viny.analysis.texttable import HTML_HEAD
from viny.errors import VinyError, command

VERDICT_COLORS = {"supported": "#1b7837", "contradicted": "#b2182b", "undecided": "#7a6a00", "not tested": "#5b5b5b"}
FIGURES = {
    "miou": "mIoU by pre-training and fine-tuning size (mean ± standard error over runs).",
    "change_by_pretraining": "What pre-training changes, cell by cell.",
    "change_by_intermediate": "What an intermediate task changes, cell by cell, in pairs of runs with the same seed.",
    "effective_data": "What pre-training is worth in labeled images: above the dotted line it replaces labels.",
    "gain_per_doubling": "Points of mIoU bought by each doubling of labels and of pre-training images.",
    "gain_against_compute": "The same scores against all the compute behind them.",
}
TABLES = ["table1_from_scratch", "tableA1_settings", "tableA2_pretrained", "tableA3_intermediate", "table2_geometry"]
STYLE = """<meta charset="utf-8">
<style>
.viny {font: 15px/1.45 system-ui, sans-serif; color: #1d1d1d; max-width: 62rem; margin: 0 auto; padding: 0 1rem;}
.viny h1 {font-size: 1.7rem; margin: 1rem 0 .3rem;}
.viny h2 {font-size: 1.2rem; margin: 1.8rem 0 .5rem; border-bottom: 1px solid #ccc;}
.viny table {border-collapse: collapse; font-size: 13px; margin: .5rem 0;}
.viny table {border-top: 2px solid #333; border-bottom: 2px solid #333;}
.viny .wide {overflow-x: auto;}
.viny th, .viny td {padding: 2px 10px; text-align: right; vertical-align: top; border-bottom: 1px solid #eee;}
.viny p {margin: .5rem 0;}
.viny th {border-bottom: 1px solid #555;} .viny .l {text-align: left;} .viny td:not(.l) {white-space: nowrap;}
.viny .verdict {color: white; border-radius: 3px; padding: 1px 7px; white-space: nowrap; font-size: 12px;}
.viny img {max-width: 100%;} .viny figure {margin: 1rem 0;} .viny figcaption {font-size: 13px; color: #444;}
.viny .note {background: #fff5d6; border-left: 4px solid #E69F00; padding: .4rem .8rem;}
</style>
"""


def page(folder: Path, note: str = "", variants: bool = False) -> str:
    """The opening page as a fragment of HTML.

    Args:
        folder: of a study's results, see the module's description.
        note: a word on the data, shown at the top.
        variants: show what the variants of the study change, too.
    """
    cells = read_cells(folder / "cells.csv")
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    claims = json.loads((folder / "claims.json").read_text(encoding="utf-8"))
    costs = read_frame(folder / "costs.csv", ["stage", "train_seconds"]) if (folder / "costs.csv").exists() else None
    parts = [
        f"<h1>Diminishing returns in self-supervised learning: study <i>{escape(str(settings['study']))}</i></h1>",
        f"<p class='note'>{escape(note)}</p>" if note else "",
        _what_was_run(cells, settings),
        "<h2>Verdicts on the paper's claims</h2>",
        verdict_table(claims["claims"]),
        "<p><small>Criteria, numbers and the cells behind each verdict: <code>claims.md</code>.</small></p>",
        *(_variants(folder) if variants else []),
        "<h2>Figures</h2>",
        *(_figure(folder / f"figures/{name}.png", caption) for name, caption in FIGURES.items()),
        "<h2>Tables</h2>",
        *(_table(folder / f"tables/{name}.html") for name in TABLES),
        _cost_table(costs) if costs is not None and len(costs) else "",
        _provenance(settings),
    ]
    return STYLE + "<div class='viny'>\n" + "\n".join(part for part in parts if part) + "\n</div>\n"


def verdict_table(claims: list[dict[str, Any]]) -> str:
    """How many claims got which verdict; then one row per claim: the claim, its verdict, the reason in one line."""
    rows = []
    for claim in claims:
        color = VERDICT_COLORS.get(claim["verdict"], "#5b5b5b")
        badge = f"<span class='verdict' style='background:{color}'>{escape(claim['verdict'])}</span>"
        rows.append(
            f"<tr><td class='l'>{escape(claim['id'])}</td><td class='l'>{escape(claim['statement'])}</td>"
            f"<td class='l'>{badge}</td><td class='l'>{escape(claim['reason'])}</td></tr>"
        )
    counts = Counter(claim["verdict"] for claim in claims)
    summary = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICT_COLORS if counts[verdict])
    head = "<tr><th></th><th class='l'>claim</th><th class='l'>verdict</th><th class='l'>why</th></tr>"
    return f"<p>Of {len(claims)} claims: {summary}.</p><table>{head}{''.join(rows)}</table>"


def _what_was_run(cells: pd.DataFrame, settings: dict[str, Any]) -> str:
    runs = int(cells["runs"].sum()) if "runs" in cells else len(cells)
    missing = int((cells["status"] != "done").sum())
    tasks = [names.task(task) for task in dict.fromkeys(cells["intermediate"])]
    seeds = cells["seed"].dropna().nunique()
    places = len(cells[["pretrain", "intermediate", "downstream"]].drop_duplicates())
    sentences = [
        f"<b>{places:,} cells, {runs:,} runs.</b> Segmentation by a small Vision Transformer, "
        f"pre-trained on {_list(cells['pretrain'])} images, with {_words(tasks)}, "
        f"fine-tuned on {_list(cells['downstream'])} labeled images"
        + (f", {seeds} seed{'s' if seeds != 1 else ''} each." if seeds else ", means over 3 published runs."),
    ]
    if missing:
        sentences.append(f"<b>{missing:,} runs have no result yet</b>; they are shown as missing everywhere.")
    if settings.get("miou") in ("dataset", "per_image"):
        kind = (
            "one confusion matrix of all test pixels" if settings["miou"] == "dataset" else "the mean over test images"
        )
        sentences.append(f"mIoU is taken from {kind}.")
    return f"<p>{' '.join(sentences)}</p>"


def _figure(path: Path, caption: str) -> str:
    if not path.exists():
        raise VinyError(f"{path} does not exist; draw the figures first (python -m viny.analysis.figures)")
    data = base64.b64encode(path.read_bytes()).decode()
    # Drawn at 200 dots per inch for print; shown at 130, both columns of the page fill the text's width.
    width = int.from_bytes(path.read_bytes()[16:20], "big") * 130 // 200
    image = f'<img width="{width}" src="data:image/png;base64,{data}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(path: Path) -> str:
    return f"<div class='wide'>{path.read_text(encoding='utf-8').removeprefix(HTML_HEAD)}</div>"


def _variants(folder: Path) -> list[str]:
    caption = "What each variant changes against the study itself, with standard errors (thick) and intervals (thin)."
    figure, table = _figure(folder / "figures/variants.png", caption), _table(folder / "tables/variants.html")
    return ["<h2>Variants of the study</h2>", figure, table]


def _cost_table(costs: pd.DataFrame) -> str:
    """Jobs, time and memory of each stage."""
    grouped = costs.groupby("stage", sort=False)
    rows = [
        f"<tr><td class='l'>{escape(names.stage(stage))}</td><td>{len(jobs)}</td>"
        f"<td>{jobs['train_seconds'].median():,.1f}</td><td>{jobs['train_seconds'].max():,.1f}</td>"
        f"<td>{(jobs['train_seconds'] + jobs['startup_seconds'].fillna(0)).sum() / 3600:,.2f}</td>"
        f"<td>{jobs['images_per_second'].median():,.0f}</td><td>{jobs['peak_memory_mb'].max():,.0f}</td>"
        f"<td>{jobs['resumes'].sum():.0f}</td></tr>"
        for stage, jobs in grouped
    ]
    head = "<tr><th class='l'>stage</th><th>jobs</th><th>training, median (s)</th><th>longest (s)</th>"
    head += "<th>all jobs (h)</th><th>images/s</th><th>peak memory (MB)</th><th>resumed</th></tr>"
    return f"<h2>Cost</h2><table>{head}{''.join(rows)}</table>"


def _provenance(settings: dict[str, Any]) -> str:
    rows = []
    for kind, stage in settings["stages"].items():
        if "code" not in stage:
            continue
        packages = ", ".join(f"{name} {'/'.join(met)}" for name, met in stage["packages"].items())
        commits = ", ".join(str(commit)[:12] for commit in stage["commits"])
        devices = ", ".join(f"{device} ({jobs})" for device, jobs in stage["devices"].items())
        texts = [names.stage(kind), commits, stage["code"], stage["settings_fingerprint"], devices, packages]
        rows.append("<tr>" + "".join(f"<td class='l'>{escape(str(text))}</td>" for text in texts) + "</tr>")
    if not rows:
        return ""
    titles = ["stage", "commit", "code", "settings", "devices (jobs)", "packages"]
    head = "<tr>" + "".join(f"<th class='l'>{title}</th>" for title in titles) + "</tr>"
    return f"<h2>Provenance</h2><div class='wide'><table>{head}{''.join(rows)}</table></div>"


def _list(sizes: pd.Series) -> str:
    return _words([f"{size:,}" for size in sorted(set(sizes))])


def _words(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.overview",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder of the study's results")
    parser.add_argument("--note", default="", help="a word on the data, shown at the top")
    parser.add_argument("--variants", action="store_true", help="show what the variants of the study change")
    parser.add_argument("--output", type=Path, required=True, help="HTML file to write")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    write_text(args.output, page(args.folder, args.note, args.variants))
    console.say(f"opening page: {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
