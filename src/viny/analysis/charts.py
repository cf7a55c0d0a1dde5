"""The charts of what a study measured, each from a file of statistics/; there is none of what was not measured."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from viny.analysis import names
from viny.analysis.chart import (
    QUIET,
    Chart,
    Figure,
    Look,
    axis,
    band,
    column,
    hover,
    interval,
    log_axis,
    looks,
    panels,
    ranged,
    size_axis,
)
from viny.analysis.contrasts import contrasts, measure
from viny.analysis.effects import of_all
from viny.analysis.formats import number
from viny.analysis.frames import BLIND, Tables
from viny.analysis.names import LABELED, PRETRAINING
from viny.analysis.scaling import bare_steps
from viny.analysis.summary import against_compute, by_seed

MIOU = "mIoU (%)"
POINTS = "change in mIoU (points)"
BLIND_LOOKS = {"position": Look(QUIET, dash="dashdot"), "majority": Look(QUIET, dash="dot")}
BLIND_NAMES = {"position": "chance: commonest class of a pixel", "majority": "chance: commonest class"}
COSTS = {"samples": "training images seen, all stages", "seconds": "training time, all stages (s)"}
OTHER = {"downstream": "pretrain", "pretrain": "downstream"}
AXES = {"downstream": LABELED, "pretrain": PRETRAINING}
UNITS = {"downstream": "labels", "pretrain": "pre-training images"}
Statistics = Mapping[str, pd.DataFrame]


def measured(source: Tables, found: Statistics) -> dict[str, Chart]:
    """The charts of scores, of what each stage changes, and of growth, by name."""
    made = {
        "miou": _scores(source, found["summary"]),
        "change_by_pretraining": _changes(source, of_all(found), "pretrain"),
        "effective_data": _effective(source, found["effective_data"]),
        "gain_per_doubling": _doubling(source, found["doubling"]),
        "change_by_intermediate": _changes(source, found["effects"], "intermediate"),
        "scaling_fits": _fits(source, found["summary"], found["scaling"], found["scaling_curves"]),
        "gain_against_compute": _compute(source),
    }
    return {name: chart for name, chart in made.items() if chart}


def encoders(rows: pd.DataFrame, source: Tables) -> tuple[pd.Series, dict[str, Look]]:
    """The encoder of each row as legends name it, and the look of each encoder, the same in all charts of a study."""
    name = rows["encoder"] if "encoder" in rows else pd.Series("", rows.index)
    styles = looks(sorted(set(source.grid["pretrain"])), True, names.from_size)
    styles |= looks(source.external["encoder"], False, dash="dot")
    return name.where(name != "", rows["pretrain"].map(names.from_size)), styles


def sizes(source: Tables, axis: str) -> tuple[dict[int, str], dict[str, Look]]:
    """The label of each size on an axis, `4k labels`, and the look of each, the same in all charts of a study."""
    label = {size: f"{names.size(size)} {UNITS[axis]}" for size in sorted(set(source.grid[axis]))}
    return label, looks(label, True, label.__getitem__)


def _scores(source: Tables, summary: pd.DataFrame) -> Chart | None:
    if summary["miou_percent"].isna().all():
        return None
    confidence, rows = source.confidence, _intervals(source)
    line, styles = encoders(rows, source)
    blind = [name for name in BLIND if f"{name}_miou_percent" in summary]
    chance = summary.groupby("downstream")[[f"{name}_miou_percent" for name in blind]].first()
    panel = rows["intermediate"].map(names.panel)
    texts = [
        hover(
            f"{encoder}, {labels:,} labels",
            f"mIoU {number(row['y'])}",
            interval(row, confidence),
            row["seeds"],
            *(f"{BLIND_NAMES[name]} {number(chance.at[labels, f'{name}_miou_percent'])}" for name in blind),
        )
        for encoder, labels, (_, row) in zip(line, rows["downstream"], rows.iterrows(), strict=True)
    ]
    points = [rows.assign(panel=panel, line=line, x=rows["downstream"], hover=texts)]
    for name in blind:
        level = chance[f"{name}_miou_percent"].rename("y").reset_index()
        said = [hover(BLIND_NAMES[name], f"mIoU {number(value)}") for value in level["y"]]
        level = level.assign(x=level["downstream"], line=BLIND_NAMES[name], hover=said)
        points += [level.assign(panel=title) for title in dict.fromkeys(panel)]
        styles[BLIND_NAMES[name]] = BLIND_LOOKS[name]
    every = pd.concat(points)
    figures = panels(every, styles, size_axis(LABELED, rows["downstream"]), ranged(axis(MIOU), every))
    caption = f"Mean over the runs of a cell with its {confidence:.0%} interval."
    caption += " A line has a gap where a cell has no result." if rows["y"].isna().any() else ""
    caption += " Predictions by chance see no image." if blind else ""
    return Chart(
        "mIoU by labels and encoder", caption, figures, styles, PRETRAINING, ("x", "labels"), ["statistics/summary.csv"]
    )


def _intervals(source: Tables) -> pd.DataFrame:
    """A row per cell: its place, `y` (mean mIoU), low and high, and the scores of its seeds in words."""
    frames = []
    for encoder, cells in source.cells.groupby("encoder"):
        of, scores = measure(cells, source.shares_encoders), by_seed(cells)
        tests = contrasts(of, [{key: 1.0} for key in of.table.index], source.confidence)
        tests.index = of.table.index
        said = {key: [number(value) for value in row.dropna()] for key, row in scores.iterrows()}
        runs = of.table["n"].astype(int).astype(str) + " runs"
        words = [f"{len(v)} seeds: {', '.join(v)}" if (v := said[key]) else runs[key] for key in of.table.index]
        frame = tests.rename(columns={"effect": "y"})[["y", "low", "high"]].assign(seeds=words, encoder=encoder)
        frames.append(frame.reset_index())
    return pd.concat(frames, ignore_index=True)


def _changes(source: Tables, effects: pd.DataFrame, family: str) -> Chart | None:
    confidence, rows = source.confidence, effects[effects["family"] == family]
    if rows["effect"].isna().all():
        return None
    line, styles = encoders(rows, source)
    against = {"pretrain": "a random start", "intermediate": "the same encoder without a task"}[family]
    texts = [
        hover(
            f"{encoder}, {row['downstream']:,} labels",
            f"{number(row['effect'], signed=True)} points against {against}",
            interval(row, confidence, signed=True),
            f"p = {row['p_holm']:.2g} (Holm)" if pd.notna(row["p_holm"]) else "",
        )
        for encoder, (_, row) in zip(line, rows.iterrows(), strict=True)
    ]
    points = rows.assign(
        panel=rows["intermediate"].map(names.panel), line=line, x=rows["downstream"], y=rows["effect"], hover=texts
    )
    y = ranged(axis(POINTS, zeroline=True), points)
    figures = panels(points, styles, size_axis(LABELED, rows["downstream"]), y)
    caption = f"mIoU of each cell against {against}, with {confidence:.0%} intervals. Above zero it helps."
    return Chart(
        f"Change in mIoU against {against}",
        caption,
        figures,
        styles,
        PRETRAINING,
        ("x", "labels"),
        ["statistics/effects.csv"],
    )


def _effective(source: Tables, effective: pd.DataFrame) -> Chart | None:
    known = effective.groupby("intermediate")["equivalent"].transform("count") > 0
    confidence, rows = source.confidence, effective[known]
    if rows.empty:
        return None
    line, styles = encoders(rows, source)
    texts = []
    for encoder, row in zip(line, rows.to_dict("records"), strict=True):
        bound = {">": "more than ", "<": "fewer than "}.get(row["bound"], "")
        ends = [row["equivalent_low"], row["equivalent_high"]]
        shown = " to ".join(
            "beyond these data" if np.isinf(end) else names.size(round(end)) for end in ends if pd.notna(end)
        )
        worth = f"worth {bound}{row['equivalent']:,.0f} labels without pre-training"
        texts.append(
            hover(f"{encoder}, {row['downstream']:,} labels", worth, shown and f"{confidence:.0%} interval {shown}")
        )
    points = rows.assign(
        **{"panel": rows["intermediate"].map(names.panel), "line": line, "x": rows["downstream"], "hover": texts},
        **{"y": rows["equivalent"], "low": rows["equivalent_low"], "high": rows["equivalent_high"]},
    )
    none, labels = "worth its own labels", sorted(set(effective["downstream"]))
    diagonal = pd.DataFrame({"x": labels, "y": labels, "line": none, "hover": hover(none)})
    points = pd.concat([points, *(diagonal.assign(panel=title) for title in dict.fromkeys(points["panel"]))])
    styles[none] = Look(QUIET, dash="dot")
    figures = panels(points, styles, size_axis(LABELED, labels), size_axis("worth in labels", labels))
    caption = "Labels that a model without pre-training needs for the same mIoU. Above the dotted line pre-training "
    caption += (
        "replaces labels. Open markers with an arrow: beyond all scores without pre-training, only a bound is known."
    )
    return Chart(
        "What pre-training is worth in labels",
        caption,
        figures,
        styles,
        PRETRAINING,
        None,
        ["statistics/effective_data.csv"],
    )


def _doubling(source: Tables, doubling: pd.DataFrame) -> Chart | None:
    confidence, shown = source.confidence, bare_steps(doubling)
    if shown.empty:
        return None
    figures: list[Figure] = []
    legend: dict[str, Look] = {}
    for along, other in OTHER.items():
        rows = shown[shown["axis"] == along]
        if rows.empty:
            continue
        label, styles = sizes(source, other)
        texts = [
            hover(
                f"{label[row[other]]}, {names.size(row['from'])} to {names.size(row['to'])}",
                f"{number(row['gain'], signed=True)} points per doubling",
                interval(row, confidence, signed=True),
            )
            for row in rows.to_dict("records")
        ]
        after = rows["intermediate"].map(lambda task: "" if task == "none" else f", after {names.task(task)}")
        columns = {"panel": f"Doubling the {UNITS[along]}" + after, "line": rows[other].map(label), "hover": texts}
        middle = np.sqrt(rows["from"].astype(float) * rows["to"])
        points = rows.assign(**columns, x=middle, y=rows["gain"])
        x = size_axis(AXES[along], {*rows["from"], *rows["to"]})
        x["range"] = column(np.log10([rows["from"].min() / 1.1, rows["to"].max() * 1.1]))
        figures += panels(points, styles, x, axis("points per doubling", zeroline=True))
        legend |= styles
    caption = f"Points of mIoU per doubling, with {confidence:.0%} intervals; a point is in the middle of its step."
    return Chart("Gain per doubling", caption, figures, legend, "", ("x", "images"), ["statistics/doubling.csv"])


def _fits(source: Tables, summary: pd.DataFrame, fits: pd.DataFrame, curves: pd.DataFrame) -> Chart | None:
    if curves.empty:
        return None
    figures: list[Figure] = []
    legend: dict[str, Look] = {}
    for along, other in OTHER.items():
        label, styles = sizes(source, other)
        lines = curves[curves["axis"] == along]
        for task, here in lines.groupby("intermediate", sort=False):
            cells = summary[(summary["intermediate"] == task) & (summary["encoder"] == "") & (summary[along] > 0)]
            line = cells[other].map(label)
            texts = [
                hover(f"{at}, {n:,} images", f"mIoU {number(y)}")
                for at, n, y in zip(line, cells[along], cells["miou_percent"], strict=True)
            ]
            points = cells.assign(
                panel=names.panel(task), line=line, x=cells[along], y=cells["miou_percent"], hover=texts
            )
            dots = {name: Look(look.color, look.symbol, "") for name, look in styles.items()}
            [figure] = panels(points, dots, size_axis(AXES[along], cells[along]), axis(MIOU))
            for size, curve in here.groupby(other):
                dash = "solid" if curve["law"].iloc[0] == "power" else "dash"
                look = Look(styles[label[size]].color, dash=dash)
                figure["data"] += band(
                    label[size], look, curve.assign(x=curve[along].astype(float), y=curve["miou_percent"])
                )
            figures.append(figure)
            legend |= dots
    caption = f"Solid: saturating power laws a − b n^−c that the data determine ({int(fits['determined'].sum())} of "
    caption += f"{len(fits)} curves). Dashed: growth by the same amount per doubling describes them as well. No line: "
    caption += "neither does. Bands: bootstrap intervals."
    return Chart(
        "Laws of growth",
        caption,
        figures,
        legend,
        "",
        ("x", "images"),
        ["statistics/scaling.csv", "statistics/scaling_curves.csv"],
    )


def _compute(source: Tables) -> Chart | None:
    points = against_compute(source.grid)
    if points.empty:
        return None
    label, styles = sizes(source, "downstream")
    y, figures = ranged(axis(MIOU), points.assign(y=points["miou_percent"])), []
    for (unit, task), rows in points.groupby(["unit", "intermediate"], sort=False):
        texts = [
            hover(
                f"{names.start(row.pretrain)}, {row.downstream:,} labels",
                f"mIoU {number(row.miou_percent)}",
                f"{row.cost:,.3g} {COSTS[unit]}",
            )
            for row in rows.itertuples()
        ]
        here = rows.assign(
            **{"panel": names.panel(task), "line": rows["downstream"].map(label), "hover": texts},
            **{"x": rows["cost"], "y": rows["miou_percent"]},
        )
        figures += panels(here, styles, log_axis(COSTS[unit], rows["cost"]), y)
    caption = "Each line joins the cells with the same labels, from a random start to the largest pre-training."
    return Chart(
        "mIoU against all the compute behind it", caption, figures, styles, LABELED, ("x", "cost"), ["cells.csv"]
    )
