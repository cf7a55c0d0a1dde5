"""The charts of what is to be expected (forecasts, goals) and of what stands beside a study (variants, the paper)."""

import numpy as np
import pandas as pd

from viny.analysis import heldout, names
from viny.analysis.chart import QUIET, Chart, Look, axis, hover, interval, log_axis, looks, panels, ranged, size_axis
from viny.analysis.charts import MIOU, POINTS, Statistics, encoders
from viny.analysis.forecast import FROM_SMALL
from viny.analysis.formats import number
from viny.analysis.frames import KEYS, Tables
from viny.analysis.names import LABELED, PRETRAINING
from viny.analysis.summary import tasks


def expected(source: Tables, found: Statistics) -> dict[str, Chart]:
    """The charts of forecasts, of labels needed, and of what tells before, by name."""
    made = {
        "forecast": _forecasts(source, found["forecast"]) if "forecast" in found else None,
        "isoquants": _isoquants(found["isoquants"], source.confidence) if "isoquants" in found else None,
        "heldout_loss": _heldout(source, found["heldout_loss"]) if "heldout_loss" in found else None,
    }
    return {name: chart for name, chart in made.items() if chart}


def others(source: Tables, found: Statistics) -> dict[str, Chart]:
    """The charts of variants, of the paper and of the encoders' geometry, by name."""
    made = {
        "variants": _variants(found["variants"], source.confidence) if "variants" in found else None,
        "beside_paper": _paper(source, found["beside_paper"]) if "beside_paper" in found else None,
        "similarity_by_distance": _similarity(source.similarity) if len(source.similarity) else None,
    }
    return {name: chart for name, chart in made.items() if chart}


def _forecasts(source: Tables, compared: pd.DataFrame) -> Chart | None:
    confidence, known = source.confidence, compared[compared["measured"].notna()]
    if known.empty:
        return None
    line, styles = encoders(known, source)
    texts = [
        hover(
            f"{encoder}, {names.task(row['intermediate'])}, {row['downstream']:,} labels",
            f"forecast {number(row['predicted'])}, {interval(row, confidence)}",
            f"result {number(row['measured'])}, error {number(row['error'], signed=True)}",
            f"{row['factor']:.2g} × the largest size known, {row['law']} law, made {row['made']}",
        )
        for encoder, row in zip(line, known.to_dict("records"), strict=True)
    ]
    equal = "forecast = result"
    ends = [known[["measured", "low"]].min().min(), known[["measured", "high"]].max().max()]
    made = np.where(
        known["made"] == FROM_SMALL, "From the smaller sizes alone, after the runs", "Sealed before the runs"
    )
    points = known.assign(panel=made, line=line, x=known["measured"], y=known["predicted"], hover=texts)
    diagonal = pd.DataFrame({"x": ends, "y": ends, "line": equal, "hover": hover(equal)})
    points = pd.concat([points, *(diagonal.assign(panel=title) for title in dict.fromkeys(made))])
    styles = {name: Look(look.color, look.symbol, "") for name, look in styles.items()}
    styles[equal] = Look(QUIET, dash="dot")
    figures = panels(points, styles, axis(f"result, {MIOU}"), ranged(axis(f"forecast, {MIOU}"), points))
    inside = int((known["error_in_intervals"].abs() <= 1).sum())
    caption = f"{inside} of {len(known)} results lie in the {confidence:.0%} interval of their forecast."
    return Chart("Forecasts against results", caption, figures, styles, PRETRAINING, None, ["statistics/forecast.csv"])


def _isoquants(needed: pd.DataFrame, confidence: float) -> Chart | None:
    used = sorted(size for size in set(needed["pretrain"]) if size > 0)
    if not used:
        return None
    step = used[1] / used[0] if len(used) > 1 else 4
    at = {0: used[0] / step} | {
        size: float(size) for size in used
    }  # no pre-training stands a step left of the smallest
    label = {goal: f"{goal:g} % mIoU" for goal in sorted(set(needed["goal"]))}
    texts = []
    for row in needed.to_dict("records"):
        bound = {">": "more than ", "<": "fewer than "}.get(row["bound"], "")
        ends = [row["labels_low"], min(row["labels_high"], row["checked_to"])]
        shown = f"{confidence:.0%} interval {ends[0]:,.3g} to {ends[1]:,.3g}" if not bound else ""
        outside = "beyond the measured sizes" if not bound and row["labels"] > row["measured_to"] else ""
        head = f"{label[row['goal']]}, {names.from_size(row['pretrain'])} images"
        texts.append(hover(head, f"{bound}{round(row['labels']):,} labels", shown, outside))
    exact = needed["bound"] == ""
    points = needed.assign(
        **{"panel": needed["intermediate"].map(names.panel), "line": needed["goal"].map(label), "hover": texts},
        **{"x": needed["pretrain"].map(at), "y": needed["labels"]},
        low=needed["labels_low"].where(exact & (needed["labels_low"] > 0)),
        high=needed["labels_high"].clip(upper=needed["checked_to"]).where(exact),
    )
    most, end = float(needed["measured_to"].max()), "most labels measured"
    reach = pd.DataFrame({"x": [min(at.values()), max(at.values())], "y": most, "line": end, "hover": hover(end)})
    points = pd.concat([points, *(reach.assign(panel=title) for title in dict.fromkeys(points["panel"]))])
    styles = looks(label, True, label.__getitem__) | {end: Look(QUIET, dash="dot")}
    x = size_axis(PRETRAINING, used)
    if (needed["pretrain"] == 0).any():
        x |= {"tickvals": [at[0], *x["tickvals"]], "ticktext": ["0", *x["ticktext"]]}
    figures = panels(points, styles, x, log_axis("labels needed", points["y"]))
    caption = (
        "Labels that reach the same mIoU after different amounts of pre-training; intervals hold the error of the "
    )
    caption += "law. Above the dotted line no labels were measured. Open markers with an arrow: only a bound is known."
    return Chart("Labels for the same mIoU", caption, figures, styles, "", None, ["statistics/isoquants.csv"])


def _heldout(source: Tables, correlations: pd.DataFrame) -> Chart | None:
    if (correlations["reason"] != "").all():
        return None
    shown = heldout.points(source.grid)
    task = "none" if "none" in set(shown["intermediate"]) else shown["intermediate"].iloc[0]
    shown = shown[shown["intermediate"] == task]
    said = correlations[(correlations["intermediate"] == task) & (correlations["among"] == heldout.ALL)]
    titles = {
        row.downstream: f"{row.downstream:,} labels"
        + ("" if row.reason else f", rank correlation {row.correlation:.2f}")
        for row in said.itertuples()
    }
    line, styles = encoders(shown, source)
    texts = [
        hover(f"{encoder} images", f"held-out loss {row['pretrain_loss']:.4g}", f"mIoU {number(row['miou_percent'])}")
        for encoder, row in zip(line, shown.to_dict("records"), strict=True)
    ]
    columns = {"panel": shown["downstream"].map(titles), "x": shown["pretrain_loss"], "y": shown["miou_percent"]}
    points = shown.assign(**columns, line=line, hover=texts)
    styles = {name: Look(look.color, look.symbol, "") for name, look in styles.items()}
    figures = panels(points, styles, axis("held-out pre-training loss"), axis(MIOU))
    caption = (
        "Does the loss on held-out images, known before any label, say what segmentation will score? A point per run."
    )
    return Chart(
        "Pre-training loss against mIoU", caption, figures, styles, PRETRAINING, None, ["statistics/heldout_loss.csv"]
    )


def _variants(compared: pd.DataFrame, confidence: float) -> Chart | None:
    rows = compared[(compared["scope"] == "cell") & compared["effect"].notna()]
    if rows.empty:
        return None
    places = [" / ".join(names.place(*cell)) for cell in rows[KEYS].values]
    styles = {name: Look(look.color, look.symbol, "") for name, look in looks(places, False).items()}
    texts = [
        hover(
            f"{row['variant']}, {place}",
            f"{number(row['effect'], signed=True)} points",
            interval(row, confidence, True),
        )
        for place, row in zip(places, rows.to_dict("records"), strict=True)
    ]
    order = {name: i for i, name in enumerate(dict.fromkeys(compared["variant"]))}
    aside = {name: 0.5 * (i / max(len(styles) - 1, 1) - 0.5) for i, name in enumerate(styles)}
    x = [order[variant] + aside[place] for variant, place in zip(rows["variant"], places, strict=True)]
    points = rows.assign(panel="", line=places, x=x, y=rows["effect"], hover=texts)
    ticks = {"tickvals": list(order.values()), "ticktext": [hover(name)[3:-4] for name in order]}
    figures = panels(points, styles, axis("", **ticks), axis(f"{POINTS}, against the study itself", zeroline=True))
    caption = f"Each variant against the study itself, cell by cell, with {confidence:.0%} intervals."
    return Chart("What each variant changes", caption, figures, styles, "", None, ["statistics/variants.csv"])


def _paper(source: Tables, beside: pd.DataFrame) -> Chart | None:
    rows = beside[(beside["metric"] == "miou") & beside["published"].notna()]
    if rows["ours"].isna().all():
        return None
    line, styles = encoders(rows, source)
    texts = [
        hover(
            f"{encoder}, {row['downstream']:,} labels",
            f"this study {number(row['ours'])}, the paper {number(row['published'])}",
            f"difference {number(row['difference'], signed=True)} ± {number(row['combined_se'])} (standard error)",
        )
        for encoder, row in zip(line, rows.to_dict("records"), strict=True)
    ]
    error = rows["combined_se"].fillna(rows["published_se"])
    ends = {"y": rows["difference"], "low": rows["difference"] - error, "high": rows["difference"] + error}
    points = rows.assign(
        panel=rows["intermediate"].map(names.panel), line=line, x=rows["downstream"], hover=texts, **ends
    )
    y = ranged(axis("this study − the paper (points)", zeroline=True), points)
    figures = panels(points, styles, size_axis(LABELED, rows["downstream"]), y)
    caption = "mIoU of this study minus that of the paper, for the cells that both have, with standard errors."
    return Chart(
        "Beside the paper", caption, figures, styles, PRETRAINING, ("x", "labels"), ["statistics/beside_paper.csv"]
    )


def _similarity(similarity: pd.DataFrame) -> Chart | None:
    similarity = similarity.sort_values(["encoder", "pretrain"], kind="stable")
    starts = [names.start(*at) for at in similarity[["pretrain", "encoder"]].itertuples(index=False)]
    groups = similarity.assign(start=starts).groupby(["start", "intermediate", "distance"], sort=False)
    curves = groups["similarity"].agg(["mean", "sem"]).astype(float).reset_index()
    line = curves["intermediate"].map(names.task)
    texts = [
        hover(f"{start}, {task}", f"similarity {number(row['mean'])} at a distance of {row['distance']:g} patches")
        for start, task, row in zip(curves["start"], line, curves.to_dict("records"), strict=True)
    ]
    ends = {"y": curves["mean"], "low": curves["mean"] - curves["sem"], "high": curves["mean"] + curves["sem"]}
    points = curves.assign(panel="Encoder: " + curves["start"], line=line, x=curves["distance"], hover=texts, **ends)
    styles = looks(tasks(similarity), False, names.task)
    figures = panels(points, styles, axis("Manhattan distance (patches)"), ranged(axis("cosine similarity"), points))
    caption = (
        "Similarity of two patch tokens against the distance of their patches, with standard errors over seeds. A "
    )
    caption += "flat line: all patches of an image look alike to the encoder."
    return Chart("Similarity of patches", caption, figures, styles, "Intermediate task", None, ["similarity.csv"])
