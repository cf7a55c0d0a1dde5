"""`snakemake published`, as a user runs it: the paper's numbers through every rule of the analysis."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Results of the rule, made in an empty folder."""
    folder = tmp_path_factory.mktemp("published")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", "published"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "results/published"


def test_tables_hold_the_papers_numbers(published):
    rows = (published / "tables/tableA2_pretrained.md").read_text().splitlines()
    assert "|  | 6,000 | 87.93 ± 0.04 | 68.76 ± 0.13 |" in rows
    assert "AdamW & 0.002 & 0.0001 & 0.5 & 70, 90, 95" in (published / "tables/tableA1_settings.tex").read_text()
    assert len((published / "cells.csv").read_text().splitlines()) == 43


def test_every_figure_and_a_verdict_on_every_claim(published):
    figures = {path.stem for path in (published / "figures").glob("*.png")}
    assert figures == {path.stem for path in (published / "figures").glob("*.pdf")}
    assert {"miou", "change_by_intermediate", "effective_data", "scaling_fits"} <= figures
    claims = json.loads((published / "claims.json").read_text())["claims"]
    assert {claim["id"][0] for claim in claims} == {"1", "2", "3", "4", "5"}
    assert {claim["verdict"] for claim in claims} <= {"supported", "contradicted", "undecided", "not tested"}
    page = (published / "overview.html").read_text()
    assert all(claim["statement"] in page for claim in claims)
    assert "43.73 ± 1.02" in page
