"""Folders that travel to a node: written once, checked, and fetched again if they are damaged."""

import tempfile
from pathlib import Path
from typing import Any

import pytest

from stages.plumbing.cluster import Files, on_this_node, receive, send
from stages.plumbing.errors import StageError
from stages.plumbing.files import MANIFEST, output_folder
from stages.plumbing.signals import Terminated
from tests import fake_ray

Fetched = list[Any]


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
    count = 0

    def get(value: Any) -> Any:
        nonlocal count
        count += 1
        return value

    return receive(files, "x", get), count


def test_a_folder_is_fetched_once(sent: Files) -> None:
    folder, count = got(sent)
    assert count == 3
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*")} == {"below", "below/a", "b", MANIFEST}
    assert (folder / "below/a").read_bytes() == b"12345"
    assert got(sent) == (folder, 0)


@pytest.mark.parametrize("damaged", ["below/a", MANIFEST])
def test_what_is_damaged_is_fetched_again(damaged: str, sent: Files, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = got(sent)
    before = (folder / damaged).read_bytes()
    (folder / damaged).write_bytes(b"x")
    (folder / "stray").touch()
    assert got(sent) == (folder, 3)
    assert "fetched again" in capsys.readouterr().err
    assert (folder / damaged).read_bytes() == before
    assert got(sent) == (folder, 0)


def test_what_a_kill_cut_short_is_written_anew(sent: Files) -> None:
    folder, _ = got(sent)
    (folder / MANIFEST).unlink()
    (folder / "below/a").write_bytes(b"12")
    assert got(sent) == (folder, 3)


def test_what_is_damaged_already_where_it_comes_from_is_an_error(sent: Files) -> None:
    with pytest.raises(StageError, match="missing, though the manifest names it"):
        got({name: value for name, value in sent.items() if name != "b"})


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StageError("params.yaml: a", "3; or 4", "write 5"), "node 127.0.0.9: params.yaml: a: 3; or 4; write 5"),
        (FileNotFoundError(2, "No such file", "gone"), "node 127.0.0.9: gone"),
        (RuntimeError("CUDA error: out of memory"), "node 127.0.0.9: memory: not enough"),
        (RuntimeError("shapes cannot be multiplied"), None),
        (ValueError("a defect"), None),
    ],
)
def test_what_a_user_can_fix_is_told_with_the_node_and_everything_else_is_raised(
    error: Exception, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")

    def work(node: str, get: Any) -> str:
        raise error

    with pytest.raises(StageError if told else type(error)) as raised:
        on_this_node(work)
    assert str(raised.value).startswith(told or str(error))


def test_a_node_that_is_told_to_go_ends_as_by_sigterm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_ray.install(monkeypatch, tmp_path / "node")
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)

    def work(node: str, get: Any) -> str:
        raise Terminated

    on_this_node(work)
    assert codes == [143]
