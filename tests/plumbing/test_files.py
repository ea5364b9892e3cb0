"""Files that a crash cannot leave half-written, on file systems of every habit."""

import errno
import os
import stat
from pathlib import Path

import pytest

from stages.plumbing.files import NO_FLUSH, check_folder, output_folder, write_bytes


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
