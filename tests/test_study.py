"""The grid: which cells there are, what they share, and where everything lies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viny.grid import Cell, Store, enumerate_cells
from viny.study import Study

SMALL = {
    "study": "small",
    "grid": {"pretrain": [0, 100], "intermediate": ["none", "cls_intel"], "downstream": [10, 20], "seeds": [1, 2]},
}
ROOT = Path(__file__).parents[1]


def study(**sections):
    return Study.from_config(SMALL | sections)


def grid(**keys):
    return {**SMALL["grid"], **keys}


def counts(made):
    return [len(made.jobs(stage)) for stage in ("pretrain", "intermediate", "finetune", "geometry")]


def test_the_papers_grid():
    assert counts(Study.from_config(ROOT / "workflow/studies/paper.yaml")) == [9, 9, 126, 0]


def test_the_papers_grid_with_the_cells_it_leaves_out():
    assert counts(Study.from_config({})) == [9, 12, 144, 0]


def test_the_second_version_shares_one_encoder_and_measures_each():
    made = Study.from_config(ROOT / "workflow/studies/paper-v2.yaml")
    assert counts(made) == [1, 9, 12, 10]


def test_each_encoder_is_trained_once():
    jobs = study().jobs()
    assert len({job.folder for job in jobs}) == len(jobs)
    assert counts(study()) == [2, 4, 16, 0]


def test_an_encoder_that_no_cell_needs_is_not_trained():
    made = study(grid=grid(exclude=[{"intermediate": "cls_intel", "seed": 2}, {"pretrain": 100, "seed": 2}]))
    assert counts(made) == [1, 2, 10, 0]


def test_a_shared_encoder_is_shared_by_seeds_and_tasks():
    made = study(grid=grid(share_encoder=True))
    assert counts(made) == [1, 4, 16, 0]
    assert made.jobs("pretrain")[0].coordinates == {"pretrain": 100, "seed": "shared"}
    assert made.encoder(100, "none", 1) == made.encoder(100, "none", 2)
    assert made.encoder(100, "cls_intel", 1) != made.encoder(100, "cls_intel", 2)


def test_geometry_measures_each_encoder_once():
    made = study(geometry={"enabled": True})
    assert counts(made) == [2, 4, 16, 6]
    shared = study(geometry={"enabled": True}, grid=grid(share_encoder=True))
    assert counts(shared) == [1, 4, 16, 5]


def test_where_a_cell_starts():
    made = study()
    assert made.encoder(0, "none", 1) is None
    assert str(made.encoder(100, "none", 1)) == "results/small/pretrain/pretrain=100/seed=1/encoder.safetensors"
    assert (
        str(made.encoder("0", "cls_intel", "2"))
        == "results/small/intermediate/pretrain=0/intermediate=cls_intel/seed=2/encoder.safetensors"
    )


def test_a_cells_folder_says_what_it_holds():
    cell = Cell(45000, "cls_intel", 250, 1)
    folder = study().run_folder("finetune", **cell._asdict())
    assert str(folder) == "results/small/finetune/pretrain=45000/intermediate=cls_intel/downstream=250/seed=1"


def test_a_job_knows_its_kind_and_place():
    first, *_, last = study().jobs()
    assert (first.kind, first.coordinates) == ("pretrain", {"pretrain": 100, "seed": 1})
    assert (last.kind, last.stage) == ("finetune", "finetune")
    assert last.coordinates == {"pretrain": 100, "intermediate": "cls_intel", "downstream": 20, "seed": 2}
    assert {job.kind for job in study().jobs("intermediate")} == {"intermediate cls_intel"}
    assert last.metrics == last.folder / "metrics.json"


axis = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)
entries = st.dictionaries(
    st.sampled_from(Cell._fields), st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1), min_size=1
)


@given(pretrain=axis, downstream=axis, seeds=axis, exclude=st.lists(entries, max_size=3))
def test_exclude_takes_away_what_matches_all_keys_of_an_entry(pretrain, downstream, seeds, exclude):
    axes = {"pretrain": pretrain, "intermediate": [0, 1], "downstream": downstream, "seeds": seeds}
    left = list(enumerate_cells({**axes, "exclude": exclude}))
    assert len(set(left)) == len(left)

    def matches(cell, entry):
        return all(getattr(cell, key) in (v if isinstance(v, list) else [v]) for key, v in entry.items())

    everything = list(enumerate_cells({**axes, "exclude": []}))
    assert len(everything) == len(pretrain) * 2 * len(downstream) * len(seeds)
    assert left == [cell for cell in everything if not any(matches(cell, entry) for entry in exclude)]


# Images


def test_a_store_is_asked_for_as_many_images_as_its_reader_needs():
    made = study(finetune={"test_images": 50}, pretrain={"heldout_images": 7}, model={"image_size": 64})
    assert made.stores() == [
        Store("imagenet", 160, 107),
        Store("intel-train", 64, None),
        Store("intel-test", 64, None),
        Store("pets", 64, 60),
        Store("pets", 64, 70),
    ]


def test_a_larger_size_leaves_the_inputs_of_the_others_alone():
    small, large = study(), study(grid=grid(downstream=[10, 20, 3000], pretrain=[0, 100, 5000]))
    assert set(small.stores()) < set(large.stores())
    assert small.manifest(small.finetune_store(10)) == large.manifest(large.finetune_store(10))


def test_only_what_is_needed_is_asked_for():
    made = study(grid=grid(pretrain=[0], intermediate=["none"]))
    assert {store.dataset for store in made.stores()} == {"pets"}


def test_tasks_on_pets_count_the_test_images_that_they_leave_out():
    made = study(intermediate={"cls_pets": {"images": 30}}, finetune={"test_images": 50})
    assert made.task_stores("cls_pets") == {"train": Store("pets", 128, 80)}
    assert made.task_stores("spatial_pets") == {"train": Store("pets", 128, None)}
    assert made.geometry_store() == Store("pets", 128, 2050)


def test_manifests_tell_store_and_part():
    made = study(data={"order_seed": 3}, stores="/big/stores")
    assert str(made.manifest(Store("imagenet", 160, 107))) == "/big/stores/imagenet/160px-order3/first=107.json"
    assert str(made.manifest(Store("intel-test", 64, None))) == "/big/stores/intel-test/64px-order3/all.json"


def test_real_images_are_below_the_root(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert str(study().source("intel-test")) == "data/intel"
    assert str(study(data={"root": "~/images"}).source("pets")) == "/home/ada/images/oxford-iiit-pet"
    assert str(study(data={"imagenet": "ILSVRC2012_img_train.tar"}).source("imagenet")) == (
        "data/ILSVRC2012_img_train.tar"
    )


def generated(**recipe):
    return study(data={"procedural": recipe}, pretrain={"heldout_images": 9}, finetune={"test_images": 9})


def test_generated_images_lie_apart_by_recipe():
    one, other = generated(), generated(imagenet=900)
    store = Store("imagenet", 48, 10)
    assert one.manifest(store) == generated().manifest(store)
    assert one.manifest(store) != other.manifest(store)
    assert one.source("pets") == other.source("pets")
    assert one.procedural_marker("intel-train") == one.procedural_marker("intel-test")
    folder = one.source("imagenet").parents[1]
    assert one.procedural_marker("imagenet") == folder / "imagenet.json"
    assert f"procedural-{folder.name}-imagenet" in one.manifest(store).parts


# Flags


def test_a_stage_gets_its_own_settings_and_no_others():
    one, other = study(), study(finetune={"learning_rate": 1.0e-3}, analysis={"confidence": 0.9})
    assert one.flags("pretrain") == other.flags("pretrain")
    assert one.flags("intermediate", "cls_intel") == other.flags("intermediate", "cls_intel")
    assert one.flags("finetune") != other.flags("finetune")


def test_how_to_compute_is_no_part_of_a_stages_settings():
    one, other = study(), study(compute={"threads": 4, "device": "cuda", "compile": True})
    for stage in ("pretrain", "finetune", "geometry"):
        assert one.flags(stage) == other.flags(stage)


@pytest.mark.parametrize(("stage", "task"), [("geometry", None), ("intermediate", "cls_pets")])
def test_whoever_trains_on_pets_knows_the_test_images(stage, task):
    assert "--test-images 50" in study(finetune={"test_images": 50}).flags(stage, task)


def test_the_declaration_tells_the_jobs_and_nothing_of_training():
    sizes = {"pretrain": [0, 100], "downstream": [7000], "intermediate": ["none", "cls_pets"]}  # with few test images
    one = study(finetune={"test_images": 9, "learning_rate": 1.0e-3}, compute={"threads": 4}, grid=grid(**sizes))
    assert one.declaration == study(finetune={"test_images": 9}, grid=grid(**sizes)).declaration
    assert [job.folder for job in Study.from_declaration(one.declaration).jobs()] == [job.folder for job in one.jobs()]


# Variants


def varied(**variants):
    return study(variants=variants)


def own(made, name):
    """The runs that a variant does not share, by stage and axes."""
    return [str(job.folder.relative_to(made.folder)) for job in made.variants[name].own_jobs()]


def test_a_variant_of_fine_tuning_shares_the_encoders():
    made = varied(raw={"finetune": {"normalize": False}})
    assert len(own(made, "raw")) == 16
    assert own(made, "raw")[0] == "variants/raw/finetune/pretrain=0/intermediate=none/downstream=10/seed=1"
    assert made.variants["raw"].encoder(100, "none", 1) == made.encoder(100, "none", 1)
    assert len(made.all_jobs()) == 2 + 4 + 16 + 16


def test_a_variant_of_pretraining_shares_what_starts_from_random_weights():
    made = varied(more={"pretrain": {"mask_ratio": 0.6}})
    assert not any("pretrain=0" in folder for folder in own(made, "more"))
    assert len(own(made, "more")) == 2 + 2 + 8
    encoder = made.variants["more"].encoder(100, "none", 1)
    assert str(encoder) == "results/small/variants/more/pretrain/pretrain=100/seed=1/encoder.safetensors"


def test_a_variant_of_a_task_has_its_encoders_and_their_cells():
    made = varied(adam={"intermediate": {"cls_intel": {"optimizer": "adam"}}})
    assert len(own(made, "adam")) == 4 + 8
    assert all("intermediate=cls_intel" in folder for folder in own(made, "adam"))


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


def test_every_run_is_counted_once_and_has_the_settings_of_its_owner():
    made = varied(raw={"finetune": {"normalize": False}}, adam={"intermediate": {"cls_intel": {"optimizer": "adam"}}})
    owners = made.all_jobs()
    assert len({job.folder for job in owners}) == len(owners)
    for job, member in owners.items():
        assert (member.variant == "") == ("variants" not in job.folder.parts)
    for member in made.family:
        assert {job.folder for job in member.jobs()} <= {job.folder for job in owners}


def test_images_that_only_a_variant_needs_are_asked_for():
    made = varied(few={"finetune": {"test_images": 50}})
    assert {Store("pets", 128, 1010), Store("pets", 128, 60)} <= set(made.stores())


def test_variants_leave_the_study_itself_alone():
    made = varied(raw={"finetune": {"normalize": False}})
    assert made.jobs() == study().jobs()
    assert made.declaration == study().declaration
    again = Study.from_declaration(made.variants_declaration)
    assert list(again.all_jobs()) == list(made.all_jobs())


def test_studies_of_fidelity_have_one_variant_for_each_choice():
    made = Study.from_config(ROOT / "workflow/studies/fidelity.yaml")
    assert len(made.variants) == 13
    release = made.variants["release"].config
    for name, member in made.variants.items():
        for section, changes in made.config["variants"][name].items():
            if name == "release" or section == "grid":
                continue
            sections = changes["cls_intel"] if section == "intermediate" else changes
            there = release[section]["cls_intel"] if section == "intermediate" else release[section]
            if isinstance(sections, str):
                assert there == sections
            else:
                assert sections.items() <= there.items()
        assert member.own_jobs() or name == "miou_per_image"
