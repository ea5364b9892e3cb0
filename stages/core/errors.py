"""The one way to fail: a StageError becomes a single line on stderr and an exit code that is not zero."""

import argparse
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

DEBUG_VARIABLE = "DIALOG_PROMPTING_DEBUG"


class StageError(Exception):
    """Something a user can mend: which file or key, what was found there and what to do about it."""

    def __init__(self, subject: object, found: str, remedy: str) -> None:
        super().__init__(f"{subject}: {found}; {remedy}")


class Terminated(BaseException):
    """SIGTERM was received. Like KeyboardInterrupt it is no Exception, so that no handler swallows it."""


def one_line(text: str) -> str:
    """Whitespace, line breaks included, becomes single spaces: an error message is one line."""
    return " ".join(text.split())


def describe(error: BaseException) -> str:
    """The text behind `ERROR <stage>: ` for an error: `<file or key>: <what was found>; <what to do>`."""
    if isinstance(error, StageError):
        return one_line(str(error))
    if isinstance(error, MemoryError):
        return "memory: not enough of it; close other programs or lower protocols.<name>.batch_size"
    if isinstance(error, OSError) and error.errno is not None:
        subject = error.filename or "a file"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"{subject}: no space left on the device; free some and run the same command again"
        return f"{subject}: {one_line(error.strerror or str(error))}; check that path and its permissions"
    return (
        f"{type(error).__name__}: {one_line(str(error)) or 'no message'}; "
        f"set {DEBUG_VARIABLE}=1 for the traceback and report it"
    )


def _raise_terminated(signum: int, frame: FrameType | None) -> None:
    # A second SIGTERM must not interrupt what the first one started (saving a checkpoint).
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


def _stop_with_parent() -> None:
    """Under DVC, stop when it has died: it does not supervise its children, and the next `dvc repro` starts another.

    Sends this process SIGTERM, so that it saves and ends as on any other request to stop.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    if "DVC_STAGE" in os.environ:
        threading.Thread(target=watch, daemon=True).start()


def run_stage(name: str, parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None]) -> None:
    """Parse the arguments, run `main` and exit: 0 when done, 1 on an error, 130 after Ctrl-C, 143 after SIGTERM.

    The last line on stderr of a failed stage is `ERROR <stage>: <file or key>: <what was found>; <what to do>`;
    the traceback comes before it only with --debug or DIALOG_PROMPTING_DEBUG=1.
    """
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    arguments = parser.parse_args()
    debug = arguments.debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    signal.signal(signal.SIGTERM, _raise_terminated)
    _stop_with_parent()
    try:
        main(arguments)
        code = 0
    except (KeyboardInterrupt, Terminated) as stop:
        code = 130 if isinstance(stop, KeyboardInterrupt) else 143
        print(f"ERROR {name}: stopped by a signal: nothing is lost; run it again to go on", file=sys.stderr)
    except Exception as error:  # the boundary: every error becomes one line
        if debug:
            traceback.print_exc()
        code = 1
        print(f"ERROR {name}: {describe(error)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
