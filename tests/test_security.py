"""Nothing that is read can run code: no pickle, no eval, no shell, no path out of its place."""

import ast
import functools
import os
import pickle
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import viny
from viny.data.sources import open_source
from viny.study import Study

SOURCES = sorted(Path(viny.__file__).parent.rglob("*.py"))
RULES = sorted((Path(__file__).parents[1] / "workflow").rglob("*.smk"))
FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "xmlrpc", "telnetlib"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "yaml.unsafe_load",
    "yaml.full_load",
}
# pickle's error is what torch raises for a file with code in it.
ALLOWED = {("released.py", "pickle")}
SAFE_LOADERS = {"_Loader", "yaml.SafeLoader", "getattr(yaml, 'CSafeLoader', yaml.SafeLoader)"}


def name_of(node: ast.AST) -> str:
    """`torch.load` of a call `torch.load(...)`."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}


@functools.cache
def calls() -> tuple[tuple[Path, ast.Call], ...]:
    return tuple(_calls())


def _calls():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def test_the_sources_are_all_looked_at():
    assert len(SOURCES) > 60
    assert len(calls()) > 3000


def test_no_module_that_runs_what_it_reads_is_imported():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                root = name.split(".")[0]
                assert root not in FORBIDDEN_MODULES or (path.name, root) in ALLOWED, f"{path} imports {name}"
    released = next(path for path in SOURCES if path.name == "released.py").read_text(encoding="utf-8")
    assert set(re.findall(r"pickle\.\w+", released)) == {"pickle.UnpicklingError"}


def test_nothing_is_evaluated():
    for path, call in calls():
        assert name_of(call) not in FORBIDDEN_CALLS, f"{path}:{call.lineno} {name_of(call)}"


def test_arrays_and_tensors_are_read_without_pickle():
    found = {"np.load": 0, "torch.load": 0}
    for path, call in calls():
        name = name_of(call)
        if name in ("np.load", "numpy.load"):
            assert keywords(call).get("allow_pickle") == "False", f"{path}:{call.lineno}"
            found["np.load"] += 1
        if name == "torch.load":
            assert keywords(call).get("weights_only") == "True", f"{path}:{call.lineno}"
            found["torch.load"] += 1
        assert "read_pickle" not in name, f"{path}:{call.lineno}"
        assert "to_pickle" not in name, f"{path}:{call.lineno}"
    assert min(found.values()) > 0


def test_yaml_is_loaded_safely():
    for path, call in calls():
        if name_of(call) in ("yaml.load", "yaml.load_all"):
            assert keywords(call).get("Loader") in SAFE_LOADERS, f"{path}:{call.lineno}"


def test_no_process_is_started_through_a_shell():
    for path, call in calls():
        if name_of(call).startswith("subprocess."):
            assert keywords(call).get("shell", "False") == "False", f"{path}:{call.lineno}"


def test_archives_are_never_extracted():
    """Members are read one by one, after their names have been checked; nothing is unpacked to a folder."""
    for path, call in calls():
        assert not re.search(r"\.(extract|extractall|unpack_archive)$", name_of(call)), f"{path}:{call.lineno}"


def test_temporary_files_have_names_that_cannot_be_foreseen_by_others():
    for path, call in calls():
        assert name_of(call) != "tempfile.mktemp", f"{path}:{call.lineno}"


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickled_listing_of_an_archive_is_not_run(tmp_path):
    """The cache of an archive's listing is a file of ours that somebody else may have written."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as inner:
        inner.addfile(tarfile.TarInfo("a.JPEG"))
    with tarfile.open(tmp_path / "t.tar", "w") as outer:
        member = tarfile.TarInfo("n1.tar")
        member.size = len(buffer.getvalue())
        outer.addfile(member, io.BytesIO(buffer.getvalue()))
    np.savez(tmp_path / "tar-index.npz", key=np.array([Trap(tmp_path / "trapped")], dtype=object))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    for content in (None, (tmp_path / "plain.npz").read_bytes()):
        if content:
            (tmp_path / "tar-index.npz").write_bytes(content)
        assert [entry.name for entry in open_source("imagenet", tmp_path / "t.tar", tmp_path).entries] == ["n1/a.JPEG"]
        assert not (tmp_path / "trapped").exists()


NASTY = [
    "my data",
    "it's",
    'say "hi"',
    "a;touch hacked",
    "$(touch hacked)",
    "`touch hacked`",
    "a|b&c>d<e",
    "{threads}",
    "*",
    "~",
    "#x",
    "!x",
    "a\\b",
    "-x",
    "ünï",
]


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Shell commands that Snakemake would run where paths of data have such names."""
    work = tmp_path_factory.mktemp("nasty")
    root = Path(__file__).parents[1]
    path = "/".join(NASTY)
    given = {
        "study": "nasty",
        "grid": {"pretrain": [8], "intermediate": ["cls_intel"], "downstream": [8], "seeds": [1]},
        "data": {"root": path, "imagenet": "a b;c", "intel": "$(x)", "pets": "p'q"},
    }
    import yaml

    (work / "config.yaml").write_text(yaml.safe_dump(given, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", "--snakefile", root / "Snakefile", "--directory", work]
    command += ["--cores", "1", "--dry-run", "--printshellcmds", "--configfile", work / "config.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (work / "hacked").exists()
    text = done.stdout + done.stderr
    return path, Study.from_config(given), re.findall(r"^Shell command: (.*viny\.data\.ingest.*)$", text, re.MULTILINE)


def test_paths_from_the_config_reach_a_command_as_one_argument(planned):
    path, study, commands = planned
    assert len(commands) == 4
    sources = {dataset: str(study.source(dataset)) for dataset in ("imagenet", "intel-train", "intel-test", "pets")}
    assert sources["pets"].startswith(path)
    for command in commands:
        arguments = shlex.split(command)
        dataset = arguments[arguments.index("--dataset") + 1]
        assert arguments[arguments.index("--source") + 1] == sources[dataset]
        assert not {";", "|", "&", ">"} & set(arguments)


def test_a_shell_passes_them_on_unchanged(planned):
    _, study, commands = planned
    for command in commands:
        said = command.replace(
            "python -m viny.data.ingest", f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.argv)'"
        )
        done = subprocess.run(["bash", "-c", said], capture_output=True, text=True, check=True)
        assert str(study.source("pets")) in ast.literal_eval(done.stdout) or "--dataset pets" not in command
        assert "--source" in ast.literal_eval(done.stdout)


def test_rules_name_values_of_the_config_only_where_they_are_quoted():
    """Free text of a config is in `data`; all else that the rules put into commands is limited by the schema."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in RULES)
    for match in re.finditer(r"\{params\.(declaration|config)(:q)?\}", text):
        assert match.group(2) == ":q", match.group()
    uses = [line.strip() for line in text.splitlines() if re.search(r"STUDY\.source\(|\[\"root\"\]", line)]
    assert uses
    assert all("shlex.quote" in line for line in uses)
