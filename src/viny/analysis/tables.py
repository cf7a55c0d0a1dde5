"""The paper's tables from a study's results: Tables 1, A1, A2, A3 and 2 (v2), for whatever sizes the study has.

| file | rows |
|---|---|
| table1_from_scratch | downstream sizes, without pre-training and intermediate task (Table 1) |
| tableA1_settings | phases: the optimization settings recorded by the jobs themselves (Table A1) |
| tableA2_pretrained | pre-training x downstream sizes, without intermediate task (Table A2) |
| tableA3_intermediate | tasks x pre-training x downstream sizes (Table A3) |
| table2_geometry | encoders: geometry of their patch tokens (Table 2 of v2) |
| beside_paper | cells that the study shares with the paper |
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from viny.analysis import names
from viny.analysis.formats import MISSING, Table, count, joined, number, plus_minus
from viny.analysis.frames import KEYS, PROBE_CHANCE
from viny.analysis.summary import with_encoders

SCORES = ["accuracy", "miou"]
HEADINGS = {"pretrain": names.PRETRAINING, "intermediate": "Intermediate task", "downstream": names.LABELED}
OPTIMIZATION = {
    **{"epochs": "Epochs", "steps": "Steps", "batch_size": "Batch size", "optimizer": "Optimizer"},
    **{"learning_rate": "Learning rate", "weight_decay": "Weight decay", "gamma": "Gamma"},
    **{"milestones": "Milestones", "precision": "Precision"},
}
PROBE, DAGGER = "probe_accuracy_percent", "†"
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam"}
MEASURES = {
    "within_image_variance": ("Within-image variance", 2),
    "across_image_variance": ("Across-image variance", 2),
    "probe_accuracy_percent": ("Patch probe, held-out images (%)", 1),
    "probe_accuracy_training_percent": ("Patch probe, its training images (%)", 1),
}


def score_tables(cells: pd.DataFrame, remarks: Sequence[str] = ()) -> dict[str, Table]:
    """Tables 1, A2 and A3: accuracy and mIoU in percent, mean ± standard error over the runs of a cell.

    Cells of encoders that were not trained here are further rows; `remarks` stand below the tables that have rows.
    """
    summary = with_encoders(cells)
    bare, started = summary["intermediate"] == "none", (summary["pretrain"] > 0) | (summary["encoder"] != "")
    scratch = _score_table(summary[bare & ~started], "Table 1", "Without pre-training", ["downstream"])
    pretrained = _score_table(summary[bare & started], "Table A2", "After pre-training", ["pretrain", "downstream"])
    axes = ["intermediate", "pretrain", "downstream"]
    after_task = _score_table(summary[~bare], "Table A3", "With an intermediate task", axes)
    for table in (scratch, pretrained, after_task):
        if table.rows:
            table.note = " ".join(filter(None, [table.note, *remarks]))
    return {
        "table1_from_scratch": scratch,
        "tableA2_pretrained": pretrained,
        "tableA3_intermediate": after_task,
    }


def _score_table(summary: pd.DataFrame, name: str, which: str, place: list[str]) -> Table:
    """One row per cell; a missing cell stays as `–`, one with missing runs says how many it has."""
    order = [part for key in place for part in (["encoder", key] if key == "pretrain" else [key])]
    summary = summary.sort_values(order, kind="stable")
    rows: list[list[str]] = []
    for cell in summary.itertuples():
        shown = {"pretrain": cell.encoder or count(cell.pretrain), "downstream": count(cell.downstream)}
        shown["intermediate"] = names.task(cell.intermediate)
        partial = f" ({cell.n:.0f} of {cell.declared})" if 0 < cell.n < cell.declared else ""
        scores = [(getattr(cell, f"{score}_percent"), getattr(cell, f"{score}_se")) for score in SCORES]
        rows.append([*(shown[key] for key in place), *(plus_minus(*score) + partial for score in scores)])
    columns = [*(HEADINGS[key] for key in place), "Accuracy (%)", "mIoU (%)"]
    numbers = [f"{score}_{kind}" for score in SCORES for kind in ("percent", "se")]
    kept = place if (summary["encoder"] == "").all() else order
    frame = summary[[*kept, *numbers, "n", "declared"]]
    left, group = int("intermediate" in place), len(place) - 1
    sizes = "pre-training and fine-tuning" if "pretrain" in place else "fine-tuning"
    title = f"{which}: pixel accuracy and mIoU (%) by number of {sizes} images."
    return Table(name, title, columns, rows, frame, _runs_note(summary), left, group)


def settings_table(settings: dict[str, Any]) -> Table:
    """Table A1 from settings.json: what the jobs recorded, not what a study file says today."""
    records = []
    for kind, stage in settings["stages"].items():
        if not kind.startswith("geometry"):
            used = stage.get("settings", {}).get(kind.replace(" ", "."), {})
            record = {"phase": kind, **{key: used.get(key) for key in OPTIMIZATION}}
            records.append(record | {"milestones": ", ".join(map(str, record["milestones"] or []))})
    keep = [key for key in OPTIMIZATION if any(record[key] not in (None, "") for record in records)]
    rows = [[names.stage(record["phase"]), *(_setting(record[key]) for key in keep)] for record in records]
    note = "The learning rate is multiplied by gamma at each milestone (epochs)."
    if "steps" in keep:
        note += " Where steps are given they replace the epochs, and milestones keep their share of the whole."
    if not rows:
        note = "No settings were recorded."
    frame = pd.DataFrame(records, columns=["phase", *OPTIMIZATION])
    title = "Optimization settings of each phase, as recorded by the jobs."
    return Table("Table A1", title, ["Phase", *(OPTIMIZATION[key] for key in keep)], rows, frame, note)


def geometry_table(geometry: pd.DataFrame) -> Table:
    """Table 2 (v2): variance of patch tokens and accuracy of the linear patch probe, per encoder."""
    place = ["pretrain", "encoder", "intermediate"]
    bare_first = geometry["intermediate"].ne("none").sort_values(kind="stable").index
    chance = [name for name in PROBE_CHANCE if name in geometry]
    columns = [*MEASURES, *chance]
    groups = geometry.loc[bare_first].astype(dict.fromkeys(columns, float)).groupby(place, sort=False)[columns]
    runs = groups.count().iloc[:, :1].set_axis(["n"], axis=1)
    frame = groups.mean().join(groups.sem().add_suffix("_se")).join(runs).reset_index()
    frame = frame.sort_values(["encoder", "pretrain"], kind="stable")
    rows = []
    for row in frame.to_dict("records"):
        task = "Pre-trained only" if row["intermediate"] == "none" else names.task(row["intermediate"])
        start = [task, row["encoder"] or count(row["pretrain"])]
        values = {key: plus_minus(row[key], row[f"{key}_se"], digits) for key, (_, digits) in MEASURES.items()}
        if any(row[PROBE] <= row[name] for name in chance):
            values[PROBE] += DAGGER
        rows.append([*start, *values.values()])
    note = f"Mean ± standard error over seeds; no error where there is one encoder. {MISSING}: not measured."
    if chance and frame[chance].notna().all(axis=None):
        position, majority = frame[chance].mean()
        note += (
            f" Without an encoder, the commonest class of each place finds {position:.1f}% of the held-out patches, "
            f"the commonest class of all {majority:.1f}%."
        )
        if any(DAGGER in text for row in rows for text in row):
            note += f" {DAGGER}: not better than that, so the probe says nothing about this encoder."
    if not rows:
        note = "No encoder's geometry was measured (`geometry: enabled:` in the study file)."
    if (frame["encoder"] == "").all():
        frame = frame.drop(columns="encoder")
    headings = ["Encoder", HEADINGS["pretrain"], *(heading for heading, _ in MEASURES.values())]
    return Table("Table 2", "Geometry of the encoders' patch tokens.", headings, rows, frame, note)


def beside_table(beside: pd.DataFrame) -> Table:
    """One row per cell that the paper has too: its accuracy and mIoU there and here, and their difference."""
    shared = beside[beside["published"].notna()]
    rows: list[list[str]] = []
    for place, cell in shared.groupby(KEYS, sort=False):
        row = names.place(*place)
        for metric in SCORES:
            score = cell[cell["metric"] == metric].iloc[0]
            row += [
                plus_minus(score["published"], score["published_se"]),
                plus_minus(score["ours"], score["ours_se"]),
                plus_minus(score["difference"], score["combined_se"], signed=True),
                number(score["difference_in_se"], 1, signed=True),
            ]
        rows.append(row)
    columns = ["Pre-training", "Task", "Fine-tuning"]
    for metric in ("Pixel accuracy", "mIoU"):
        columns += [f"{metric}, {what}" for what in ("the paper", "this study", "difference", "in SE")]
    others = len(beside[beside["published"].isna()][KEYS].drop_duplicates())
    note = "Percent, mean ± standard error; differences in points, with the combined standard error."
    note += f" {others} cells of the study are not in the paper." if others else ""
    if not rows:
        note = "The study shares no cell with the paper's grid, so there is nothing to put beside it."
    title = "This study beside the paper, for the cells that both have."
    return Table("", title, columns, rows, shared, note, left=0, group=2)


def _runs_note(summary: pd.DataFrame) -> str:
    if summary.empty:
        return "The study declares no such cell."
    runs = sorted(set(summary["declared"].astype(int)))
    text = f"Mean ± standard error over {joined([str(each) for each in runs])} runs per cell."
    if runs == [1]:
        text = "One run per cell, hence no standard error."
    missing = int((summary["n"] == 0).sum())
    partial = int(((summary["n"] > 0) & (summary["n"] < summary["declared"])).sum())
    text += f" {MISSING}: no result yet ({missing} of {len(summary)} cells)." if missing else ""
    return text + (f" Number of runs given where some are missing ({partial} cells)." if partial else "")


def _setting(value: Any) -> str:
    if value is None or value == "":
        return MISSING
    return f"{value:g}" if isinstance(value, float) else OPTIMIZERS.get(value, str(value))
