"""The grid: which cells there are, what they share, and where everything lies."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viny.config import load
from viny.config.cells import Cell, cells_of
from viny.config.sections import Grid
from viny.grid import Study
from viny.grid.stores import identity

SMALL = {
    "study": "small",
    "grid": {"pretrain": [0, 100], "intermediate": ["none", "cls_intel"], "downstream": [10, 20], "seeds": [1, 2]},
}
ROOT = Path(__file__).parents[1]


def study(**sections):
    return Study(load(SMALL | sections))


def grid(**keys):
    return {**SMALL["grid"], **keys}


def counts(made):
    stages = Counter(job.stage for job in made.members[""])
    return [stages[stage] for stage in ("pretrain", "intermediate", "finetune", "geometry")]


def cell(made, **at):
    """The fine-tuning job of a cell."""
    wanted = {"pretrain": 100, "intermediate": "none", "downstream": 10, "seed": 1} | at
    return next(job for job in made.members[""] if job.stage == "finetune" and dict(job.coordinates) == wanted)


def test_the_papers_grid():
    assert counts(Study(load(ROOT / "workflow/studies/paper.yaml"))) == [9, 9, 126, 0]


def test_the_papers_grid_with_the_cells_it_leaves_out():
    assert counts(Study(load({}))) == [9, 12, 144, 0]


def test_the_second_version_shares_one_encoder_and_measures_each():
    assert counts(Study(load(ROOT / "workflow/studies/paper-v2.yaml"))) == [1, 9, 12, 10]


def test_each_encoder_is_trained_once():
    assert counts(study()) == [2, 4, 16, 0]
    assert len(study().jobs) == 22


def test_an_encoder_that_no_cell_needs_is_not_trained():
    made = study(grid=grid(exclude=[{"intermediate": "cls_intel", "seed": 2}, {"pretrain": 100, "seed": 2}]))
    assert counts(made) == [1, 2, 10, 0]


def test_a_shared_encoder_is_shared_by_seeds_and_tasks():
    made = study(grid=grid(share_encoder=True))
    assert counts(made) == [1, 4, 16, 0]
    assert cell(made).upstream.coordinates == {"pretrain": 100, "seed": "shared"}
    assert cell(made).upstream.seed == 0
    assert cell(made).upstream is cell(made, seed=2).upstream
    tuned = [cell(made, intermediate="cls_intel", seed=seed).upstream for seed in (1, 2)]
    assert tuned[0] is not tuned[1]
    assert tuned[0].upstream is tuned[1].upstream is cell(made).upstream


def test_geometry_measures_each_encoder_once():
    assert counts(study(geometry={"enabled": True})) == [2, 4, 16, 6]
    assert counts(study(geometry={"enabled": True}, grid=grid(share_encoder=True))) == [1, 4, 16, 5]


def test_where_a_cell_starts():
    made = study()
    assert cell(made, pretrain=0).encoder is None
    assert cell(made, pretrain=0).upstream is None
    assert str(cell(made).encoder) == "results/small/pretrain/pretrain=100/seed=1/encoder.safetensors"
    tuned = cell(made, pretrain=0, intermediate="cls_intel", seed=2)
    folder = "results/small/intermediate/pretrain=0/intermediate=cls_intel/seed=2"
    assert str(tuned.encoder) == f"{folder}/encoder.safetensors"


def test_a_job_knows_its_kind_and_place():
    jobs = list(study().jobs.values())
    assert (jobs[0].kind, jobs[0].coordinates) == ("pretrain", {"pretrain": 100, "seed": 1})
    assert (jobs[-1].kind, jobs[-1].stage, jobs[-1].task) == ("finetune", "finetune", "segmentation")
    assert jobs[-1].name == "finetune/pretrain=100/intermediate=cls_intel/downstream=20/seed=2"
    assert str(jobs[-1].folder) == f"results/small/{jobs[-1].name}"
    assert str(jobs[-1].log) == f"logs/small/{jobs[-1].name}.log"
    assert {job.kind for job in jobs if job.stage == "intermediate"} == {"intermediate cls_intel"}


axis = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
entries = st.dictionaries(
    st.sampled_from(Cell._fields), st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1), min_size=1
)


@given(pretrain=axis, downstream=axis, seeds=axis, exclude=st.lists(entries, max_size=3))
def test_exclude_takes_away_what_matches_all_keys_of_an_entry(pretrain, downstream, seeds, exclude):
    axes = {"pretrain": pretrain, "intermediate": [0, 1], "downstream": downstream, "seeds": seeds}
    left = list(cells_of(Grid.model_construct(**axes, exclude=exclude)))
    assert len(set(left)) == len(left)

    def matches(cell, entry):
        return all(getattr(cell, key) in (v if isinstance(v, list) else [v]) for key, v in entry.items())

    everything = list(cells_of(Grid.model_construct(**axes, exclude=[])))
    assert len(everything) == len(pretrain) * 2 * len(downstream) * len(seeds)
    assert left == [cell for cell in everything if not any(matches(cell, entry) for entry in exclude)]


# Images


def stores(made):
    return {(store.name, store.pixels, store.tests, store.images) for store in made.stores}


def test_a_store_is_as_large_as_its_readers_need():
    made = study(finetune={"test_images": 50}, pretrain={"heldout_images": 7}, model={"image_size": 64})
    assert stores(made) == {("imagenet", 160, 7, 100), ("intel", 64, None, None), ("pets", 64, 50, 20)}


def test_only_what_is_needed_is_decoded():
    assert {name for name, *_ in stores(study(grid=grid(pretrain=[0], intermediate=["none"])))} == {"pets"}


def test_tasks_on_pets_leave_out_the_images_that_segmentation_is_tested_on():
    made = study(grid=grid(intermediate=["cls_pets", "spatial_pets"]), finetune={"test_images": 50})
    assert {place for place in stores(made) if place[0] == "pets"} == {("pets", 128, 50, None)}
    few = study(grid=grid(intermediate=["cls_pets"]), intermediate={"cls_pets": {"count": 30}})
    assert {place for place in stores(few) if place[0] == "pets"} == {("pets", 128, 1000, 30)}
    measured = study(geometry={"enabled": True})
    assert {place for place in stores(measured) if place[0] == "pets"} == {("pets", 128, 1000, 2000)}


def test_pretraining_on_the_downstream_set_leaves_out_its_test_images():
    made = study(pretrain={"images": "pets", "heldout_images": 7}, finetune={"test_images": 50})
    assert cell(made).upstream.store.tests == 50


def test_stores_are_keyed_by_their_source():
    one, other = study(), study(data={"sets": {"pets": {"images": "elsewhere"}}})
    assert cell(one).store.folder != cell(other).store.folder
    assert cell(one).store.content == cell(other).store.content
    made = study(stores="/big/stores", data={"split_seed": 3})
    folder = cell(made).store.folder
    assert folder.parent.parent == Path("/big/stores")
    assert folder.name == "128px-seed3-test1000-train20"


def test_real_images_are_below_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(cell(study()).store.source) == "data/oxford-iiit-pet"
    assert str(cell(study(data={"root": "~/images"})).store.source) == "/home/ada/images/oxford-iiit-pet"
    tar = study(data={"imagenet": "ILSVRC2012_img_train.tar"})
    assert str(cell(tar).upstream.store.source) == "data/ILSVRC2012_img_train.tar"


def test_paths_have_one_spelling():
    assert [str(cell(study(results=text)).folder).split("/")[0] for text in ("out", "./out", "out/")] == ["out"] * 3


def generated(**recipe):
    return study(data={"procedural": recipe}, pretrain={"heldout_images": 9}, finetune={"test_images": 9})


def test_generated_images_lie_apart_by_recipe():
    one, same, other = (cell(generated(**recipe)).upstream.store for recipe in ({}, {}, {"imagenet": 900}))
    assert one.folder == same.folder
    assert one.folder != other.folder
    assert cell(generated()).store.source == cell(generated(imagenet=900)).store.source


# Keys: what defines a run


def keys(made, stage):
    return [job.key for job in made.members[""] if job.stage == stage]


def test_a_setting_changes_the_runs_that_it_concerns_and_what_starts_from_them():
    one = study()
    rate = study(finetune={"learning_rate": 1.0e-3}, analysis={"confidence": 0.9})
    assert keys(one, "pretrain") == keys(rate, "pretrain")
    assert keys(one, "intermediate") == keys(rate, "intermediate")
    assert not set(keys(one, "finetune")) & set(keys(rate, "finetune"))
    masked = study(pretrain={"mask_ratio": 0.6})
    unchanged = set(keys(one, "finetune")) & set(keys(masked, "finetune"))
    assert len(unchanged) == 8  # the cells without pre-training


def test_how_to_compute_and_where_files_are_define_no_run():
    one = study()
    other = study(
        compute={"threads": 4, "device": "cuda", "compile": True},
        results="out",
        stores="big",
        data={"root": "/scratch"},
    )
    assert [job.key for job in one.jobs.values()] == [job.key for job in other.jobs.values()]


def test_an_encoder_from_outside_is_told_by_its_content(tmp_path):
    def at(text):
        (tmp_path / "encoder.safetensors").write_text(text)
        made = Study(load(SMALL, {"data": {"root": str(tmp_path)}, "grid": {"pretrain": ["mine"]},
                                  "encoders": {"mine": {"file": "encoder.safetensors"}}}))  # fmt: skip
        return cell(made, pretrain="mine")

    one = at("a")
    assert one.encoder == tmp_path / "encoder.safetensors"
    assert one.upstream is None
    first = one.key
    identity.cache_clear()
    assert at("b").key != first
    assert str(one.folder).endswith("pretrain=mine/intermediate=none/downstream=10/seed=1")


# Variants


def varied(**variants):
    return study(variants=variants)


def own(made, name):
    """Names of the runs that a variant does not share."""
    return [job.name for job in made.members[name] if job.variant == name]


def test_a_variant_of_fine_tuning_shares_the_encoders():
    made = varied(raw={"finetune": {"normalize": False}})
    assert len(own(made, "raw")) == 16
    assert own(made, "raw")[0] == "variants/raw/finetune/pretrain=0/intermediate=none/downstream=10/seed=1"
    encoders = {job.encoder for job in made.members["raw"] if job.stage == "finetune"}
    assert encoders == {job.encoder for job in made.members[""] if job.stage == "finetune"}
    assert len(made.jobs) == 2 + 4 + 16 + 16


def test_a_variant_of_pretraining_shares_what_starts_from_random_weights():
    made = varied(more={"pretrain": {"mask_ratio": 0.6}})
    assert not any("pretrain=0" in name for name in own(made, "more"))
    assert len(own(made, "more")) == 2 + 2 + 8
    [encoder] = {
        job.encoder for job in made.members["more"] if job.stage == "intermediate" and job.encoder and job.seed == 1
    }
    assert str(encoder) == "results/small/variants/more/pretrain/pretrain=100/seed=1/encoder.safetensors"


def test_a_variant_of_a_task_has_its_encoders_and_their_cells():
    made = varied(adam={"intermediate": {"cls_intel": {"optimizer": "adam"}}})
    assert len(own(made, "adam")) == 4 + 8
    assert all("intermediate=cls_intel" in name for name in own(made, "adam"))


def test_a_variant_of_how_results_are_summarized_runs_nothing():
    assert own(varied(image={"analysis": {"miou": "per_image"}}), "image") == []


def test_a_variant_with_a_shared_encoder_trains_it():
    made = varied(one={"grid": {"share_encoder": True}})
    assert own(made, "one")[0] == "variants/one/pretrain/pretrain=100/seed=shared"
    assert len(own(made, "one")) == 1 + 2 + 8


def test_a_variant_may_have_fewer_cells():
    made = varied(some={"seeding": "split_only", "grid": {"exclude": [{"pretrain": 100}, {"intermediate": "none"}]}})
    assert own(made, "some")[0] == "variants/some/intermediate/pretrain=0/intermediate=cls_intel/seed=1"
    assert len(own(made, "some")) == 2 + 4


def test_images_that_only_a_variant_needs_are_decoded():
    made = varied(few={"finetune": {"test_images": 50}})
    assert {("pets", 128, 1000, 20), ("pets", 128, 50, 20)} <= stores(made)


def test_a_variant_with_another_split_has_other_test_images_and_other_subsets():
    made = varied(other={"data": {"split_seed": 1}})
    assert len(own(made, "other")) == len(made.members[""])
    seeds = {name: {job.store.split_seed for job in made.members[name]} for name in made.members}
    assert seeds == {"": {0}, "other": {1}}
    pairs = {store.name: store for store in made.stores if store.split_seed == 0}
    for store in made.stores:
        assert (store.tests, store.images) == (pairs[store.name].tests, pairs[store.name].images)
        assert {tested.split_seed for tested in store.tested} <= {store.split_seed}
    assert len(made.stores) == 2 * len(pairs)
    without = varied(labels={"data": {"split_seed": 1}, "grid": {"exclude": [{"pretrain": 100}]}})
    assert not any("stage=pretrain" in name or "pretrain=100" in name for name in own(without, "labels"))


def test_variants_leave_the_study_itself_alone():
    made = varied(raw={"finetune": {"normalize": False}})
    assert [(job.name, job.key) for job in made.members[""]] == [(job.name, job.key) for job in study().members[""]]


def test_studies_of_fidelity_have_one_variant_for_each_choice():
    made = Study(load(ROOT / "workflow/studies/fidelity.yaml"))
    assert len(made.members) == 1 + 14
    assert all(own(made, name) for name in made.members if name not in ("", "miou_per_image"))


@pytest.mark.parametrize("cells", [{}, {"seeds": [3]}])
def test_jobs_come_after_what_they_start_from(cells):
    names = list(study(grid=grid(**cells)).jobs)
    for job in study(grid=grid(**cells)).jobs.values():
        assert job.upstream is None or names.index(job.upstream.name) < names.index(job.name)


def test_an_encoder_of_another_architecture_has_code_of_its_own_also_after_a_task():
    made = Study(load(SMALL, {"grid": {"pretrain": [0, "tiny"]}, "encoders": {"tiny": {"timm": "test_vit"}}}))
    assert cell(made, pretrain=0).architecture == "vit"
    alone, tuned = cell(made, pretrain="tiny"), cell(made, pretrain="tiny", intermediate="cls_intel")
    assert alone.architecture == tuned.architecture == tuned.upstream.architecture == "timm_vit"
    assert alone.code == tuned.code != cell(made, pretrain=0).code


def test_images_of_labels_alone_are_resized_in_another_way():
    usual, nearest = study(), study(data={"resize": "nearest"})
    for one, other in zip(usual.jobs.values(), nearest.jobs.values(), strict=True):
        assert (one.store.key == other.store.key) == (one.stage == "pretrain")
        assert (one.store.content == other.store.content) == (one.stage == "pretrain")
