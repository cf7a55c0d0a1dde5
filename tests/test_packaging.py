"""What is declared is what is used: dependencies, version, files that packages and hosts read."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import viny

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Where the name of a package is not that of its module.
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
URL = PROJECT["urls"]["Repository"]


def modules(requirements: list[str]) -> set[str]:
    names = {re.split(r"[\[<>=~!; ]", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name.replace("-", "_")) for name in names}


def imported(folder: str) -> dict[str, set[Path]]:
    """Packages that code imports, with the files that do."""
    found: dict[str, set[Path]] = {}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for name in names:
                found.setdefault(name.partition(".")[0], set()).add(path.relative_to(ROOT))
    return found


def test_everything_that_is_imported_is_declared():
    extras = PROJECT["optional-dependencies"]
    declared = modules([*PROJECT["dependencies"], *extras["tensorboard"], *extras["mlflow"]])
    foreign = {name: paths for name, paths in imported("src").items() if name not in sys.stdlib_module_names}
    # pydantic's own core and what pandas types come with them.
    undeclared = foreign.keys() - declared - {"viny", "pydantic_core"}
    assert {name: foreign[name] for name in undeclared} == {}


def test_everything_that_is_declared_is_used():
    used = imported("src").keys() | {"snakemake", "pygments"}  # which runs the rules, and colors code in its report
    assert modules(PROJECT["dependencies"]) - used == set()


def test_every_dependency_has_a_lower_bound():
    assert [each for each in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+>=[\d.]+", each)] == []


def test_the_pinned_versions_keep_the_bounds():
    pins = dict(line.split("==") for line in (ROOT / "envs/constraints.txt").read_text().splitlines() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    environment = yaml.safe_load((ROOT / "envs/viny.yaml").read_text())["dependencies"][-1]["pip"]
    conda = dict(line.split("==") for line in environment)

    def numbers(version: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", version)]

    for requirement in PROJECT["dependencies"]:
        name, lowest = requirement.split(">=")
        assert numbers(pins[name]) >= numbers(lowest), requirement
        assert name == "snakemake" or conda[name] == pins[name], requirement


BLOCKED = """
import sys
sys.modules |= dict.fromkeys({blocked!r})
from viny.cli import main
sys.exit(main({words!r}))
"""


@pytest.mark.parametrize("words", [["--help"], ["plan", "--help"], ["plan"], ["status", "--json"]], ids=" ".join)
def test_commands_need_no_extra(words, tmp_path):
    extras = [name for each in PROJECT["optional-dependencies"].values() for name in modules(each)]
    base = modules(PROJECT["dependencies"])
    (tmp_path / "config.yaml").write_text("study: without-images\n")
    code = BLOCKED.format(blocked=[name for name in extras if name not in base], words=words)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1, 3), done.stderr  # without images, a plan has no times
    assert "Error" not in done.stderr
    assert len(done.stdout) > 500


def test_one_version_and_one_address_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == viny.__version__
    assert citation["repository-code"] == URL
    assert "version" in PROJECT["dynamic"]
    assert re.search(rf"^## {re.escape(viny.__version__)} - 20", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_image_is_built_from_files_that_are_there():
    recipe = (ROOT / "Dockerfile").read_text()
    shipped = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (.+)$", recipe, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert any(Path(name) == Path(each) or Path(each) in Path(name).parents for each in shipped), name


def test_hosted_checks_are_those_of_the_project():
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["everything"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    assert os.access(ROOT / ".ci/run", os.X_OK)
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = (ROOT / ".ci/run").read_text()
    assert [hook["id"] for hook in hooks if hook["entry"].split()[0] not in checks] == []
