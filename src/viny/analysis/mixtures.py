"""Refusing to put into one table what does not belong together, and saying what differs within it."""

from collections import defaultdict
from collections.abc import Mapping

import pandas as pd

from viny.errors import VinyError
from viny.grid import Job
from viny.result import Result

SHOWN = 6  # folders named in a message
# Columns of cells.csv and costs.csv that say how a run was computed, and what people call them.
COMPUTE = ["device", "device_name", "threads", "float32_products", "attention", "precision", "torch"]
DIFFERENCES = {
    "device": "kind of device",
    "float32_products": "arithmetic of float32 products",
    "precision": "precision",
    "threads": "number of threads",
    "torch": "version of torch",
}

Results = Mapping[Job, Result | None]


def refuse_mixtures(results: Results, settings: bool = True) -> None:
    """Stop when jobs of one kind ran with different training code or different settings.

    Such results would differ for another reason than the grid's, and a table could not show it.

    Args:
        settings: whether settings must be equal; those of a study and its variants need not.

    Raises:
        VinyError: names the odd ones (all but the most frequent version) and says what to do.
    """
    for what, key in [("training code", "code"), ("settings", "settings")][: 1 + settings]:
        kinds: dict[tuple[str, str], dict[str, list[Job]]] = defaultdict(lambda: defaultdict(list))
        for job, result in results.items():
            if result:  # an encoder of another architecture has code of its own
                kinds[job.kind, job.architecture][getattr(result.provenance, key)].append(job)
        for (kind, _), versions in kinds.items():
            if len(versions) > 1:
                raise VinyError(_mixture(kind, what, versions, results))


def refuse_other_encoders(results: Results) -> None:
    """Stop when a result started from another encoder than the one that is now in its place.

    Raises:
        VinyError: names the result and the encoder.
    """
    for job, result in results.items():
        made = results[job.upstream] if job.upstream else None
        if result and made and job.upstream:
            now, then = made.outputs.get(job.upstream.checkpoint.name), result.provenance.inputs.get("encoder")
            if now and then and now != then:
                raise VinyError(
                    f"{job.folder} started from another encoder than the one in {job.upstream.folder}, which was "
                    "trained again since; delete the former and run snakemake again"
                )


def compute_differences(cells: pd.DataFrame, costs: pd.DataFrame) -> list[str]:
    """One sentence for each way in which runs of one stage were computed differently; numbers may depend on it.

    Args:
        cells: cells.csv. costs: costs.csv; without rows the cells alone are compared.
    """
    runs = costs if len(costs) else cells.assign(stage="finetune")
    sentences = []
    for column, what in DIFFERENCES.items():
        for stage, group in runs.groupby("stage", sort=False) if column in runs else []:
            met = group[column].dropna().map("{:g}".format if group[column].dtype == float else str).value_counts()
            if len(met) > 1:
                shown = ", ".join(f"{value} ({count:,})" for value, count in met.items())
                sentences.append(f"Runs of {stage} differ in their {what}: {shown}.")
    return sentences


def _mixture(kind: str, what: str, groups: Mapping[str, list[Job]], results: Results) -> str:
    (version, usual), *odd = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines = [
        f"results of {kind} were made with {len(groups)} versions of the {what}; they cannot share a table:",
        f"  {len(usual)} of {sum(map(len, groups.values()))} with {version}",
    ]
    for version, jobs in odd:
        lines.append(f"  {len(jobs)} with {version}{_difference(results[usual[0]], results[jobs[0]])}:")
        lines += [f"    {job.folder}" for job in jobs[:SHOWN]]
        lines += [f"    and {len(jobs) - SHOWN} more"] if len(jobs) > SHOWN else []
    lines.append(
        "Delete the folders of the version you do not want and run snakemake again, or give the new version a `study:` "
        "name of its own."
    )
    return "\n".join(lines)


def _difference(one: Result | None, other: Result | None) -> str:
    """`, where finetune.epochs is 3 instead of 5`: the settings in which two results differ."""
    here, there = (
        pd.json_normalize(result.settings).to_dict("records")[0] if result else {} for result in (one, other)
    )
    keys = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
    return (", where " if keys else "") + ", ".join(f"{k} is {there.get(k)} instead of {here.get(k)}" for k in keys)
