"""Rows come as they are stored, whether or not they were asked for before."""

import numpy as np
import pytest
import torch

from viny.datasets.rows import Rows

CPU = torch.device("cpu")
COUNT = 50


@pytest.fixture(params=["in a file", "in memory"])
def array(request, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (COUNT, 37, 41, 3), dtype=np.uint8)  # not a multiple of pages
    if request.param == "in memory":
        return values
    values.tofile(tmp_path / "images.u8")
    return np.memmap(tmp_path / "images.u8", np.uint8, "r", shape=values.shape)


@pytest.mark.parametrize("rows", [[0], [COUNT - 1, 7, 0], [], list(range(COUNT))])
def test_prefetched_rows_are_the_stored_ones(array, rows):
    numbers = torch.tensor(rows, dtype=torch.int64)
    reader = Rows(array, COUNT, CPU)
    reader.prefetch(numbers)
    assert torch.equal(reader[numbers], torch.from_numpy(np.array(array))[numbers])
