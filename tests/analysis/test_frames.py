"""Results of a study become tidy files; what does not belong together is refused."""

import json

import pandas as pd
import pytest
from invented import change, fill, jobs, miou, run, segmentation, study_of, write_result
from simulated import study as simulated

from viny.analysis import frames, published
from viny.analysis.frames import from_csv
from viny.analysis.mixtures import compute_differences
from viny.analysis.observed import from_study
from viny.analysis.summary import summarize
from viny.errors import VinyError


def test_one_row_per_declared_cell_with_its_scores(toy):
    cells = from_study(toy).cells
    assert len(cells) == 3 * 2 * 2 * 3
    assert set(cells["status"]) == {"done"}
    cell = cells[(cells["pretrain"] == 256) & (cells["intermediate"] == "cls_intel") & (cells["seed"] == 3)].iloc[1]
    score = 100 * miou(256, "cls_intel", 128, 3)
    assert cell["downstream"] == 128
    assert cell["miou_percent"] == pytest.approx(score)
    assert cell["miou_per_image_percent"] == pytest.approx(score - 1)
    assert cell["accuracy_percent"] == pytest.approx(200 * score / (100 + score))
    assert cell["iou_border_percent"] == pytest.approx(score)
    compute = ["device", "threads", "float32_products", "attention", "precision", "torch"]
    assert cell[compute].tolist() == ["cpu", 1, "float32", "explicit", "fp32", "2.9"]


def test_classes_of_any_number_become_columns(tmp_path):
    study = study_of(tmp_path, pretrain=[0], geometry=False)
    fill(study, ("water", "kelp"))
    run(study, 0, "none", 32, 1).metrics.unlink()
    cells = from_study(study).cells
    assert [name for name in cells if name.startswith("iou_")] == ["iou_water_percent", "iou_kelp_percent"]
    assert cells["iou_kelp_percent"].isna().sum() == 1


def test_cost_of_a_cell_names_what_its_encoder_cost(toy):
    cells = from_study(toy).cells.set_index(["pretrain", "intermediate", "downstream", "seed"])
    assert cells.loc[(1024, "cls_intel", 32, 1), ["pretrain_samples", "intermediate_samples"]].tolist() == [2048, 2048]
    assert cells.loc[(1024, "none", 32, 1), ["pretrain_samples", "intermediate_samples"]].tolist() == [2048, 0]
    assert cells.loc[(0, "cls_intel", 32, 1), ["pretrain_samples", "intermediate_samples"]].tolist() == [0, 1200]
    assert cells.loc[(0, "none", 32, 1), ["pretrain_seconds", "samples_seen"]].tolist() == [0, 64]


def test_a_shared_encoder_counts_in_every_seed(tmp_path):
    study = study_of(tmp_path, share_encoder=True)
    fill(study)
    tables = from_study(study)
    assert set(tables.cells.loc[tables.cells["pretrain"] == 1024, "pretrain_samples"]) == {2048}
    assert tables.settings["share_encoder"]


def test_encoders_from_elsewhere_are_kept_out_of_the_grid(tmp_path):
    study = study_of(tmp_path, pretrain=[0, 256, "released"])
    fill(study)
    tables = from_study(study)
    assert set(tables.grid["pretrain"]) == {0, 256}
    assert set(tables.external["encoder"]) == {"released"}
    assert set(tables.external["pretrain"]) == {0}
    assert tables.external["pretrain_seconds"].isna().all()
    assert set(tables.geometry["encoder"]) == {"", "released"}


def test_headline_may_be_the_mean_over_images(tmp_path):
    study = study_of(tmp_path, variants={"image": {"analysis": {"miou": "per_image"}}}, geometry=False)
    fill(study)
    variants = from_study(study).variants
    image = variants[variants["variant"] == "image"]
    assert (image["miou_percent"] == image["miou_per_image_percent"]).all()


def test_missing_cells_stay_as_missing(toy):
    run(toy, 256, "none", 32, 2).metrics.unlink()
    cells = from_study(toy).cells
    missing = cells[cells["status"] == "missing"]
    assert len(cells) == 36
    assert missing[["pretrain", "downstream", "seed"]].values.tolist() == [[256, 32, 2]]
    assert missing["miou_percent"].isna().all()


def test_nothing_there_yet_is_all_missing(tmp_path):
    tables = from_study(study_of(tmp_path))
    assert set(tables.cells["status"]) == {"missing"}
    assert tables.costs.empty


def test_other_training_code_is_refused_and_the_odd_one_named(toy):
    odd = run(toy, 256, "none", 32, 2)
    change(odd, lambda result: result["provenance"].update(code="other"))
    with pytest.raises(VinyError, match="2 versions of the training code") as error:
        from_study(toy)
    assert str(odd.folder) in str(error.value)
    assert str(run(toy, 256, "none", 32, 1).folder) not in str(error.value)


def test_other_settings_are_refused_and_the_difference_named(toy):
    write_result(run(toy, 0, "none", 32, 2), segmentation(0.4), settings={"epochs": 7})
    with pytest.raises(VinyError, match=r"finetune\.epochs is 7 instead of 2"):
        from_study(toy)


def test_a_result_from_an_encoder_trained_anew_is_refused(toy):
    encoder = next(job for job in jobs(toy, "pretrain") if job.coordinates == {"pretrain": 256, "seed": 2})
    change(encoder, lambda result: result.update(outputs={"encoder.safetensors": "f" * 64}))
    with pytest.raises(VinyError, match="another encoder than the one in") as error:
        from_study(toy)
    assert str(encoder.folder) in str(error.value)


def test_stages_may_differ_in_code_and_settings(toy):
    for job in jobs(toy, "pretrain"):
        change(job, lambda result: result["provenance"].update(code="other", settings="another"))
    assert set(from_study(toy).cells["status"]) == {"done"}


def test_moved_results_are_refused(toy):
    here, there = run(toy, 0, "none", 32, 1), run(toy, 0, "none", 32, 2)
    here.metrics.write_text(there.metrics.read_text())
    with pytest.raises(VinyError, match="moved or copied"):
        from_study(toy)


def test_histories_costs_and_geometry(toy):
    tables = from_study(toy)
    stages = {"pretrain": 6, "intermediate": 9, "finetune": 36, "geometry": 15}
    assert len(tables.histories) == 2 * (6 + 9 + 36)
    assert tables.histories.loc[tables.histories["epoch"] == 2, "loss"].eq(0.5).all()
    assert tables.costs.groupby("stage").size().to_dict() == stages
    geometry = tables.geometry
    assert geometry.loc[geometry["seed"] == 3, "across_image_variance"].tolist() == pytest.approx([0.06] * 5)
    assert set(geometry["probe_accuracy_percent"]) == {75.0}
    assert len(tables.similarity) == 15 * 15


def test_settings_are_those_that_the_jobs_recorded(toy):
    settings = from_study(toy).settings
    assert list(settings["stages"]) == ["pretrain", "intermediate cls_intel", "finetune", "geometry"]
    finetune = settings["stages"]["finetune"]
    assert (finetune["declared"], finetune["done"]) == (36, 36)
    assert finetune["settings"]["finetune"]["learning_rate"] == 2e-3
    assert finetune["devices"] == {"cpu": 36}


def test_runs_that_were_computed_differently_are_named(toy):
    assert compute_differences(from_study(toy).cells, from_study(toy).costs) == []
    change(run(toy, 0, "none", 32, 1), lambda result: result["provenance"]["compute"].update(threads=4))
    change(jobs(toy, "pretrain")[0], lambda result: result["provenance"].update(device="cuda"))
    tables = from_study(toy)
    sentences = ["Runs of pretrain differ in their kind of device: cpu (5), cuda (1).",
                 "Runs of finetune differ in their number of threads: 1 (35), 4 (1)."]  # fmt: skip
    assert compute_differences(tables.cells, tables.costs) == sentences
    assert compute_differences(tables.cells, tables.costs[:0]) == sentences[1:]


@pytest.mark.parametrize("source", ["study", "published"])
def test_tables_read_back_as_they_were_written(toy, tmp_path, source):
    tables = from_study(toy) if source == "study" else published.tables()
    tables.write(tmp_path)
    again = from_csv(tmp_path / "cells.csv")
    for name in ("cells", "costs", "geometry", "similarity", "histories"):
        one, other = getattr(tables, name), getattr(again, name)
        if len(one):
            pd.testing.assert_frame_equal(one, other, check_dtype=False, check_like=True)
    assert again.settings["stages"] == json.loads(json.dumps(tables.settings["stages"]))
    assert again.name == tables.name


def test_files_of_older_versions_are_read(tmp_path):
    cells = published.published_cells().rename(columns={new: old for old, new in frames.RENAMED.items()})
    cells.drop(columns="encoder").to_csv(tmp_path / "cells.csv", index=False)
    again = from_csv(tmp_path / "cells.csv")
    assert {"samples_seen", "pretrain_samples", "intermediate_samples", "encoder"} <= set(again.cells)
    pd.testing.assert_frame_equal(summarize(again.grid), summarize(published.published_cells()), check_dtype=False)


def test_reading_names_what_is_wrong(tmp_path):
    path = tmp_path / "cells.csv"
    with pytest.raises(VinyError, match="does not exist"):
        from_csv(path)
    path.write_text("study,pretrain\nx,1\n")
    with pytest.raises(VinyError, match=r"lacks the column.*intermediate"):
        from_csv(path)
    path.write_text("")
    with pytest.raises(VinyError, match="not a CSV table"):
        from_csv(path)
    simulated(lambda *_: 50, [0], [250]).to_csv(path, index=False)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(VinyError, match=r"settings.json does not hold"):
        from_csv(path)


def test_the_word_none_is_a_task_and_not_a_missing_value(tmp_path):
    simulated(lambda *_: 50, [0], [250]).to_csv(tmp_path / "cells.csv", index=False)
    assert set(from_csv(tmp_path / "cells.csv").cells["intermediate"]) == {"none"}


def test_claims_beside_a_table_are_checked(tmp_path):
    published.published_cells().to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "settings.json").write_text('{"stages": {}, "claims": {"mine": {"says": 1}}}')
    with pytest.raises(VinyError, match=r"settings\.json does not hold a study's settings"):
        frames.from_csv(tmp_path / "cells.csv")
