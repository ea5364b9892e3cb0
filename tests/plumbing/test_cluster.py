"""How this project asks for a cluster, with a stand-in for Ray: what is set before it is imported, what is refused."""

import os
import pickle
import tempfile
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stages.plumbing import cluster as module
from stages.plumbing.cluster import ADDRESS, MEMORY_RETRIES, cluster, failure_of
from stages.plumbing.errors import StageError

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
        ray = SimpleNamespace(settings={}, shutdown=lambda: None)
        ray.init = ray.settings.update
        return ray

    monkeypatch.setattr(module, "_ray", imported)
    monkeypatch.setattr(module, "raise_on_signals", lambda: None)  # pytest has handlers of its own
    return found


def test_a_task_that_takes_more_memory_than_a_node_has_is_not_tried_for_ever(imported_with: dict[str, str]) -> None:
    with cluster(None):
        assert imported_with["RAY_task_oom_retries"] == "2"
    os.environ[NAME] = "7"  # whoever set it meant it
    with cluster(None):
        assert imported_with[NAME] == "7"


def node(name: str, *words: str, readable: bool = True) -> SimpleNamespace:
    """One of this machine's processes, as psutil has them."""
    return SimpleNamespace(info={"name": name, "cmdline": [name, *words] if readable else None})


@pytest.mark.parametrize(
    ("here", "accepted"),
    [
        ([], False),
        ([node("python", "--gcs-address=10.0.0.1:6379")], False),
        ([node("raylet", "--gcs-address=10.0.0.1:16379")], False),
        ([node("raylet", "--gcs-address=10.0.0.1:6379")], True),  # 127.0.0.1 for the head's other name
        ([node("raylet", readable=False)], True),
    ],
)
def test_a_machine_that_is_no_node_of_the_cluster_is_told_so(
    here: list[SimpleNamespace], accepted: bool, imported_with: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "process_iter", lambda attributes: here)
    if accepted:
        with cluster("127.0.0.1:6379"):
            return
    message = r"^params.yaml: runtime.address: no node of a cluster at 127.0.0.1:6379 runs on this machine; "
    with pytest.raises(StageError, match=message), cluster("127.0.0.1:6379"):
        pass


@pytest.mark.parametrize("mode", ["token", "disabled", ""])
def test_a_cluster_that_asks_for_no_token_is_warned_about(
    mode: str, imported_with: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    os.environ["RAY_AUTH_MODE"] = mode
    with cluster("auto"):
        warned = "WARNING: the Ray cluster at auto: it asks for no token" in capsys.readouterr().err
    assert warned == (mode != "token")


def test_sockets_fit_into_their_limit_below_a_long_tmpdir(
    imported_with: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * 60}")
    with cluster(None) as ray:
        socket_name = f"{ray.settings['_temp_dir']}/session_2026-11-29_20-46-11_556330_1234567/sockets/plasma_store"
    assert len(socket_name) <= 107


def test_a_task_that_ray_gave_up_is_told_with_what_helps() -> None:
    class OutOfMemory(Exception):
        pass

    ray = SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=OutOfMemory))
    what, found, remedy = failure_of(ray, OutOfMemory("Task was killed\nby the node"), "decoding")
    assert (what, found) == ("decoding", "OutOfMemory: Task was killed by the node")
    assert "raise runtime.threads or gpus_per_trial" in remedy
    assert "see the logs" in failure_of(ray, ValueError("x"), "decoding")[2]


def test_an_error_of_a_task_arrives_as_the_one_line_that_it_is() -> None:
    ray = SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=MemoryError))
    sent = pickle.dumps(StageError("node 10.0.0.2: params.yaml: a", "3; or 4", "write 5"))
    told = StageError(*failure_of(ray, SimpleNamespace(cause=pickle.loads(sent)), "a unit"))  # type: ignore[arg-type]
    assert str(told) == "node 10.0.0.2: params.yaml: a: 3; or 4; write 5"
