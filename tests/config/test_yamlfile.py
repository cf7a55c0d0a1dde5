"""Reading YAML: what YAML 1.1 takes for something else is refused with a hint, and files are bounded."""

from pathlib import Path

import pytest

from viny.config import yamlfile
from viny.errors import VinyError


def refused(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(VinyError) as error:
        yamlfile.read(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("0250", "0250 is no plain decimal number (write 250,"),
        ("-007", "write -7"),
        ("0o17", None),
        ("0x1F", "0x1F is no plain decimal number"),
        ("0b11", "0b11 is no plain decimal number"),
        ("1_000", "1_000 is no plain decimal number"),
        ("12:30", "12:30 is no plain decimal number"),
        ("1:30.5", "1:30.5 is no plain decimal number"),
        ("yes", "yes means true or false in YAML"),
        ("off", "off means true or false in YAML"),
    ],
)
def test_values_that_are_not_what_they_look_like(tmp_path, value, hint):
    path = tmp_path / "study.yaml"
    path.write_text(f"grid: {{downstream: [{value}]}}\n")
    if hint is None:  # text, which the settings refuse
        assert yamlfile.read(path) == {"grid": {"downstream": [value]}}
    else:
        assert hint in refused(tmp_path, path.read_text())


@pytest.mark.parametrize(("text", "value"), [("250", 250), ("0", 0), ("-3", -3), ("1.0e-3", 1e-3), ("true", True)])
def test_plain_values(tmp_path, text, value):
    path = tmp_path / "study.yaml"
    path.write_text(f"a: {text}\n")
    assert yamlfile.read(path) == {"a": value}


def test_a_key_given_twice(tmp_path):
    assert "'seeds' is given twice" in refused(tmp_path, "grid:\n  seeds: [1]\n  seeds: [2]\n")


def test_aliases_are_followed_and_bounded(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("a: &x {b: 1}\nc: *x\n")
    assert yamlfile.read(path) == {"a": {"b": 1}, "c": {"b": 1}}
    assert "an alias refers to itself" in refused(tmp_path, "a: &x [*x]\n")
    bomb = "a0: &a0 [1,2,3,4,5,6,7,8,9]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    assert "more than 100,000 values" in refused(tmp_path, bomb)
    assert "nested too deeply" in refused(tmp_path, "a: " + "[" * 40 + "]" * 40)


def test_files_that_are_no_study(tmp_path):
    assert "more than the 1,000,000 bytes" in refused(tmp_path, "a: 1 # " + "x" * yamlfile.MOST_BYTES)
    assert "not UTF-8 text (its byte 1); save it as UTF-8" in refused(tmp_path, b"\xff\xfe\x00bad")
    assert "is not valid YAML: found character '\\t' that cannot start any token (line 2, column 1)" in refused(
        tmp_path, "a:\n\tb: 1\n"
    )
    assert "not settings of the form" in refused(tmp_path, "- 1\n")
    assert "a number of 5,000 digits is larger" in refused(tmp_path, "a: " + "9" * 5000)
    assert "found duplicate anchor 'a'; first occurrence, second" in refused(tmp_path, "a: &a 1\nb: &a 2\n")
    with pytest.raises(VinyError, match="cannot be read"):
        yamlfile.read(tmp_path)
    with pytest.raises(VinyError, match="/dev/zero has more than"):
        yamlfile.read(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("text", "said"), [('{"a": 1, "a": 2}', "'a' is given twice"), ("{", "Expecting"), ("[" * 9999, "too deeply")]
)
def test_files_that_are_no_json(tmp_path, text, said):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(VinyError, match=f"study.json is not valid JSON: .*{said}"):
        yamlfile.read(path)


def test_a_byte_order_mark_is_no_part_of_a_key(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbfstudy: mine\n")
    assert yamlfile.read(path) == {"study": "mine"}
