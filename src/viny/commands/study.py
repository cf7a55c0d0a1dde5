"""What commands are about: a study, named by its file or its results, or a table of cells."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from viny.config import load, yamlfile
from viny.errors import UsageError, VinyError
from viny.grid import Job, Study

if TYPE_CHECKING:
    from viny.analysis.frames import Tables

DEFAULT = Path("config.yaml")
RECORDED = "study.json"  # the study file in a folder of results
PROCEDURAL = "procedural images, not a result about real ones"


def tables_of(args: argparse.Namespace) -> tuple["Tables", str]:
    """The tables that a command line names, and a note on their data for figures.

    Raises:
        UsageError: more than one source is named.
        VinyError: the source is not valid.
    """
    if args.published and (args.study or args.configfile or args.config):
        raise UsageError("give either --published or a study")

    from viny.analysis import frames, observed, published

    if args.published:
        return published.tables(), published.NOTE
    if args.study and args.study.suffix == ".csv":
        if args.configfile or args.config:
            raise UsageError(f"give either {args.study} or a study (--configfile, --config)")
        return frames.from_csv(args.study), ""
    study = study_of(args)
    return observed.from_study(study), PROCEDURAL if study.config.data.procedural else ""


def study_of(args: argparse.Namespace) -> Study:
    """The study that a command line names; from here on the folder where Snakemake works is the working directory.

    Of a folder of results this is the folder that the paths in its study.json are relative to.

    Raises:
        UsageError: a study is named twice, a folder is not there, or a setting is not of the form KEY=VALUE.
        VinyError: the study is not valid.
    """
    if args.study and args.configfile:
        raise UsageError(f"the study is named twice: {args.study} and --configfile {args.configfile[0]}")
    files, settings = args.configfile or [args.study or DEFAULT], [_override(text) for text in args.config]
    directory = args.directory or Path()
    if files[0].is_dir():
        directory, there = _results(files[0], directory)
        files, settings = [files[0] / RECORDED], [there, *settings]
    if directory != Path():  # shown in messages as they were given, where that is the same file
        files = [path.absolute() for path in files]
    try:
        os.chdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"--directory {directory}: there is no such folder") from None
    return Study(load(*files, *settings))


def job_at(folder: Path) -> tuple[Study, Job]:
    """The job whose results a folder holds, and its study, wherever the results have been moved.

    Raises:
        VinyError: it is not a run's folder within the results of a study.
    """
    own = folder.resolve()
    for above in own.parents:
        if (above / RECORDED).is_file():
            # Not laid over the file, which may name no folder outside the working directory, or with a space.
            moved = {"results": str(above.parent), "study": above.name}
            study = Study(load(above / RECORDED).model_copy(update=moved))
            for job in study.jobs.values():
                if job.folder == own:
                    return study, job
            break
    raise VinyError(
        f"{folder} is no run of a study; name the folder of a run within the study's results, such as "
        "results/demo/pretrain/pretrain=4096/seed=1"
    )


def _results(folder: Path, directory: Path) -> tuple[Path, dict[str, Any]]:
    """Where Snakemake works on the study of a folder of results, and settings for results that lie elsewhere."""
    file = folder / RECORDED
    if not file.is_file():
        raise VinyError(f"{folder} is no folder of a study's results: it has no {RECORDED}; name the study file")
    config, full = load(file), folder.resolve()
    if full.name != config.study:
        raise VinyError(f"{folder} holds results of the study {config.study}: give it back the name {config.study}")
    made = Path(config.results) / config.study
    above = full.parents[len(made.parts) - 1] if len(full.parts) > len(made.parts) else full
    if (directory / made).resolve() == full:
        return directory, {}
    if directory == Path() and above / made == full:
        return Path(os.path.relpath(above)), {}
    return directory, {"results": str(full.parent)}


def _override(text: str) -> dict[str, Any]:
    """`study=mine`, `finetune.epochs=3` or `grid={seeds: [1]}` as settings."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--config {text}: is not of the form KEY=VALUE")
    try:
        settings = yamlfile.parse(value)
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"--config {text}: {yamlfile.said(error)}") from None
    for part in reversed(key.split(".")):
        settings = {part: settings}
    return settings
