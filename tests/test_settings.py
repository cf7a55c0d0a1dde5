"""Flags made from the schema: written by the rules, read by the commands, the same values on both sides."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from viny import settings
from viny.errors import VinyError

SECTIONS = [
    "model",
    "pretrain",
    "intermediate.cls_intel",
    "intermediate.cls_pets",
    "intermediate.spatial_pets",
    "finetune",
    "geometry",
    "compute",
    "seeding",
]


def parse(flags, section):
    parser = argparse.ArgumentParser(exit_on_error=False)
    settings.add_flags(parser, section)
    return settings.from_args(parser.parse_args(shlex.split(flags)), section)


def values_of(spec):
    """Any value that a setting's schema allows."""
    if "enum" in spec:
        return st.sampled_from(spec["enum"])
    kinds = spec["type"] if isinstance(spec["type"], list) else [spec["type"]]
    return st.one_of([value_of_type(kind, spec) for kind in kinds])


def value_of_type(kind, spec):
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(spec.get("minimum", 0), spec.get("maximum", 10**9))
        case "number":
            low = spec.get("minimum", spec.get("exclusiveMinimum"))
            return st.floats(
                low, spec.get("maximum", 1e6), exclude_min="exclusiveMinimum" in spec, allow_subnormal=False
            )
        case "array":
            return st.lists(
                values_of(spec["items"]), min_size=spec.get("minItems", 0), max_size=spec.get("maxItems", 4)
            )
    raise AssertionError(kind)


def flagged(section):
    return {k: s for k, s in settings.section_schema(section)["properties"].items() if s.get("flag", True)}


@pytest.mark.parametrize("section", SECTIONS)
@given(data=st.data())
def test_flags_carry_every_allowed_value_unchanged(section, data):
    values = {key: data.draw(values_of(spec), label=key) for key, spec in flagged(section).items()}
    assert parse(settings.to_flags(values, section), section) == values


@pytest.mark.parametrize("section", SECTIONS)
def test_without_flags_a_command_uses_the_defaults(section):
    expected = {key: spec["default"] for key, spec in flagged(section).items()}
    assert parse("", section) == expected


def test_every_setting_is_written_in_one_stable_order():
    values = settings.defaults("finetune")
    backwards = dict(reversed(values.items()))
    assert settings.to_flags(values, "finetune") == settings.to_flags(backwards, "finetune")
    assert settings.to_flags(values, "finetune").count("--") == len(values)


def test_whole_and_decimal_numbers_are_the_same_setting():
    values = settings.defaults("finetune")
    assert settings.to_flags(values | {"weight_decay": 0}, "finetune") == settings.to_flags(
        values | {"weight_decay": 0.0}, "finetune"
    )


def test_special_values_are_readable():
    assert settings.text([]) == settings.text(None) == "none"
    assert settings.text([50, 85]) == "50,85"
    assert settings.flag("learning_rate") == "--learning-rate"


def test_settings_can_be_left_out_of_the_flags():
    assert "--threads" not in settings.to_flags(settings.defaults("compute"), "compute", without=["threads"])


def test_a_setting_of_the_workflow_alone_has_no_flag():
    assert "enabled" not in settings.to_flags(settings.defaults("geometry"), "geometry")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--learning-rate -1", "--learning-rate: -1.0 is too small, it must be more than 0"),
        ("--learning-rate nan", "--learning-rate: nan is not a finite number"),
        ("--epochs 0", "--epochs: 0 is too small, at least 1 is allowed"),
        ("--crop-scale 0.5", "--crop-scale: [0.5] has length 1, at least 2 is allowed"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_flag(flags, said):
    with pytest.raises(VinyError, match=r".") as error:
        parse(flags, "pretrain")
    assert str(error.value) == said


@pytest.mark.parametrize("flags", ["--epochs many", "--milestones 1,x", "--optimizer sgd"])
def test_what_cannot_be_read_is_refused_by_the_parser(flags):
    with pytest.raises(argparse.ArgumentError):
        parse(flags, "pretrain")


def test_help_tells_meaning_choices_and_default():
    parser = argparse.ArgumentParser()
    settings.add_flags(parser, "finetune")
    text = " ".join(parser.format_help().split())
    assert "--learning-rate X Initial learning rate. (default: 0.002)" in text
    assert "{fresh,frozen}" in text
    assert "--milestones" in text
    assert "(default: 70,90,95)" in text


def test_defaults_are_copies():
    settings.defaults("pretrain")["milestones"].append(99)
    assert settings.defaults("pretrain")["milestones"] == [50, 85]


def test_planning_a_study_loads_no_heavy_package():
    code = (
        "import sys, viny.config, viny.settings, viny.study; viny.study.Study.from_config({}).jobs();"
        "print({'torch', 'pandas', 'numpy', 'PIL', 'snakemake'} & set(sys.modules))"
    )
    source = Path(settings.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=source, check=True)
    assert run.stdout.strip() == "set()"
