"""The documents keep to what is there: files, links, commands, settings, study files, messages."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from viny.cli import COMMANDS
from viny.config import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("docs/*.md"))
CURRENT = [page for page in PAGES if page.name not in ("CHANGELOG.md", "log.md")]  # those speak of the past, too
MOST_LINES = 150


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code(page: Path) -> str:
    """What stands in code blocks and in backticks."""
    found = re.findall(r"```.*?```|``[^\n]+?``|`[^`\n]+`", text(page), re.DOTALL)
    return "\n".join(piece.strip("`") for piece in found)


def anchors(page: Path) -> set[str]:
    """What links to headings are made of, as GitHub does it."""
    headings = re.findall(r"^#+ (.+)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def strings() -> list[str]:
    """The constant parts of all texts in the code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")]
    constants = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [node.value for node in constants if isinstance(node.value, str)]


def test_readme_is_one_page():
    assert len(text(ROOT / "README.md").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("mark", ["study", "tests"])
def test_readme_has_the_two_commands(mark):
    (command,) = re.findall(rf"^<!-- {mark} -->\n```bash\n(.+)\n```$", text(ROOT / "README.md"), re.MULTILINE)
    assert " && . .venv/bin/activate && pip install -q -c envs/constraints.txt -e " in command


def test_example_studies_are_valid():
    examples = [example for page in PAGES for example in re.findall(r"```yaml\n(.*?)```", text(page), re.DOTALL)]
    studies = [study for study in map(yaml.safe_load, examples) if "study" in study]
    assert len(studies) >= 5
    for study in studies:
        load(study)


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    folders = "workflow|envs|src|tests|profiles|docs|benchmarks"
    named = set(re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]*\w)", code(page)))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_commands_that_are_named_are_there(page):
    named = set(re.findall(r"(?<![\w/.-])viny ([a-z]+(?:-[a-z]+)*)", code(page)))
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("page", CURRENT, ids=lambda page: page.name)
def test_settings_that_are_named_are_there(page):
    sections = "grid|data|model|pretrain|finetune|geometry|compute|analysis"
    named = set(re.findall(rf"(?<![\w./-])((?:{sections})\.[a-z_]+)\b", code(page)))
    known = set(re.findall(r"^\| \W*([\w.]+?)(?:\.NAME\S*)?\W* \|", text(ROOT / "docs/settings.md"), re.MULTILINE))
    assert {name for name in named - known if not name.endswith((".csv", ".py", ".safetensors"))} == set()


def test_the_picture_of_the_rules_has_all_that_a_study_runs():
    code = "\n".join(text(path) for path in [ROOT / "Snakefile", *ROOT.glob("workflow/rules/*.smk")])
    rules = set(re.findall(r"^(?:rule|use rule \w+ as) (\w+)", code, re.MULTILINE)) - {"partial", "published"}
    assert set(re.findall(r">(\w+)</text>", text(ROOT / "docs/rulegraph.svg"))) == rules


def test_messages_of_troubleshooting_are_in_the_code():
    known = strings()
    quoted = re.findall(r"^### (?:``(.+)``|`(.+)`)$", text(ROOT / "docs/troubleshooting.md"), re.MULTILINE)
    parts = [part for message in quoted for part in "".join(message).split("…") if part.strip()]
    assert len(quoted) > 20
    assert [part for part in parts if not any(part in string for string in known)] == []
