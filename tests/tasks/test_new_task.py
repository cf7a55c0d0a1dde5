"""A further task is one file."""

from pathlib import Path

import numpy as np
import pytest
from task_store import make_task, random_store, train

from viny import tasks
from viny.encoders import load_encoder

TOYS = Path(__file__).parent / "toys"


@pytest.mark.parametrize("name", ["rotation", "autoencoding"])
def test_a_new_task_is_one_file(name, monkeypatch, tmp_path):
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(TOYS)])
    assert name in tasks.names()
    store = random_store()
    bare = type(store)(**{**vars(store), "masks": None, "labels": None, "classes": [], "mask_classes": []})
    task = make_task(name, bare)
    losses = train(task, epochs=12)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    metrics = task.evaluate()
    assert np.isfinite(metrics["loss"])
    if name == "rotation":
        assert metrics["chance"] == 0.25
    task.write(tmp_path)
    assert load_encoder(tmp_path / "encoder.safetensors").sizes == task.encoder.sizes
