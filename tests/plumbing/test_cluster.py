"""How this project asks for a cluster, with a stand-in for Ray: what is set before it is imported, what is refused."""

import os
from types import SimpleNamespace
from typing import Any

import pytest

from stages.plumbing import cluster as module
from stages.plumbing.cluster import ADDRESS, MEMORY_RETRIES, cluster

NAME, _ = MEMORY_RETRIES


@pytest.fixture
def imported_with(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment at the moment when Ray was imported."""
    monkeypatch.setattr(os, "environ", {**os.environ})
    os.environ.pop(ADDRESS, None)
    os.environ.pop(NAME, None)
    found: dict[str, str] = {}

    def imported() -> Any:
        found.update(os.environ)
        return SimpleNamespace(init=lambda **settings: None, shutdown=lambda: None)

    monkeypatch.setattr(module, "_ray", imported)
    return found


def test_a_task_that_takes_more_memory_than_a_node_has_is_not_tried_for_ever(imported_with: dict[str, str]) -> None:
    with cluster(None):
        assert imported_with["RAY_task_oom_retries"] == "2"
    os.environ[NAME] = "7"  # whoever set it meant it
    with cluster(None):
        assert imported_with[NAME] == "7"
