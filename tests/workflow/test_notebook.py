"""The notebook of the documents runs on the toy study, and is kept with its outputs."""

import json
import subprocess
import sys

from checkout import ROOT

NOTEBOOK = ROOT / "docs/notebook.ipynb"


def test_the_notebook_runs(toy):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert "results/demo" in code
    folder = toy.work / "docs"
    folder.mkdir(exist_ok=True)
    environment = toy.environment | {"PYTHONPATH": str(toy.checkout / "src"), "MPLBACKEND": "agg"}
    words = [sys.executable, "-c", code.replace("results/demo", "results/toy")]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_notebook_has_been_run_and_is_small():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert kinds.count("display_data") == 3
    assert "error" not in kinds
    assert NOTEBOOK.stat().st_size < 150_000
