"""Numbers in a metrics.json that must agree with each other; those that do not were not written by a run."""

import math
from collections.abc import Iterator
from typing import Any

CLASSES = ("foreground", "background", "border")
_TOLERANCE = 1e-6


def contradictions(document: dict[str, Any]) -> Iterator[str]:
    """What in a valid metrics.json contradicts itself: segmentation scores and confusion matrix, budget and cost."""
    if document["stage"] == "finetune":
        yield from _scores(document["metrics"])
    budget, cost = document["budget"], document["cost"]
    passes = cost["images_per_second"] * cost["train_seconds"]
    if document["stage"] != "geometry" and not math.isclose(passes, budget["image_passes"], rel_tol=0.01):
        shown = f"{budget['image_passes']:,} image passes"
        yield f"metrics.json: images_per_second times train_seconds is {passes:,.0f}, not {shown}"


def _scores(metrics: dict[str, Any]) -> Iterator[str]:
    confusion = metrics["confusion"]
    truth, predicted = [sum(row) for row in confusion], [sum(column) for column in zip(*confusion, strict=True)]
    right = [confusion[i][i] for i in range(3)]
    unions = [t + p - r for t, p, r in zip(truth, predicted, right, strict=True)]
    iou = [r / u if u else math.nan for r, u in zip(right, unions, strict=True)]
    present = [value for value in iou if not math.isnan(value)]
    expected = {f"class_iou.{name}": value for name, value in zip(CLASSES, iou, strict=True)}
    expected["pixel_accuracy"] = sum(right) / max(sum(truth), 1)
    expected["miou"] = sum(present) / len(present) if present else math.nan
    recorded = {f"class_iou.{name}": metrics["class_iou"][name] for name in CLASSES} | metrics
    for name, value in expected.items():
        found = math.nan if recorded[name] is None else recorded[name]
        if not (math.isnan(value) and math.isnan(found)) and not math.isclose(found, value, abs_tol=_TOLERANCE):
            yield f"metrics.json: {name} is {found:.6f}, but the confusion matrix says {value:.6f}"
