"""How commands start and stop: nothing slow before the arguments are read, one line about what is wrong."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from stages.plumbing.errors import StageError, describe
from tests.stage_runs import Run
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


def test_transformers_comes_without_what_the_stages_do_not_use_and_others_can_have_it() -> None:
    load = "from stages.language_model.device import load_transformers; load_transformers(); "
    check = "import sys; assert not {'sklearn', 'scipy'} & set(sys.modules); import scipy"
    assert {"torch", "transformers", "scipy"} <= imported("-c", f"{load}{check}")


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
