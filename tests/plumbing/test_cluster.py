"""How this project asks for a cluster, and what travels to its nodes, with a stand-in for Ray."""

import os
import pickle
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stages.plumbing.cluster import MEMORY_RETRIES, Files, cluster, failure_of, on_this_node, receive, send
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, output_folder
from stages.plumbing.signals import Terminated
from tests import fake_ray

NAME, _ = MEMORY_RETRIES


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fake_ray.FakeRay:
    fake = fake_ray.install(monkeypatch, tmp_path / "node")

    def imported() -> fake_ray.FakeRay:
        fake.environment = {**os.environ}
        return fake

    monkeypatch.setattr("stages.plumbing.cluster._ray", imported)
    return fake


def test_a_task_that_takes_more_memory_than_a_node_has_is_not_tried_for_ever(ray: fake_ray.FakeRay) -> None:
    with cluster(None):
        assert ray.environment[NAME] == "2"
    os.environ[NAME] = "7"  # whoever set it meant it
    with cluster(None):
        assert ray.environment[NAME] == "7"


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("word", "accepted"),
    [
        ("--gcs-address=10.0.0.1:16379", False),
        ("--gcs-address=10.0.0.1:6379", True),  # 127.0.0.1 for the head's other name
        (None, True),  # its command line may not be read
    ],
)
def test_a_machine_that_is_no_node_of_the_cluster_is_told_so(
    word: str | None, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"name": "raylet", "cmdline": word and ["raylet", word]}
    monkeypatch.setattr(psutil, "process_iter", lambda attributes: [SimpleNamespace(info=node)])
    if accepted:
        with cluster("127.0.0.1:6379"):
            return
    message = r"^params.yaml: runtime.address: no node of a cluster at 127.0.0.1:6379 runs on this machine; "
    with pytest.raises(StageError, match=message), cluster("127.0.0.1:6379"):
        pass


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("mode", ["token", "disabled", ""])
def test_a_cluster_that_asks_for_no_token_is_warned_about(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    os.environ["RAY_AUTH_MODE"] = mode
    with cluster("auto"):
        warned = "WARNING: the Ray cluster at auto: it asks for no token" in capsys.readouterr().err
    assert warned == (mode != "token")


def test_sockets_fit_into_their_limit(ray: fake_ray.FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * 60}")
    with cluster(None):
        socket_name = f"{ray.settings['_temp_dir']}/session_2026-11-29_20-46-11_556330_1234567/sockets/plasma_store"
    assert len(socket_name) <= 107


def test_a_task_that_ray_gave_up_is_told_with_what_helps_and_its_own_error_as_it_is() -> None:
    ray = SimpleNamespace(exceptions=SimpleNamespace(OutOfMemoryError=MemoryError))
    killed = failure_of(ray, MemoryError("Task was killed\nby the node"), "decoding")
    assert str(killed).startswith("decoding: MemoryError: Task was killed by the node; let fewer trials run there ")
    assert "see the logs" in failure_of(ray, ValueError("x"), "decoding").remedy
    sent = pickle.loads(pickle.dumps(StageError("node 10.0.0.2: params.yaml: a", "3; or 4", "write 5")))
    told = failure_of(ray, SimpleNamespace(cause=sent), "a unit")  # type: ignore[arg-type]
    assert str(told) == "node 10.0.0.2: params.yaml: a: 3; or 4; write 5"


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    with output_folder(tmp_path / "made") as made:
        (made / "below").mkdir()
        (made / "below" / "a").write_bytes(b"12345")
        (made / "b").write_bytes(b"")
    return send(tmp_path / "made", lambda value: value)


def got(files: Files) -> tuple[Path, int]:
    """The folder on the node, and how many files were fetched for it."""
    fetched: list[Any] = []

    def get(value: Any) -> Any:
        fetched.append(value)
        return value

    return receive(files, "x", get), len(fetched)


def test_a_folder_is_fetched_once(sent: Files) -> None:
    folder, count = got(sent)
    assert count == 3
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {"below", "below/a", "b", MANIFEST}
    assert (folder / "below/a").read_bytes() == b"12345"
    assert got(sent) == (folder, 0)


@pytest.mark.parametrize("damaged", ["below/a", MANIFEST, None])
def test_what_is_damaged_or_was_cut_short_by_a_kill_is_fetched_again(damaged: str | None, sent: Files) -> None:
    folder, _ = got(sent)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    if damaged:
        (folder / damaged).write_bytes(b"x")
    else:
        (folder / MANIFEST).unlink()  # it comes last
    (folder / "stray").touch()
    assert got(sent) == (folder, 3)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_what_is_damaged_already_where_it_comes_from_is_an_error(sent: Files) -> None:
    with pytest.raises(StageError, match="missing, though the manifest names it"):
        got({name: value for name, value in sent.items() if name != "b"})


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StageError("params.yaml: a", "3; or 4", "write 5"), "node 127.0.0.9: params.yaml: a: 3; or 4; write 5"),
        (FileNotFoundError(2, "No such file", "gone"), "node 127.0.0.9: gone"),
        (RuntimeError("CUDA error: out of memory"), "node 127.0.0.9: memory: not enough"),
        (ValueError("a defect"), None),
    ],
)
def test_what_a_user_can_fix_is_told_with_the_node_and_everything_else_is_raised(
    error: Exception, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    with pytest.raises(StageError if told else type(error)) as raised, on_this_node():
        raise error
    assert str(raised.value).startswith(told or str(error))


def test_a_node_that_is_told_to_go_ends_as_by_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    with on_this_node():
        raise Terminated
    assert codes == [143]
