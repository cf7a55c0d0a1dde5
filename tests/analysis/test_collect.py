"""Results of a study become tidy files; what does not belong together is refused."""

import json

import pandas as pd
import pytest
from invented import declaration, fill, miou, write_result

from viny.analysis import collect
from viny.analysis.files import read_cells
from viny.errors import VinyError
from viny.study import Study


@pytest.fixture
def folder(toy):
    collect.write(toy, toy.folder, "dataset")
    return toy.folder


def run(study, *coordinates):
    """The fine-tuning job at (pretrain, intermediate, downstream, seed)."""
    (job,) = (job for job in study.jobs("finetune") if tuple(job.coordinates.values()) == coordinates)
    return job


def change(job, edit):
    result = json.loads(job.metrics.read_text())
    edit(result)
    job.metrics.write_text(json.dumps(result))


def test_one_row_per_declared_cell_with_its_scores(folder):
    cells = read_cells(folder / "cells.csv")
    assert len(cells) == 3 * 2 * 2 * 3
    assert set(cells["status"]) == {"done"}
    cell = cells[(cells["pretrain"] == 256) & (cells["intermediate"] == "cls_intel") & (cells["seed"] == 3)].iloc[1]
    score = 100 * miou(256, "cls_intel", 128, 3)
    assert cell["downstream"] == 128
    assert cell["miou_percent"] == pytest.approx(score)
    assert cell["miou_per_image_percent"] == pytest.approx(score - 1)
    assert cell["accuracy_percent"] == pytest.approx(score + 20)
    assert cell["iou_border_percent"] == pytest.approx(score)
    assert cell["precision"] == "fp32"


def test_cost_of_a_cell_names_what_its_encoder_cost(folder):
    cells = read_cells(folder / "cells.csv").set_index(["pretrain", "intermediate", "downstream", "seed"])
    assert cells.loc[(1024, "cls_intel", 32, 1), ["pretrain_passes", "intermediate_passes"]].tolist() == [2048, 2048]
    assert cells.loc[(1024, "none", 32, 1), ["pretrain_passes", "intermediate_passes"]].tolist() == [2048, 0]
    assert cells.loc[(0, "cls_intel", 32, 1), ["pretrain_passes", "intermediate_passes"]].tolist() == [0, 1200]
    assert cells.loc[(0, "none", 32, 1), ["pretrain_seconds", "image_passes"]].tolist() == [0, 64]


def test_a_shared_encoder_counts_in_every_seed(tmp_path):
    study = Study.from_config(declaration(tmp_path, share_encoder=True))
    fill(study)
    collect.write(study, tmp_path / "out", "dataset")
    cells = read_cells(tmp_path / "out/cells.csv")
    assert set(cells.loc[cells["pretrain"] == 1024, "pretrain_passes"]) == {2048}


def test_headline_may_be_the_mean_over_images(toy):
    collect.write(toy, toy.folder, "per_image")
    cells = read_cells(toy.folder / "cells.csv")
    assert (cells["miou_percent"] == cells["miou_per_image_percent"]).all()


def test_missing_cells_stay_as_missing(toy):
    run(toy, 256, "none", 32, 2).metrics.unlink()
    assert collect.write(toy, toy.folder, "dataset") == (35, 36)
    cells = read_cells(toy.folder / "cells.csv")
    missing = cells[cells["status"] == "missing"]
    assert len(cells) == 36
    assert missing[["pretrain", "downstream", "seed"]].values.tolist() == [[256, 32, 2]]
    assert missing["miou_percent"].isna().all()


def test_other_training_code_is_refused_and_the_odd_one_named(toy):
    odd = run(toy, 256, "none", 32, 2)
    change(odd, lambda result: result["provenance"].update(code="other"))
    with pytest.raises(VinyError, match="2 versions of the training code") as error:
        collect.write(toy, toy.folder, "dataset")
    assert str(odd.folder) in str(error.value)
    assert str(run(toy, 256, "none", 32, 1).folder) not in str(error.value)
    assert not (toy.folder / "cells.csv").exists()


def test_other_settings_are_refused_and_the_difference_named(toy):
    odd = run(toy, 0, "none", 32, 2)
    changed = {"epochs": 7, "learning_rate": 2e-3, "optimizer": "adamw", "precision": "fp32", "milestones": [1]}
    write_result(odd, json.loads(odd.metrics.read_text())["metrics"], settings=changed)
    with pytest.raises(VinyError, match=r"finetune\.epochs is 7 instead of 2"):
        collect.write(toy, toy.folder, "dataset")


def test_a_result_from_an_encoder_trained_anew_is_refused(toy):
    encoder = next(job for job in toy.jobs("pretrain") if job.coordinates == {"pretrain": 256, "seed": 2})
    change(encoder, lambda result: result.update(outputs={"encoder.safetensors": "e2"}))
    with pytest.raises(VinyError, match="another encoder than the one in") as error:
        collect.write(toy, toy.folder, "dataset")
    assert str(encoder.folder) in str(error.value)


def test_stages_may_differ_in_code_and_settings(toy):
    for job in toy.jobs("pretrain"):
        change(job, lambda result: result["provenance"].update(code="other", settings="another"))
    assert collect.write(toy, toy.folder, "dataset") == (36, 36)


def test_moved_or_damaged_results_are_refused(toy):
    here, there = run(toy, 0, "none", 32, 1), run(toy, 0, "none", 32, 2)
    original = here.metrics.read_text()
    here.metrics.write_text(there.metrics.read_text())
    with pytest.raises(VinyError, match="moved or copied"):
        collect.write(toy, toy.folder, "dataset")
    here.metrics.write_text(original[:50])
    with pytest.raises(VinyError, match="damaged"):
        collect.write(toy, toy.folder, "dataset")
    here.metrics.write_text("{}")
    with pytest.raises(VinyError, match="lacks stage"):
        collect.write(toy, toy.folder, "dataset")


def test_histories_costs_and_geometry(folder):
    histories = pd.read_csv(folder / "histories.csv")
    jobs = 2 * 3 + 3 * 3 + 36  # encoders, intermediate encoders, cells
    assert len(histories) == 2 * jobs
    assert histories.loc[histories["epoch"] == 2, "loss"].eq(0.5).all()
    costs = pd.read_csv(folder / "costs.csv")
    assert costs.groupby("stage").size().to_dict() == {"pretrain": 6, "intermediate": 9, "finetune": 36, "geometry": 15}
    geometry = pd.read_csv(folder / "geometry.csv")
    assert geometry.loc[geometry["seed"] == 3, "across_image_variance"].tolist() == pytest.approx([0.06] * 5)
    assert set(geometry["probe_accuracy_percent"]) == {75.0}
    similarity = pd.read_csv(folder / "similarity.csv")
    assert len(similarity) == 15 * 15


def test_settings_are_those_that_the_jobs_recorded(folder):
    settings = json.loads((folder / "settings.json").read_text())
    assert list(settings["stages"]) == ["pretrain", "intermediate cls_intel", "finetune", "geometry"]
    finetune = settings["stages"]["finetune"]
    assert (finetune["declared"], finetune["done"]) == (36, 36)
    assert finetune["settings"]["finetune"]["learning_rate"] == 2e-3
    assert finetune["devices"] == {"cpu": 36}


def test_command_reads_the_declaration(toy, capsys):
    arguments = ["--config", json.dumps(toy.declaration), "--output", str(toy.folder)]
    assert collect.main(arguments) == 0
    assert "36 of 36 cells" in capsys.readouterr().err
    run(toy, 0, "none", 32, 1).metrics.write_text("no json")
    assert collect.main(arguments) == 1
    assert "viny: error" in capsys.readouterr().err
