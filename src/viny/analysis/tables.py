r"""The paper's tables from a study's results: Tables 1, A1, A2, A3 and 2 (v2), for whatever sizes the study has.

    python -m viny.analysis.tables --cells results/demo/cells.csv --settings results/demo/settings.json \
        --geometry results/demo/geometry.csv --output results/demo/tables

Writes each table as `.csv` (numbers), and as `.md`, `.tex` (booktabs) and `.html` (`mean ± standard error` over runs).

| file | rows |
|---|---|
| table1_from_scratch | downstream sizes, without pre-training and intermediate task (Table 1) |
| tableA1_settings | phases: the optimization settings recorded by the jobs themselves (Table A1) |
| tableA2_pretrained | pre-training x downstream sizes, without intermediate task (Table A2) |
| tableA3_intermediate | tasks x pre-training x downstream sizes (Table A3) |
| table2_geometry | encoders: geometry of their patch tokens (Table 2 of v2) |
"""

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from viny import console
from viny.analysis import names
from viny.analysis.files import KEYS, read_cells, read_frame
from viny.analysis.results import own_settings
from viny.analysis.summary import summarize
from viny.analysis.texttable import MISSING, TextTable, count, plus_minus
from viny.errors import command

SCORES = ["accuracy", "miou"]
HEADINGS = {
    "pretrain": "Pre-training images",
    "intermediate": "Intermediate task",
    "downstream": "Fine-tuning images",
}
OPTIMIZATION = {
    "epochs": "Epochs",
    "steps": "Steps",
    "batch_size": "Batch size",
    "optimizer": "Optimizer",
    "learning_rate": "Learning rate",
    "weight_decay": "Weight decay",
    "gamma": "Gamma",
    "milestones": "Milestones",
    "precision": "Precision",
}
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam"}


def score_tables(cells: pd.DataFrame) -> dict[str, TextTable]:
    """Tables 1, A2 and A3: accuracy and mIoU in percent, mean ± standard error over the runs of a cell."""
    summary = with_declared_runs(cells)
    scratch = (summary["pretrain"] == 0) & (summary["intermediate"] == "none")
    pretrained = (summary["pretrain"] > 0) & (summary["intermediate"] == "none")
    return {
        "table1_from_scratch": score_table(
            summary[scratch],
            "Table 1",
            "Without pre-training: pixel accuracy and mIoU (%) by number of fine-tuning images.",
            ["downstream"],
        ),
        "tableA2_pretrained": score_table(
            summary[pretrained],
            "Table A2",
            "After pre-training: pixel accuracy and mIoU (%) by number of pre-training and fine-tuning images.",
            ["pretrain", "downstream"],
        ),
        "tableA3_intermediate": score_table(
            summary[summary["intermediate"] != "none"],
            "Table A3",
            "With an intermediate task: pixel accuracy and mIoU (%) by number of pre-training and fine-tuning images.",
            ["intermediate", "pretrain", "downstream"],
        ),
    }


def with_declared_runs(cells: pd.DataFrame) -> pd.DataFrame:
    """`summarize(cells)` with the number of runs that each cell should have, as `declared`."""
    runs = cells["runs"] if "runs" in cells else pd.Series(1, index=cells.index)
    declared = cells.assign(declared=runs).groupby(KEYS, as_index=False)["declared"].sum()
    return summarize(cells).merge(declared, on=KEYS, how="left")


def score_table(summary: pd.DataFrame, name: str, title: str, place: list[str]) -> TextTable:
    """One row per cell; a missing cell stays as `–`, one with missing runs says how many it has."""
    summary = summary.sort_values(place, kind="stable")
    rows, rules, before = [], set(), None
    for number, cell in enumerate(summary.itertuples()):
        at = tuple(getattr(cell, key) for key in place)
        block = at[:-1]
        if before is not None and block != before:
            rules.add(number)
        # The paper's form: a value that stands for several rows is printed in the first of them alone.
        new = [before is None or block[: i + 1] != before[: i + 1] for i in range(len(block))] + [True]
        before = block
        shown = [_place(key, value) if first else "" for key, value, first in zip(place, at, new, strict=True)]
        partial = f" ({cell.n:.0f} of {cell.declared})" if 0 < cell.n < cell.declared else ""
        scores = [
            plus_minus(getattr(cell, f"{score}_percent"), getattr(cell, f"{score}_se")) + partial for score in SCORES
        ]
        rows.append([*shown, *scores])
    columns = [HEADINGS[key] for key in place] + ["Accuracy (%)", "mIoU (%)"]
    numbers = [f"{score}_{kind}" for score in SCORES for kind in ("percent", "se")]
    frame = summary[[*place, *numbers, "n", "declared"]]
    left = int("intermediate" in place)
    return TextTable(name, title, columns, rows, frame, _runs_note(summary), left, rules)


def settings_table(settings: dict[str, Any]) -> TextTable:
    """Table A1 from settings.json: what the jobs recorded, not what a config file says today."""
    rows, records = [], []
    for kind, stage in settings["stages"].items():
        if kind.startswith("geometry"):
            continue
        used = own_settings(kind, stage.get("settings", {}))
        records.append({"phase": kind, **{key: _plain(used.get(key)) for key in OPTIMIZATION}})
        rows.append([names.stage(kind), *(_setting(key, used.get(key)) for key in OPTIMIZATION)])
    keep = [key for key in OPTIMIZATION if any(record[key] not in (None, "") for record in records)]
    places = [list(OPTIMIZATION).index(key) for key in keep]
    return TextTable(
        "Table A1",
        "Optimization settings of each phase, as recorded by the jobs.",
        ["Phase", *(OPTIMIZATION[key] for key in keep)],
        [[row[0], *(row[1 + i] for i in places)] for row in rows],
        pd.DataFrame(records, columns=["phase", *OPTIMIZATION]),
        "The learning rate is multiplied by gamma at each milestone (epochs)."
        + (
            " Where steps are given they replace the epochs, and milestones keep their share of the whole."
            if "steps" in keep
            else ""
        ),
    )


def geometry_table(geometry: pd.DataFrame) -> TextTable:
    """Table 2 (v2): variance of patch tokens and accuracy of the linear patch probe, per encoder.

    Args:
        geometry: geometry.csv, one row per encoder and seed, or the published one (one row per encoder).
    """
    place = ["pretrain", "intermediate"]
    numbers = {
        "within_image_variance": ("Within-image variance", 2),
        "across_image_variance": ("Across-image variance", 2),
        "probe_accuracy_percent": ("Patch probe, held-out images (%)", 1),
        "probe_accuracy_training_percent": ("Patch probe, its training images (%)", 1),
    }
    bare_first = geometry["intermediate"].ne("none").sort_values(kind="stable").index
    grouped = geometry.loc[bare_first].groupby(place, sort=False)[list(numbers)]
    frame = (
        grouped.mean().join(grouped.sem().add_suffix("_se")).join(grouped.count().iloc[:, :1].set_axis(["n"], axis=1))
    )
    frame = frame.reset_index().sort_values("pretrain", kind="stable")
    rows = [
        [
            names.task(row["intermediate"], short=True) if row["intermediate"] != "none" else "Pre-trained only",
            count(row["pretrain"]),
            *(plus_minus(row[key], row[f"{key}_se"], decimals) for key, (_, decimals) in numbers.items()),
        ]
        for _, row in frame.iterrows()
    ]
    return TextTable(
        "Table 2",
        "Geometry of the encoders' patch tokens.",
        ["Encoder", HEADINGS["pretrain"], *(heading for heading, _ in numbers.values())],
        rows,
        frame,
        f"Mean ± standard error over seeds; no error where there is one encoder. {MISSING}: not measured."
        if rows
        else "No encoder's geometry was measured (`geometry: enabled:` in the config).",
    )


def _runs_note(summary: pd.DataFrame) -> str:
    if summary.empty:
        return "The study declares no such cell."
    runs = sorted(set(summary["declared"].astype(int)))
    text = f"Mean ± standard error over {' or '.join(map(str, runs))} run{'s' if runs != [1] else ''} per cell."
    if runs == [1]:
        text = "One run per cell, hence no standard error."
    missing = int((summary["n"] == 0).sum())
    partial = int(((summary["n"] > 0) & (summary["n"] < summary["declared"])).sum())
    if missing:
        text += f" {MISSING}: no result yet ({missing} of {len(summary)} cells)."
    if partial:
        text += f" Number of runs given where some are missing ({partial} cells)."
    return text


def _place(key: str, value: Any) -> str:
    return names.task(value, short=True) if key == "intermediate" else count(value)


def _setting(key: str, value: Any) -> str:
    if key == "optimizer" and value:
        return OPTIMIZERS.get(value, value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(_plain(value)) if value not in (None, []) else MISSING


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


@command
def main(arguments: list[str] | None = None) -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m viny.analysis.tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cells", type=Path, required=True)
    parser.add_argument("--settings", type=Path, required=True)
    parser.add_argument("--geometry", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--log", type=Path)
    args = parser.parse_args(arguments)
    console.open_log(args.log)
    tables = score_tables(read_cells(args.cells))
    tables["tableA1_settings"] = settings_table(json.loads(args.settings.read_text(encoding="utf-8")))
    tables["table2_geometry"] = geometry_table(read_frame(args.geometry, ["pretrain", "intermediate"]))
    for name, table in tables.items():
        table.write(args.output / name)
    console.say(f"{len(tables)} tables in {args.output}")


if __name__ == "__main__":
    raise SystemExit(main())
