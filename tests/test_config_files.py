"""Config files as people write them by mistake, and values that nobody would: a message, never a traceback."""
# ruff: noqa: E501, one line a mistake reads best

import math
import re
import string

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from viny import cli, config, settings
from viny.errors import VinyError

FILES = {
    "tabs": ("grid:\n\tseeds: [1]\n", "is not valid YAML: .*'\\\\t'.* line 2"),
    "a list": ("- study: a\n", "not settings of the form"),
    "a number": ("3\n", "holds 3, not settings of the form"),
    "two documents": ("study: a\n---\nstudy: b\n", "is not valid YAML"),
    "colon in a value": ("study: a: b\n", "is not valid YAML: .* line 1"),
    "unclosed list": ("grid: {seeds: [1, 2}\n", "is not valid YAML"),
    "unclosed quote": ("study: 'a\n", "is not valid YAML"),
    "wrong indentation": ("grid:\n  seeds: [1]\n pretrain: [0]\n", "is not valid YAML: .* line 3"),
    "a key twice": ("finetune:\n  epochs: 3\n  epochs: 100\n", "'epochs' is given twice .* line 2"),
    "a section twice": ("grid: {seeds: [1]}\nstudy: a\ngrid: {pretrain: [0]}\n", "'grid' is given twice .* line 1"),
    "code": ("study: !!python/object/apply:os.system ['touch hacked']\n", "is not valid YAML: could not determine a constr"),
    "a date that does not exist": ("study: 2024-13-45\n", "is not valid YAML: month must be in 1..12"),
    "a date": ("study: 2024-01-01\n", "study: .*is not text"),
    "a list as a key": ("? [1, 2]\n: 3\n", "is not valid YAML: .*unhashable"),
    "an unknown anchor": ("grid: *missing\n", "is not valid YAML: found undefined alias"),
    "nested too deeply": ("grid: " + "[" * 5000, "is not valid YAML"),
    "more digits than a number has": (f"order_seed: {'9' * 5000}\n", "is not valid YAML: .*digits|too large"),
    "an endless number": ("finetune: {learning_rate: .inf}\n", "finetune.learning_rate: inf is not a finite number"),
    "no number": ("finetune: {learning_rate: .nan}\n", "finetune.learning_rate: nan is not a finite number"),
    "a huge number": (f"finetune: {{epochs: 1{'0' * 400}}}\n", "finetune.epochs: a number of .* bits is too large"),
    "a huge weight decay": (f"finetune: {{weight_decay: 1{'0' * 400}}}\n", "weight_decay: a number of .* bits is too"),
    "a huge model": ("model: {width: 1000000000}\n", "model.width: 1000000000 is too large, at most 65536"),
    "a name with a slash": ("study: a/b\n", "study: 'a/b' holds a character that is not allowed"),
    "a name with a line break": ("study: |\n  demo\n", r"study: 'demo\\n' holds a character that is not allowed"),
    "a folder with a line break": ('results: "results\\n"\n', r"results: 'results\\n' holds a character that is not all"),
    "a folder like a flag": ("results: -x\n", "results: '-x' holds a character that is not allowed"),
    "a command as a folder": ("stores: $(touch hacked)\n", r"stores: .* holds a character that is not allowed"),
    "a nul in a path": ('data: {root: "a\\0b"}\n', r"data.root: 'a\\x00b' holds a character that is not allowed"),
    "a line break in a path": ('data: {pets: "a\\n"}\n', r"data.pets: 'a\\n' holds a character that is not allowed"),
    "an empty path": ("data: {root: ''}\n", "data.root: '' has length 0"),
    "a list for a number": ("finetune: {epochs: [3]}\n", r"finetune.epochs: \[3\] is not a whole number"),
    "a number for a list": ("grid: {seeds: 3}\n", "grid.seeds: 3 is not a list"),
    "text for a section": ("grid: all\n", "grid: 'all' is not a section with keys"),
    "text for a switch": ("finetune: {normalize: 'yes'}\n", "finetune.normalize: 'yes' is not true or false"),
    "another word": ("finetune: {augmentation: frozn}\n", "'frozn' is not one of fresh, frozen .did you mean `frozen`"),
    "empty bytes": ("grid: {downstream: [!!binary '', []]}\n", "grid.downstream: .* names a value more than once"),
    "a large list": (f"grid: {{seeds: {[1] * 9999}}}\n", r"grid.seeds: \[1, 1, .*\.\.\. names 1 more than once"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_the_file_is_one_message_and_changes_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that it is put back afterwards
    written, message = FILES[name]
    path = tmp_path / "study.yaml"
    path.write_text(written)
    assert cli.main(["status", "--configfile", str(path), "--directory", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert re.match(f"viny: error: .*({message})", said), said
    assert "Traceback" not in said
    assert len(said) < 2000
    assert [item.name for item in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"study: caf\xe9\n"])
def test_a_file_that_is_no_text_is_named(content, tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(VinyError, match=r"study\.yaml is not valid YAML"):
        config.load(path)


def test_a_folder_instead_of_a_file_is_named(tmp_path):
    with pytest.raises(VinyError, match=f"{tmp_path} cannot be read: Is a directory"):
        config.load(tmp_path)


def test_merged_keys_are_not_given_twice(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("finetune: &base {epochs: 5, milestones: []}\npretrain:\n  <<: *base\n  epochs: 7\n")
    assert config.load(path)["pretrain"]["epochs"] == 7


def test_json_is_a_config_too(tmp_path):
    path = tmp_path / "study.json"
    path.write_text('{\n "study": "a", "finetune": {"epochs": 9, "milestones": []}\n}\n')
    assert config.load(path)["finetune"]["epochs"] == 9


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.dates()
    | st.sampled_from(["1e-3", "none", "../..", "-x", "a\n", "$(x)", "\0", "\ud800"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def places(spec, path=()):
    """All settings and sections of the schema."""
    for key, part in spec.get("properties", {}).items():
        yield (*path, key)
        yield from places(part, (*path, key))


PLACES = sorted(places(settings.schema()))


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=3))
@profile(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_value_anywhere_is_taken_or_explained(changes):
    made: dict = {}
    for path, value in changes:
        section = made
        for key in path[:-1]:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[path[-1]] = value
    try:
        complete = config.load(made)
    except VinyError as error:
        assert str(error).strip()
        assert all(len(line) < 1000 for line in str(error).splitlines())
        return
    # What is taken is finite, and safe in a path and on a command line.
    for section in ("model", "pretrain", "finetune", "compute"):
        flags = settings.to_flags(complete[section], section)
        assert not set(flags) - set(string.ascii_letters + string.digits + " -_.,+")
    for name in ("study", "results", "stores"):
        assert "\n" not in complete[name]
        assert not complete[name].startswith("-")
    assert all(math.isfinite(value) for value in complete["finetune"].values() if isinstance(value, float))


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=60)
    | st.text(alphabet="ab:{}[]-?!&*<>|'\"%@` \n\t#,1", max_size=30)
)
@profile(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_text_is_a_config_or_explained(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    try:
        config.load(path)
    except VinyError as error:
        assert str(error).strip()


def test_a_config_written_by_yaml_is_read_back(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(config.load({})))
    assert config.load(path) == config.load({})
