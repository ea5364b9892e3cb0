"""How commands start, stop and say what is wrong in a line; files that a crash cannot leave half-written."""

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pytest

from stages.plumbing.errors import StageError, describe
from stages.plumbing.files import (
    NO_FLUSH,
    STATE_VARIABLE,
    check_folder,
    output_folder,
    scratch_folder,
    state_folder,
    write_bytes,
)
from tests.stage_runs import Run, fails
from tests.stops import Stop
from tests.tiny import ROOT, shipped_params, write_yaml

COMMANDS = sorted(path.parent.name for path in (ROOT / "stages").glob("*/__main__.py"))
SLOW = {"torch", "transformers", "sklearn", "peft", "datasets", "scipy", "pandas", "dvc"}


def imported(*words: str) -> set[str]:
    """The packages that a Python process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_waits_for_no_slow_library(name: str) -> None:
    found = imported("-m", f"stages.{name}", "--help")
    assert "argparse" in found
    assert not found & SLOW


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A project in which nothing has run."""
    (tmp_path / "project").mkdir()
    write_yaml(tmp_path / "project/params.yaml", shipped_params())
    return tmp_path / "project"


@pytest.mark.parametrize("words", ["chat --once hello", "export --to out"])
def test_where_nothing_was_trained_a_command_says_what_to_run_first(words: str, untrained: Path) -> None:
    name, *others = words.split()
    code, printed = Run(untrained, [f"stages.{name}", *others], {}).wait()
    assert code == 1
    assert printed.startswith(f"ERROR {name}: data/train: missing, nothing was trained here yet; run `dvc repro`")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 143), (signal.SIGINT, 130)])
def test_a_chat_that_is_stopped_promises_no_kept_work(number: signal.Signals, code: int, untrained: Path) -> None:
    found, printed = Run(untrained, ["stages.chat"], {}, Stop(1, "params.yaml", number=number)).wait()
    assert found == code
    assert printed.startswith("ERROR chat: stopped by a signal: the conversation has ended; ")


def hung_up_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    Stop(1, "params.yaml", number=signal.SIGHUP)()


def test_a_closed_terminal_does_not_stop_what_nohup_started(untrained: Path) -> None:
    _, printed = Run(untrained, ["stages.chat"], {}, hung_up_under_nohup).wait()
    assert printed.startswith("ERROR chat: data/train: missing, nothing was trained here yet; ")


def caused_by(error: Exception) -> Exception:
    """As `datasets` raises what went wrong below it."""
    outer = RuntimeError("An error occurred while generating the dataset")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BrokenPipeError(errno.EPIPE, ""), "standard output or a file: whoever reads the output has stopped; nothing "),
        (OSError(errno.EIO, "", "a"), "a: the disk or the network behind it failed; see the system's log"),
        (caused_by(PermissionError(errno.EACCES, "", "a")), "a: Permission denied; "),
        (caused_by(pa.ArrowMemoryError("malloc of size 99 failed")), "memory: not enough; close other programs"),
        (ImportError("a.so: failed to map segment from shared object"), "memory: not enough; close other programs"),
        (caused_by(ValueError("x")), "RuntimeError: An error occurred while generating the dataset; set "),
        (StageError("a\x1b[31m", "b\u202ec", "好\n 🙂"), "a\\x1b[31m: b\\u202ec; 好 🙂"),
    ],
)
def test_what_the_machine_said_is_one_plain_line(error: Exception, said: str) -> None:
    assert describe(error).startswith(said)


@pytest.mark.parametrize(
    ("number", "folders", "allowed"),
    [*((number, True, True) for number in NO_FLUSH), (errno.EINVAL, False, False), (errno.EIO, True, False)],
)
def test_a_file_system_need_not_flush_folders_but_everything_else_is_an_error(
    number: int, folders: bool, allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) == folders:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with nullcontext() if allowed else pytest.raises(OSError, match=os.strerror(number)):
        with output_folder(tmp_path / "made") as folder:
            write_bytes(folder / "a", b"b")
        assert "a" in check_folder(tmp_path / "made")["files"]


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
