"""Files that a crash cannot leave half-written, on file systems of every habit."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stages.plumbing.files import (
    NO_FLUSH,
    STATE_VARIABLE,
    check_folder,
    output_folder,
    scratch_folder,
    state_folder,
    write_bytes,
)
from tests.stage_runs import fails
from tests.tiny import ROOT


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, folders: bool) -> None:
    """Let the file system answer so when a folder, or a file, is to be flushed."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", NO_FLUSH)
def test_a_file_system_need_not_flush_folders(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, number, folders=True)
    with output_folder(tmp_path / "made") as folder:
        write_bytes(folder / "a", b"b")
    assert "a" in check_folder(tmp_path / "made")["files"]


@pytest.mark.parametrize(("number", "folders"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_what_cannot_be_written_is_an_error(
    number: int, folders: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, number, folders)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_bytes(tmp_path / "a", b"b")


def test_the_scratch_of_a_killed_process_goes_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    script = "import os; from stages.plumbing.files import scratch_folder; made = scratch_folder(); made.__enter__(); "
    subprocess.run([sys.executable, "-c", script + "os.kill(os.getpid(), 9)"], cwd=ROOT, check=False)
    (left,) = (tmp_path / "state").glob("scratch-*/")
    with scratch_folder() as one, scratch_folder() as two:
        assert one.is_dir() and two.is_dir()
        assert not left.exists()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["scratch.lock"]


def test_the_state_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    assert state_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "subset")
    assert (tmp_path / "empty/.state").stat().st_mode & 0o777 == 0o700
