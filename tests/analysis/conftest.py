import pytest
from invented import declaration, fill

from viny.study import Study


@pytest.fixture
def toy(tmp_path) -> Study:
    """A complete study of 3 x 2 x 2 cells and three seeds, all results there."""
    study = Study.from_config(declaration(tmp_path / "results"))
    fill(study)
    return study
