"""`viny export`: what trackers read back is what the runs recorded."""

import json
import math

import pytest
from fabricate import jobs, remove

from viny import cli
from viny.commands.study import job_at
from viny.errors import VinyError
from viny.grid import Study

EPOCHS = [
    {"epoch": n, "step": 10 * n, "loss": 1 / n, "learning_rate": 0.1, "images_per_second": 50.0, "seconds": 2.0 * n}
    for n in (1, 2, 3)
]
STARTED = 4102480800  # of the invented runs


@pytest.fixture
def trained(done: Study) -> Study:
    """The complete study with training curves, and its study file beside the results."""
    for job in done.jobs.values():
        (job.folder / "history.jsonl").write_text("\n".join(map(json.dumps, EPOCHS)))
    (done.folder / "study.json").write_text(done.config.model_dump_json())
    return done


def score(study: Study, job) -> dict:
    return json.loads(job.metrics.read_text())["metrics"]


@pytest.mark.parametrize("named", ["file", "folder"])
def test_tensorboard_reads_what_was_recorded(named, trained, configfile, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    output = tmp_path / "events"
    given = configfile if named == "file" else str(trained.folder)
    assert cli.main(["export", "tensorboard", given, "--output", str(output)]) == 0
    for job in trained.jobs.values():
        events = EventAccumulator(str(output / job.name)).Reload()
        curve = events.Scalars("train/loss")
        assert [(each.step, each.wall_time) for each in curve] == [(10 * n, STARTED + 2 * n) for n in (1, 2, 3)]
        assert [each.value for each in curve] == pytest.approx([1, 1 / 2, 1 / 3])
        assert events.Scalars("test/loss")[0].value == score(trained, job)["loss"]
        recorded = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        found = plugin_data_pb2.HParamsPluginData.FromString(recorded).session_start_info.hparams
        assert found["seed"].number_value == job.coordinates["seed"]
        assert found["pretrain"].number_value == job.coordinates["pretrain"]
        assert found[f"{job.section}.learning_rate"].number_value == job.settings.learning_rate
        assert found["model.width"].number_value == 16


def test_mlflow_reads_what_was_recorded(trained, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("alembic")  # which mlflow-skinny does without
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.tracking import MlflowClient

    output = tmp_path / "a folder? 100%"
    assert cli.main(["export", "mlflow", str(trained.folder), "--output", str(output)]) == 0
    database = tmp_path / "copy.db"
    (output / "mlflow.db").rename(database)
    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("toy")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == trained.jobs.keys()
    for job in trained.jobs.values():
        run = found[job.name]
        assert run.info.status == "FINISHED"
        assert run.info.start_time == 1000 * STARTED
        assert run.data.params["seed"] == str(job.coordinates["seed"])
        assert run.data.params["model.width"] == "16"
        assert float(run.data.params[f"{job.section}.learning_rate"]) == job.settings.learning_rate
        assert math.isclose(run.data.metrics["test/loss"], score(trained, job)["loss"])
        curve = client.get_metric_history(run.info.run_id, "train/loss")
        assert sorted((each.step, each.value) for each in curve) == [(10, 1), (20, 1 / 2), (30, 1 / 3)]
    cell = found[jobs(trained, "finetune")[0].name].data.metrics
    assert {"test/miou", "test/pixel_accuracy", "test/class_iou.border", "cost/train_seconds"} <= cell.keys()


def test_a_partial_study_is_exported_as_far_as_it_is_there(trained, tmp_path):
    pytest.importorskip("tensorboard")
    for job in jobs(trained, "finetune"):
        remove(job)
    assert cli.main(["export", "tensorboard", str(trained.folder), "--output", str(tmp_path / "events")]) == 0
    assert sorted(path.name for path in (tmp_path / "events").iterdir()) == ["intermediate", "pretrain"]


def test_what_is_there_stays(trained, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    assert cli.main(["export", "tensorboard", str(trained.folder), "--output", str(tmp_path / "mine")]) == 1
    assert "mine is there already; name a new folder, or remove it" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_tracker_that_is_not_installed_is_named(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.main(["export", "mlflow", str(trained.folder), "--output", str(tmp_path / "out")]) == 1
    assert "mlflow is not installed; install it with `pip install mlflow`" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_study_without_results_says_so(study, configfile, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    assert cli.main(["export", "tensorboard", configfile, "--output", str(tmp_path / "out")]) == 1
    assert "results/toy holds no finished run of toy; nothing to export" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_are_understood_where_they_have_been_moved(trained, tmp_path):
    moved = tmp_path / "other machine" / "toy"
    moved.parent.mkdir()
    trained.folder.rename(moved)
    for job in trained.jobs.values():
        assert job_at(moved / job.name)[1].name == job.name


def test_a_folder_that_is_no_run_says_so(trained, tmp_path, capsys):
    for folder in (trained.folder, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(VinyError, match="is no run of a study; name the folder of a run"):
            job_at(folder)
    pytest.importorskip("tensorboard")
    assert cli.main(["export", "tensorboard", str(tmp_path), "--output", "out"]) == 1
    assert "is no folder of a study's results: it has no study.json; name the study file" in capsys.readouterr().err
