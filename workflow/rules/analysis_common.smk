# What the analysis rules have in common: collections of cells, names of files, what the report shows.
import json
import re

from viny.config import PUBLISHED
from viny.provenance import fingerprint

RESULTS = STUDY.config["results"]
SO_FAR = f"{STUDY.name}/so-far"


wildcard_constraints:
    collection="|".join(map(re.escape, (STUDY.name, SO_FAR, PUBLISHED))),


def in_folder(*names):
    """Patterns of files in the folder of a collection; the pattern alone where there is one."""
    patterns = [f"{RESULTS}/{{collection}}/{name}" for name in names]
    return patterns[0] if len(patterns) == 1 else patterns


def in_study(*names):
    """Files in the folder of the study, by the same names."""
    paths = [f"{STUDY.folder}/{name}" for name in names]
    return paths[0] if len(paths) == 1 else paths


def analysis_log(name):
    """Log of an analysis job of a collection."""
    return f"logs/{{collection}}/analysis/{name}.log"


def data_note(wildcards):
    """Flag with a word on the data that figures and pages of a collection carry, where there is one to say."""
    if getattr(wildcards, "collection", None) == PUBLISHED:
        return "--note 'published values, arXiv:2512.03862'"
    return "--note 'procedural images, not a result about real ones'" if STUDY.procedural else ""


def folder_of(wildcards, output):
    """Folder of a job's first output."""
    return Path(output[0]).parent


def code(module):
    """Fingerprint of an analysis module, so that its results follow a change of its code."""
    return lambda wildcards: code_fingerprint(f"viny.analysis.{module}")


def shown(path, what, category, caption):
    """A file that the report shows under `what`."""
    return report(
        path,
        category=category,
        labels={"shows": what},
        caption=f"../report/{caption}.rst",
    )


def first_cells():
    """The cells whose example images are shown: of each encoder the fewest labels and the first seed."""
    chosen = {}
    for job in sorted(STUDY.jobs("finetune"), key=lambda job: job.coordinates["downstream"]):
        at = job.coordinates
        chosen.setdefault((at["pretrain"], at["intermediate"]), job)
    return [job.folder / "examples.npz" for job in chosen.values()]


def first_encoders():
    """The measured encoders whose similarity maps are shown: the first seed of each."""
    chosen = {}
    for job in STUDY.jobs("geometry"):
        chosen.setdefault((job.coordinates["pretrain"], job.coordinates["intermediate"]), job)
    return [job.folder / "similarity.npz" for job in chosen.values()]


def encoder_figures(suffix):
    """One figure of reconstructions per pre-trained encoder."""
    return [
        in_study(
            f"figures/reconstructions/pretrain={job.coordinates['pretrain']}_seed={job.coordinates['seed']}.{suffix}"
        )
        for job in STUDY.jobs("pretrain")
    ]


TABLES = {
    "table1_from_scratch": "Table 1: without pre-training",
    "tableA1_settings": "Table A1: optimization settings",
    "tableA2_pretrained": "Table A2: after pre-training",
    "tableA3_intermediate": "Table A3: with an intermediate task",
    "table2_geometry": "Table 2 (v2): geometry of the encoders",
}
FIGURES = {
    "miou": "mIoU by pre-training and fine-tuning size",
    "change_by_pretraining": "Change by pre-training",
    "change_by_intermediate": "Change by intermediate task",
    "scaling_fits": "Scaling fits",
    "gain_per_doubling": "Gain per doubling of data",
    "effective_data": "What pre-training is worth in labels",
    "gain_against_compute": "mIoU against compute",
}
COLLECTED = [
    *["cells.csv", "costs.csv", "histories.csv", "geometry.csv", "similarity.csv"],
    "settings.json",
]
# What a complete analysis of any collection of cells ends with.
CONCLUSIONS = [
    *(f"figures/{name}.{suffix}" for name in FIGURES for suffix in ("png", "pdf")),
    *(f"tables/{name}.{suffix}" for name in TABLES for suffix in ("csv", "md", "tex")),
    *["claims.md", "claims.json", "statistics/overall.csv", "statistics/returns.csv"],
    "overview.html",
]


# What is made of the variants of a study, besides what the report shows.
VARIANTS = [
    *["variants.csv", "statistics/variants.csv", "figures/variants.pdf"],
    *(f"tables/variants.{suffix}" for suffix in ("csv", "md", "tex")),
]
TRAINED = ("pretrain", "intermediate", "finetune")  # the stages that variants are compared by


def has_variants(wildcards):
    """Whether a collection of cells has variants to show."""
    return bool(STUDY.variants) and wildcards.collection != PUBLISHED


def there(jobs):
    """Fingerprint of the results that are there."""
    return fingerprint([[str(job.metrics), job.metrics.stat().st_mtime] for job in jobs if job.metrics.exists()])


def share_encoder(wildcards):
    """The flag that says that all seeds start from one pre-trained encoder a size."""
    shared = STUDY.config["grid"]["share_encoder"] and wildcards.collection != PUBLISHED
    return "--share-encoder" if shared else ""
