"""How fast this machine is: from its own finished runs, else from a short calibration."""

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from viny.grid import STAGES
from viny.operations.work import tested_images
from viny.provenance import fingerprint
from viny.study import Study

CALIBRATION = "calibration"
_PACE = ("precision", "batch_size")  # settings that decide how fast a run is
_PATIENCE = 300  # seconds that a calibration may take


@dataclass(frozen=True)
class Rate:
    """What a run of one kind costs.

    Attributes:
        images_per_second: of training (of everything, for geometry).
        startup: seconds before the first update. evaluate: seconds of measuring at the end.
        source: `12 finished runs` or CALIBRATION.
    """

    images_per_second: float
    startup: float
    evaluate: float
    source: str

    def seconds(self, image_passes: int) -> float:
        """Time of a job."""
        return self.startup + image_passes / self.images_per_second + self.evaluate


Rates = dict[tuple[str, str], Rate]  # by variant and kind


@dataclass(frozen=True)
class Device:
    """What the study would run on here."""

    kind: str
    name: str


def this_device(wanted: str) -> Device:
    """The device that `compute.device` means on this machine, without importing torch."""
    if wanted != "cpu" and shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        with suppress(OSError, subprocess.TimeoutExpired):
            found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
            names = found.stdout.splitlines()
            if found.returncode == 0 and names:
                return Device("cuda", names[0].strip())
    return Device("cpu", _processor())


def by_variant(study: Study, kinds: Mapping[str, Collection[str]], device: Device, calibrations: dict) -> Rates:
    """Rates of the runs of a study and its variants; those that differ in nothing that takes time share one.

    Args:
        kinds: the kinds of runs that are asked for, by variant.
        calibrations: earlier ones, used again and added to.
    """
    found: dict[str, Rate] = {}
    for member in study.family:
        unknown = {kind for kind in kinds[member.variant] if _pace(member, kind) not in found}
        known = from_finished_runs(member, device, unknown) if unknown else {}
        if unknown - known.keys():
            known |= calibrate(member, device, unknown - known.keys(), calibrations)
        found |= {_pace(member, kind): rate for kind, rate in known.items()}
    paces = {(member.variant, kind): _pace(member, kind) for member in study.family for kind in kinds[member.variant]}
    return {run: found[pace] for run, pace in paces.items() if pace in found}


def from_finished_runs(study: Study, device: Device, kinds: Collection[str]) -> dict[str, Rate]:
    """Rates by kind of job, from all results on the same device with the same model, precision and batch size."""
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for document in _results(Path(study.config["results"])):
        kind = _kind(document)
        if kind in kinds and _alike(study, document, device):
            runs[kind].append(document)
    return {kind: _rate(study, kind, documents) for kind, documents in runs.items()}


def calibrate(study: Study, device: Device, kinds: Collection[str], known: dict[str, Any]) -> dict[str, Rate]:
    """Rates by kind, from a few steps of each on random images in a process of its own.

    Args:
        known: earlier calibrations by fingerprint; used again, and added to.

    A kind that cannot be measured is left out.
    """
    request = {
        "model": study.config["model"],
        "sections": {kind: study.section(_section(kind)) for kind in sorted(kinds) if kind != "geometry"},
        "store_pixels": study.config["data"]["store_pixels"],
        "compute": {**study.config["compute"], "device": device.kind},
    }
    if "geometry" in kinds or not request["sections"]:
        request["sections"]["finetune"] = study.config["finetune"]
    identity = fingerprint([request, device.name])
    if identity not in known:
        asked = json.dumps({**request, "started": time.time()})
        try:
            done = subprocess.run(
                [sys.executable, "-m", "viny.operations.calibrate"],
                input=asked,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=True,
            )
            known[identity] = json.loads(done.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return {}
    return {kind: _calibrated(study, kind, known[identity]) for kind in kinds}


def as_json(rates: Rates) -> dict[str, Any]:
    """For plan.json, by kind and variant."""
    return {f"{kind} {variant}".rstrip(): asdict(rate) for (variant, kind), rate in rates.items()}


def _pace(study: Study, kind: str) -> str:
    """Fingerprint of what the time of a run depends on, besides the number of images and the device."""
    section = study.section(_section(kind))
    values = [section.get(key) for key in _PACE]
    return fingerprint([kind, study.config["model"], values, tested_images(study, kind)])


def _calibrated(study: Study, kind: str, measured: dict[str, Any]) -> Rate:
    seen = measured["finetune" if kind == "geometry" else kind]
    if kind == "geometry":  # looks at every image once and trains a small probe on tokens
        return Rate(1 / seen["evaluate_seconds_per_image"], measured["startup_seconds"], 0.0, CALIBRATION)
    evaluate = seen["evaluate_seconds_per_image"] * tested_images(study, kind)
    return Rate(seen["images_per_second"], measured["startup_seconds"], evaluate, CALIBRATION)


def _rate(study: Study, kind: str, documents: list[dict[str, Any]]) -> Rate:
    number = len(documents)
    source = f"{number:,} finished run{'' if number == 1 else 's'}"
    total = sum(document["budget"]["image_passes"] for document in documents)
    startup = median(document["cost"]["startup_seconds"] for document in documents)
    if kind == "geometry":
        return Rate(total / sum(document["cost"]["evaluate_seconds"] for document in documents), startup, 0.0, source)
    evaluate = median(_scaled_evaluation(study, kind, document) for document in documents)
    return Rate(total / sum(document["cost"]["train_seconds"] for document in documents), startup, evaluate, source)


def _scaled_evaluation(study: Study, kind: str, document: dict[str, Any]) -> float:
    """Seconds of measuring, for as many images as this study measures on (where the result says how many it did)."""
    key = {"pretrain": "heldout_images", "finetune": "test_images"}.get(kind)
    scale = tested_images(study, kind) / document["settings"][kind][key] if key else 1.0
    return document["cost"]["evaluate_seconds"] * scale


def _alike(study: Study, document: dict[str, Any], device: Device) -> bool:
    """Whether a result tells something about the speed of this study's runs here."""
    made, section = document["provenance"], _section(_kind(document))
    values, declared = document["settings"][section], study.section(section)
    threads = made.get("compute", {}).get("threads")
    return (
        made["device_name"] == device.name
        and document["settings"]["model"] == study.config["model"]
        and all(values.get(key) == declared.get(key) for key in _PACE)
        and (device.kind == "cuda" or threads == study.config["compute"]["threads"])
        and document["budget"]["image_passes"] > 0
        and max(document["cost"]["train_seconds"], document["cost"]["evaluate_seconds"]) > 0
    )


def _results(root: Path) -> Iterator[dict[str, Any]]:
    """All results below a folder that are fit for counting; damaged ones are `viny verify`'s to name."""
    for stage in STAGES:
        for path in itertools.chain(*(root.glob(f"{at}/{stage}/**/metrics.json") for at in ("*", "*/variants/*"))):
            try:
                document = json.loads(path.read_text(encoding="utf-8"))
                document["settings"][_section(_kind(document))], document["settings"]["model"]
                document["provenance"]["device_name"], document["budget"]["image_passes"], document["cost"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield document


def _kind(document: dict[str, Any]) -> str:
    stage = document["stage"]
    return f"intermediate {document['coordinates']['intermediate']}" if stage == "intermediate" else stage


def _section(kind: str) -> str:
    return kind.replace(" ", ".")


def _processor() -> str:
    """The processor's name as the stages record it."""
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return "cpu"
