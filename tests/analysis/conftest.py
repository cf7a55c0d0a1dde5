import pytest
from invented import fill, study_of

from viny.grid import Study


@pytest.fixture
def toy(tmp_path) -> Study:
    """A complete study of 3 x 2 x 2 cells and three seeds, all results there."""
    study = study_of(tmp_path / "results")
    fill(study)
    return study
