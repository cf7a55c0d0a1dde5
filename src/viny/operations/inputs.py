"""What a job reads, as the config declares it: settings, encoder, stores."""

from pathlib import Path

from viny.grid import NONE, Job, Store
from viny.study import Study


def section_of(job: Job) -> str:
    """The section of the config that holds a job's own settings."""
    return f"intermediate.{job.coordinates['intermediate']}" if job.stage == "intermediate" else job.stage


def encoder_of(study: Study, job: Job) -> Path | None:
    """The encoder file that a job starts from."""
    place = job.coordinates
    match job.stage:
        case "pretrain":
            return None
        case "intermediate":
            return study.encoder(place["pretrain"], NONE, place["seed"])
    return study.encoder(place["pretrain"], place["intermediate"], place["seed"])


def stores_of(study: Study, job: Job) -> dict[str, Store]:
    """The stores that a job reads, by the role under which metrics.json records them."""
    match job.stage:
        case "pretrain":
            return {"store": study.pretrain_store(job.coordinates["pretrain"])}
        case "intermediate":
            stores = study.task_stores(job.coordinates["intermediate"])
            return {"store": stores["train"], "test_store": stores.get("test", stores["train"])}
        case "geometry":
            return {"store": study.geometry_store()}
    return {"store": study.finetune_store(job.coordinates["downstream"])}
