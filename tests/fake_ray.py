"""A stand-in for Ray that runs each task at once, in this process: for all that needs no cluster."""

import pickle
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from stages.plumbing import cluster
from stages.plumbing.cluster import ADDRESS


class TaskError(RuntimeError):
    """What Ray raises for an error of a task."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(f"a traceback, and then {cause}")
        self.cause = pickle.loads(pickle.dumps(cause))


class Reference:
    """What a task gave or raised, or what was put into the object store."""

    def __init__(self, value: Any) -> None:
        self.value = value


class FakeRay(ModuleType):
    """The part of the module `ray` that this project uses."""

    def __init__(self, *resources: dict[str, float]) -> None:
        super().__init__("ray")
        self.resources = list(resources)
        self.options: list[dict[str, Any]] = []  # of each task that was submitted
        self.words: list[tuple[Any, ...]] = []  # its arguments
        self.settings: dict[str, Any] = {}  # of the last connection, if there was one
        self.environment: dict[str, str] = {}  # when it was imported, where a test notes it
        self.exceptions = SimpleNamespace(RayError=RuntimeError, OutOfMemoryError=MemoryError)
        self.util = SimpleNamespace(get_node_ip_address=lambda: "127.0.0.9")

    def init(self, **settings: Any) -> None:
        self.settings = settings

    def shutdown(self) -> None: ...

    def cancel(self, reference: Reference, **how: Any) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.resources]

    def put(self, value: Any) -> Reference:
        return Reference(value)

    def get(self, reference: Reference, timeout: float | None = None) -> Any:
        if isinstance(reference.value, TaskError):
            raise reference.value
        return reference.value

    def wait(self, references: Sequence[Any], **how: Any) -> tuple[list[Any], list[Any]]:
        return list(references[:1]), list(references[1:])

    def remote(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        def task(function: Callable[..., Any]) -> Any:
            def submit(*words: Any) -> Reference:
                self.options.append(options)
                given = (word.value if isinstance(word, Reference) else word for word in words)
                self.words.append(tuple(given))
                try:
                    return Reference(function(*self.words[-1]))
                except Exception as error:
                    return Reference(TaskError(error))

            return SimpleNamespace(remote=submit)

        return task


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, *resources: dict[str, float]) -> FakeRay:
    """Put it in the place of Ray; nodes have `resources`, and keep their files below `folder`."""
    fake = FakeRay(*(resources or [{"CPU": 1.0}]))
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(cluster, "raise_on_signals", lambda: None)  # pytest has handlers of its own
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    for name in (ADDRESS, "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", *cluster.LOOPBACK, cluster.MEMORY_RETRIES[0]):
        monkeypatch.setenv(name, "")  # so that it is as before when the test is over
        monkeypatch.delenv(name)
    return fake
