"""Tasks that are trained once for all tests."""

import pytest
from task_store import make_task, train


@pytest.fixture(scope="session", name="trained")
def _trained(tmp_path_factory):
    """A function that trains a task, once for all tests, and gives back the task, losses, metrics and folder."""
    made = {}

    def get(name, **changes):
        key = (name, *sorted((k, str(v)) for k, v in changes.items()))
        if key not in made:
            task = make_task(name, **changes)
            losses = train(task) if task.trainable else []
            folder = tmp_path_factory.mktemp(name)
            metrics = task.evaluate()
            task.write(folder)
            made[key] = task, losses, metrics, folder
        return made[key]

    return get
