"""The study file: closed, complete, checked as a whole, and clear about what is wrong."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from viny import config
from viny.config import describe
from viny.errors import VinyError

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "workflow" / "studies").glob("*.yaml"))


def message(given):
    with pytest.raises(VinyError) as error:
        config.load(given)
    return str(error.value)


# The models, and what is made of them


def test_the_defaults_are_valid_and_survive_loading():
    complete = config.load({})
    assert config.load(complete.model_dump(mode="json")) == complete
    assert config.load(json.loads(complete.model_dump_json())) == complete


def test_the_defaults_are_table_a1():
    complete = config.load({})
    keys = ("epochs", "batch_size", "optimizer", "learning_rate", "weight_decay", "gamma", "milestones")
    assert [[getattr(section, key) for key in keys] for section in (complete.pretrain, complete.finetune)] == [
        [100, 64, "adamw", 1e-4, 0.05, 0.1, (50, 85)],
        [100, 64, "adamw", 2e-3, 1e-4, 0.5, (70, 90, 95)],
    ]
    intermediate = complete.intermediate["cls_intel"]
    assert [getattr(intermediate, key) for key in keys] == [200, 64, "adamw", 8e-4, 0, 0.1, (180, 190)]


def test_numbers_have_one_type_however_they_are_written():
    one = config.load({"finetune": {"weight_decay": 0, "epochs": 100.0}})
    other = config.load({"finetune": {"weight_decay": 0.0, "epochs": 100}})
    assert repr(one) == repr(other)


def test_folders_have_one_spelling():
    assert {config.load({"results": path}).results for path in ("out", "./out", "out/", "out//", "x/../out")} == {"out"}


def test_generated_images_are_completed_once_they_are_asked_for():
    small = {"grid": {"pretrain": [0], "downstream": [8]}, "finetune": {"test_images": 8}}
    assert config.load(small).data.procedural is None
    made = config.load({**small, "data": {"procedural": {"pets": 40}}}).data.procedural
    assert made.model_dump() == {"imagenet": 1200, "intel": 720, "pets": 40, "pixels": 48, "seed": 0}


def test_later_files_are_laid_over_earlier_ones_section_by_section():
    layered = config.load({"grid": {"seeds": [1], "downstream": [8]}}, {"grid": {"seeds": [1, 2]}})
    assert (layered.grid.seeds, layered.grid.downstream) == ((1, 2), (8,))


def test_the_schema_and_the_page_of_this_checkout_are_up_to_date():
    assert (ROOT / "workflow/schemas/config.schema.json").read_text() == describe.schema()
    assert (ROOT / "docs/settings.md").read_text() == describe.page()


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *STUDIES], ids=lambda path: path.stem)
def test_editors_accept_the_studies_that_come_along(path):
    schema = json.loads(describe.schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_editors_refuse_a_typo():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"finetune": {"epohcs": 3}}, json.loads(describe.schema()))


def test_the_page_has_a_row_for_every_setting():
    page = describe.page()
    for section in ("model", "pretrain", "finetune", "compute", "geometry"):
        for key in type(getattr(config.load({}), section)).model_fields:
            assert f"| `{section}.{key}` |" in page
    assert "| `finetune.learning_rate` | `0.002` | number > 0, ≤ 10 |" in page
    assert {line.count("|") for line in page.splitlines() if line.startswith("| ")} == {5}


# Older study files


def test_former_names_of_settings_are_still_read():
    older = config.load(
        {
            "data": {"order_seed": 3, "pets": "elsewhere/pets", "imagenet": "train.tar"},
            "intermediate": {"cls_pets": {"images": 700}},
            "geometry": {"probe_accuracy": "held_out", "probe_epochs": 5, "probe_learning_rate": 0.01},
        }
    )
    assert older.data.split_seed == 3
    assert (older.data.sets["pets"].images, older.data.sets["pets"].layout) == ("elsewhere/pets", "pets")
    assert older.data.sets["imagenet"].images == "train.tar"
    assert (older.intermediate["cls_pets"].count, older.intermediate["cls_pets"].images) == (700, "pets")


# Own data sets, tasks and encoders


def test_a_study_of_own_images():
    own = config.load(
        {
            "study": "kelp",
            "data": {
                "root": "/scratch",
                "sets": {
                    "drone": {"images": "drone"},
                    "scenes": {"images": "scenes", "labels": "folders"},
                    "kelp": {
                        "images": "kelp/images",
                        "masks": "kelp/masks",
                        "classes": {"water": 0, "kelp": [1, 2], "float": "#ff8800"},
                        "ignore": [255],
                    },
                },
            },
            "pretrain": {"images": "drone"},
            "intermediate": {
                "cls_scenes": {"task": "classification", "images": "scenes", "epochs": 50},
                "kelp_patches": {"task": "patches", "images": "kelp"},
            },
            "finetune": {"images": "kelp"},
            "encoders": {"released": {"file": "weights/encoder.safetensors"}},
            "grid": {
                "pretrain": [0, 5000, 50000, "released"],
                "intermediate": ["none", "cls_scenes", "kelp_patches"],
                "downstream": [100, 400, 1600],
            },
        }
    )
    assert own.intermediate["cls_scenes"].epochs == 50
    assert config.load(own.model_dump(mode="json")) == own


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pretrain": {"images": "dron"}}, "pretrain.images: 'dron' is no data set; known in data.sets: imagenet,"),
        ({"grid": {"pretrain": [0, "realesed"]}, "encoders": {"released": {"file": "x"}}},
         "grid.pretrain: 'realesed' is neither a number nor a name from `encoders` (released) (did you mean"),
        ({"encoders": {"x": {}}}, "encoders.x: needs `file`, `timm` or both"),
        ({"intermediate": {"x": {"task": "clasification", "images": "pets"}}},
         "intermediate.x.task: 'clasification' is no task for this stage; known: classification,"),
        ({"intermediate": {"x": {"images": "pets"}}}, "intermediate.x.task: is missing"),
        ({"intermediate": {"x": {"task": "patches"}}}, "intermediate.x.images: is missing"),
        ({"data": {"sets": {"x": {"image": "a"}}}}, "data.sets.x.image: unknown key (did you mean `images`?)"),
        ({"stores": "results"}, "stores: results is the folder of the results as well"),
        ({"stores": "./x/../results/"}, "stores: results is the folder of the results as well"),
        ({"results": str(Path("stores").absolute())}, "stores: stores is the folder of the results as well"),
        ({"results": "./logs"}, "results: `logs` is where logs are written"),
        ({"stores": ".snakemake/x"}, "stores: `.snakemake` is where Snakemake keeps its own files"),
    ],
)  # fmt: skip
def test_names_that_lead_nowhere(given, said):
    assert said in message(given)


# Files


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *STUDIES], ids=lambda path: path.stem)
def test_the_studies_that_come_along_are_valid_and_name_no_machine(path):
    complete = config.load(path)
    assert not Path(complete.data.root).is_absolute()
    assert complete.study == ("demo" if path.stem == "config" else path.stem)


def test_a_missing_or_broken_file_is_named(tmp_path):
    path = tmp_path / "study.yaml"
    assert message(path).startswith(f"there is no config file {path}")
    path.write_text("grid: [")
    assert message(path).startswith(f"{path} is not valid YAML")
    path.write_text("just words")
    assert "not settings of the form" in message(path)
    path.write_text("")
    assert config.load(path) == config.load({})


# Messages: setting, value, what is allowed

MISTAKES = {
    "typo": ({"finetune": {"epohcs": 3}}, "finetune.epohcs: unknown key (did you mean `epochs`?); known here: task,"),
    "wrong place": ({"mask_ratio": 0.5}, "mask_ratio: unknown key (a key of `pretrain`); known here: study,"),
    "key is no text": ({1: 2}, "1: unknown key"),
    "exponent without point": (
        {"finetune": {"learning_rate": yaml.safe_load("1e-3")}},
        "finetune.learning_rate: '1e-3' is not a number; YAML reads `1e-3` as text, write `1.0e-3`",
    ),
    "exponent without sign": (
        {"finetune": {"learning_rate": yaml.safe_load("1.5e3")}},
        "finetune.learning_rate: '1.5e3' is not a number; YAML reads `1.5e3` as text, write `1.5e+3`",
    ),
    "quoted number": ({"grid": {"seeds": ["1"]}}, "grid.seeds[0]: '1' is not a whole number; it is text here"),
    "no becomes false": (
        {"grid": {"intermediate": yaml.safe_load("[no]")}},
        "grid.intermediate[0]: False is not text",
    ),
    "unknown task": (
        {"grid": {"intermediate": ["cls_intell"]}},
        "grid.intermediate: 'cls_intell' is not one of none, cls_intel, cls_pets, spatial_pets (did you mean",
    ),
    "reserved": ({"study": "published"}, "study: published is the name of the paper's own numbers; choose another"),
    "too few generated pets": (
        {"data": {"procedural": {"pets": 36}}},
        "data.procedural.pets: 36 is too small, at least 37 is allowed",
    ),
    "twice": ({"grid": {"downstream": [250, 250]}}, "grid.downstream: [250, 250] names 250 more than once"),
    "empty axis": ({"grid": {"seeds": []}}, "grid.seeds: [] has length 0, at least 1 is allowed"),
    "negative seed": ({"grid": {"seeds": [-1]}}, "grid.seeds[0]: -1 is too small, at least 0 is allowed"),
    "empty section": ({"grid": None}, "grid: None is not a section with keys"),
    "fraction": ({"finetune": {"epochs": 1.5}}, "finetune.epochs: 1.5 is not a whole number"),
    "truth as number": ({"compute": {"threads": True}}, "compute.threads: True is not a whole number"),
    "too large": ({"pretrain": {"mask_ratio": 1.5}}, "pretrain.mask_ratio: 1.5 is too large, at most 1 is allowed"),
    "not finite": ({"pretrain": {"gamma": float("nan")}}, "pretrain.gamma: nan is not a finite number"),
    "study is no folder name": (
        {"study": "../up"},
        "study: '../up' is not allowed, only letters, digits, `.`, `_` and `-` are, with a letter or digit first",
    ),
    "results with a space": ({"results": "my results"}, "'my results' is not allowed, only letters, digits, `/`, `.`"),
    "an encoder named like a number": ({"encoders": {"100": {"timm": "x"}}}, "encoders.100: '100' is not allowed"),
    "a null character in a path": (
        {"data": {"sets": {"x": {"images": "x", "splits": {"train": "a\0b"}}}}},
        "splits.train: 'a\\x00b' is not allowed, it must not be empty or have line breaks",
    ),
    "enormous": ({"finetune": {"batch_size": 10**15}}, "batch_size: 1000000000000000 is too large, at most 2,147,"),
    "an endless grid": (
        {"grid": {"seeds": list(range(9000))}},
        "grid: 432,000 cells are more than the 100,000 that a study may have",
    ),
    "excluded by lists of lists": (
        {"grid": {"exclude": [{"seed": [[1]]}]}},
        "grid.exclude[0]: {'seed': [[1]]} matches no cell of the grid",
    ),
    "patches do not fit": (
        {"model": {"image_size": 100}},
        "model.image_size: 100 is not a multiple of model.patch_size, 16",
    ),
    "nothing masked": ({"pretrain": {"mask_ratio": 0.001}}, "pretrain.mask_ratio: 0.001 masks none of the 64 patches"),
    "stored too small": ({"data": {"store_pixels": 64}}, "data.store_pixels: 64 is smaller than model.image_size, 128"),
    "range upside down": (
        {"pretrain": {"crop_scale": [1, 0.5]}},
        "pretrain.crop_scale: [1.0, 0.5] begins with the larger value",
    ),
    "milestone too late": (
        {"finetune": {"epochs": 90}},
        "finetune.milestones: [70, 90, 95] reaches beyond finetune.epochs, 90; each must be less than that",
    ),
    "milestones fall": (
        {"intermediate": {"cls_pets": {"milestones": [9, 3]}}},
        "intermediate.cls_pets.milestones: [9, 3] does not increase",
    ),
    "more pets than there are": (
        {"grid": {"downstream": [250, 7000]}},
        "grid.downstream: 7,000 images and 1,000 to test on are more than the 7,349 that pets has",
    ),
    "more photographs than there are": ({"grid": {"pretrain": [1281167]}}, "grid.pretrain: 1,281,167 images and"),
    "more than are generated": (
        {"grid": {"pretrain": [0], "downstream": [200]}, "data": {"procedural": {"pets": 300}}},
        "grid.downstream: 200 images and 1,000 to test on are more than the 300 that pets has",
    ),
    "breeds from too few": (
        {"grid": {"intermediate": ["cls_pets"]}, "intermediate": {"cls_pets": {"images": 7000}}},
        "intermediate.cls_pets.count: 7,000 images and",
    ),
    "geometry of too many": (
        {"geometry": {"enabled": True, "images": 7000}},
        "geometry.images: 7,000 images and 1,000 to test on",
    ),
    "geometry of nothing": (
        {"grid": {"pretrain": [0], "intermediate": ["none"]}, "geometry": {"enabled": True}},
        "geometry.enabled: true measures encoders, but the grid trains none",
    ),
    "excluded in vain": (
        {"grid": {"exclude": [{"seed": [1]}, {"seed": 9}]}},
        "grid.exclude[1]: {'seed': 9} matches no cell of the grid, which has pretrain 0, 45000,",
    ),
    "excluded by a word that is no axis": (
        {"grid": {"exclude": [{"seeds": 1}]}},
        "grid.exclude[0].seeds: 'seeds' is not one of pretrain, intermediate, downstream, seed (did you mean `seed`?)",
    ),
    "all excluded": ({"grid": {"exclude": [{"seed": [1, 2, 3]}]}}, "leaves no cell of 144"),
    "tested on what was trained": (
        {"finetune": {"test_set": "moving"}, "grid": {"intermediate": ["none", "spatial_pets"]}},
        "finetune.test_set: moving does not go with spatial_pets in grid.intermediate",
    ),
    "download of generated images": (
        {"grid": {"pretrain": [0], "downstream": [8]}, "finetune": {"test_images": 8},
         "data": {"download": True, "procedural": {}}},
        "data.download: true concerns real images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_explained(name):
    given, said = MISTAKES[name]
    assert said in message(given)


def test_all_mistakes_are_told_at_once():
    lines = message({"study": "", "finetune": {"epochs": 0}, "compute": {"device": "gpu"}}).splitlines()
    assert len(lines) == 3
    assert "model.image_size" in message({"model": {"image_size": 100}, "finetune": {"epochs": 50}})
    assert "finetune.milestones" in message({"model": {"image_size": 100}, "finetune": {"epochs": 50}})


def test_a_list_of_wrong_values_is_not_called_empty():
    assert message({"grid": {"seeds": [-1]}}) == "grid.seeds[0]: -1 is too small, at least 0 is allowed"


# Variants


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"x": {"finetune": {"los": 1}}}, "variants.x.finetune.los: unknown key (did you mean `loss`?)"),
        ({"x": {"finetune": {"epochs": 50}}}, "variants.x.finetune.milestones: [70, 90, 95] reaches beyond"),
        ({"x": {"seeding": "split"}}, "variants.x.seeding: 'split' is not one of everything, split_only"),
        (
            {"x": {"geometry": {"enabled": True}}},
            "variants.x.geometry: a variant cannot change it; it may change grid, data, model, pretrain,",
        ),
        ({"x": {"grid": {"seeds": [1]}}}, "variants.x.grid.seeds: a variant cannot change it"),
        (
            {"x": {"data": {"root": "d"}}},
            "variants.x.data.root: a variant cannot change it; it may change split_seed, resize",
        ),
        ({"x": {}}, "variants.x: changes nothing"),
        ({"x": None}, "variants.x: None is not a section"),
        ({"x": {"finetune": {"epochs": 100.0}}}, "variants.x: changes nothing"),
        ({"x": {"grid": {"exclude": []}}}, "variants.x.grid.exclude: leaves 18 cells that the study itself leaves out"),
        ({"a/b": {"seeding": "split_only"}}, "variants.a/b: 'a/b' is not allowed, only letters, digits,"),
        ({"base": {"seeding": "split_only"}}, "variants.base: is what tables call the study itself"),
        (["x"], "variants: ['x'] is not a section"),
    ],
)
def test_a_variant_is_checked_like_a_study_and_named(variants, said):
    grid = {"intermediate": ["none"], "pretrain": [0, 100], "exclude": [{"pretrain": 0}]}
    assert said in message({"grid": grid, "variants": variants})


def test_a_variant_is_its_study_with_some_settings_changed():
    complete = config.load({"finetune": {"epochs": 200}, "variants": {"x": {"finetune": {"normalize": False}}}})
    varied = config.vary(complete, complete.variants["x"])
    assert (varied.finetune.epochs, varied.finetune.normalize) == (200, False)
    assert varied.model_copy(update={"finetune": complete.finetune, "variants": complete.variants}) == complete
