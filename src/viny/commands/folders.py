"""Runs that commands are given as folders, wherever the results around them have been moved."""

from pathlib import Path

from viny.config import load
from viny.errors import VinyError
from viny.grid import Job, Study

KEPT = "study.json"  # the study as it was run


def study_at(path: Path) -> Study:
    """The study of a study file, or of the folder of its results.

    Raises:
        VinyError: there is neither, or the file is not valid.
    """
    if not path.is_dir():
        return Study(load(path))
    folder = path.resolve()
    if not (folder / KEPT).is_file():
        raise VinyError(f"{path} holds no {KEPT}; name a study file, or the folder of a study's results")
    # Not laid over the file, which may name no folder outside the working directory, or with a space.
    return Study(load(folder / KEPT).model_copy(update={"results": str(folder.parent), "study": folder.name}))


def job_at(folder: Path) -> tuple[Study, Job]:
    """The job whose results a folder holds, and its study.

    Raises:
        VinyError: it is not a run's folder within the results of a study.
    """
    own = folder.resolve()
    for above in own.parents:
        if (above / KEPT).is_file():
            study = study_at(above)
            for job in study.jobs.values():
                if job.folder == own:
                    return study, job
            break
    raise VinyError(
        f"{folder} is no run of a study; name the folder of a run within the study's results, such as "
        "results/demo/pretrain/pretrain=4096/seed=1"
    )
