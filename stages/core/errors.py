"""The one way to fail: a StageError becomes a single line on stderr and an exit code that is not zero."""

import argparse
import errno
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

DEBUG_VARIABLE = "DIALOG_PROMPTING_DEBUG"
LOCKS = Path(".state/locks")  # of the stages at work in this folder
NO_MEMORY = re.compile(  # of the CPU's allocator, an accelerator and its libraries, threads, oneDNN, mapped files
    "not enough memory|out of memory|_ALLOC_FAILED|can't start new thread|could not create a primitive(?! descriptor)"
    "|Cannot allocate memory"
)
SECONDS_BETWEEN_LOOKS = 0.25  # at the processes above this one


class StageError(Exception):
    """Something a user can mend: which file or key, what was found there and what to do about it."""

    def __init__(self, subject: object, found: str, remedy: str) -> None:
        super().__init__(f"{subject}: {found}; {remedy}")
        self.found = found


class Terminated(BaseException):
    """SIGTERM was received. Like KeyboardInterrupt it is no Exception, so that no handler swallows it."""


def one_line(text: str) -> str:
    """Whitespace, line breaks included, becomes single spaces: an error message is one line."""
    return " ".join(text.split())


def system_error(error: BaseException) -> int | None:
    """The errno behind an error, also of libraries in Rust, which have it in their message alone."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of its accelerator, is used up.

    What says it with a RuntimeError is told by its words; PyTorch, which has a class for it, is not imported here.
    """
    said = isinstance(error, RuntimeError | OSError) and NO_MEMORY.search(str(error)) is not None
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return said or named or system_error(error) == errno.ENOMEM


def describe(error: BaseException) -> str:
    """The text behind `ERROR <stage>: ` for an error: `<file or key>: <what was found>; <what to do>`."""
    if isinstance(error, StageError):
        return one_line(str(error))
    if is_out_of_memory(error):
        remedy = "close other programs, or lower protocols.<name>.training.batch_size or runtime.decode_rows"
        return f"memory: not enough of it; {remedy}"
    if (number := system_error(error)) is not None:
        subject = getattr(error, "filename", None) or "standard output or a file"  # ours are all named
        if number in (errno.ENOSPC, errno.EDQUOT):
            return f"{subject}: no space left on the device; free some and run the same command again"
        if number == errno.EFBIG:
            return f"{subject}: larger than files may be here; raise that limit (ulimit -f) and run it again"
        return f"{subject}: {one_line(os.strerror(number))}; check that path and its permissions"
    return (
        f"{type(error).__name__}: {one_line(str(error)) or 'no message'}; "
        f"set {DEBUG_VARIABLE}=1 for the traceback and report it"
    )


def ignore_signals() -> None:
    """From the first signal on: a second one must not interrupt the saving and tidying that the first one started."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _is_dvc(name: str) -> bool:
    return name.lower().startswith(("dvc", "python"))


def _up_to_dvc() -> list[tuple[int, str]]:
    """Number and name of the processes above this one, from its parent (a shell, or DVC) to DVC; if it is there."""
    import psutil  # only under DVC, which needs it itself

    chain: list[tuple[int, str]] = []
    number = os.getppid()
    with suppress(psutil.Error):
        while number > 0 and not (chain and _is_dvc(chain[-1][1])):
            process = psutil.Process(number)
            chain.append((number, process.name()))
            number = process.ppid()
    return chain


def _is_orphan() -> bool:
    """Whether the parent is none that runs commands: the first of all processes, or one of another session."""
    with suppress(OSError):
        return os.getppid() == 1 or os.getsid(os.getppid()) != os.getsid(0)
    return True


def _stop_with_dvc() -> None:
    """Under DVC, stop when it has died: it does not supervise its children, and the next `dvc repro` starts another.

    Sends this process SIGTERM, so that it saves and ends as on any other request to stop. DVC runs a command in a
    shell, which replaces itself by the command or stands between the two; and DVC may have died before this is called,
    while libraries were loaded.
    """
    if "DVC_STAGE" not in os.environ:
        return
    chain = _up_to_dvc()
    if not (chain and _is_dvc(chain[-1][1])):  # another program that uses DVC as a library, or none
        chain = [] if _is_orphan() else chain[:1]

    def watch() -> None:
        while chain and _up_to_dvc()[: len(chain)] == chain:
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _parse(name: str, parser: argparse.ArgumentParser) -> argparse.Namespace:
    def refuse(message: str) -> NoReturn:
        print(f"ERROR {name}: command line: {one_line(message)}; see --help", file=sys.stderr)
        sys.exit(2)

    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser.parse_args()


def _run(name: str, main: Callable[[argparse.Namespace], None], arguments: argparse.Namespace, alone: bool) -> None:
    from stages.core.locks import lock  # here: it needs StageError

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as SIGINT is for what a script runs in the background
            signal.signal(number, _stop)
    _stop_with_dvc()
    with lock(LOCKS / name) if alone else nullcontext():
        main(arguments)
    sys.stdout.flush()
    ignore_signals()


def _fail(name: str, text: str) -> None:
    try:
        sys.stdout.flush()  # first, so that in a log of both the error is the last line
    except OSError:  # or Python tries once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"ERROR {name}: {text}", file=sys.stderr, flush=True)


def run_stage(
    name: str, parser: argparse.ArgumentParser, main: Callable[[argparse.Namespace], None], alone: bool = True
) -> NoReturn:
    """Parse the arguments, run `main` and exit: 0 when done, 1 on an error, 130 after Ctrl-C, 143 after SIGTERM.

    The last line on stderr of a failed stage is `ERROR <stage>: <file or key>: <what was found>; <what to do>`;
    the traceback comes before it only with --debug or DIALOG_PROMPTING_DEBUG=1. alone: a second one of that name in
    the same folder is refused, so that what an earlier run has left at work shares no file with the next.
    """
    arguments = _parse(name, parser)
    debug = arguments.debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    try:
        _run(name, main, arguments, alone)
    except (KeyboardInterrupt, Terminated) as stop:
        _fail(name, "stopped by a signal: what was finished is kept; run it again to go on")
        sys.exit(130 if isinstance(stop, KeyboardInterrupt) else 143)
    except Exception as error:  # the boundary: every error becomes one line
        ignore_signals()
        if debug:
            traceback.print_exc()
        _fail(name, describe(error))
        sys.exit(1)
    sys.exit(0)
