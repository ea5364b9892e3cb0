"""How every command starts and ends: its arguments, signals, the one line on stderr for an error, the exit code."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from stages.plumbing.errors import DEBUG_VARIABLE, StageError, describe, one_line
from stages.plumbing.files import STATE, lock
from stages.plumbing.signals import Terminated, ignore_signals, raise_on_signals, stop_with_dvc

DATA = Path("data")
LOCKS = STATE / "locks"  # one per stage that is running in this folder


def whole_number(low: int, high: int = 2**31 - 1) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not low <= (value := int(text)) <= high:
            raise argparse.ArgumentTypeError(f"found {text}; it must be from {low} to {high}")
        return value

    parse.__name__ = "whole number"  # argparse's message: invalid whole number value
    return parse


def _check_data() -> None:
    if DATA.is_symlink():  # DVC itself says it when the stage has run
        found = f"a link to {DATA.readlink()}, and DVC keeps nothing that is behind a link"
        disk = "for another disk: dvc cache dir --local PLACE; dvc config --local cache.type symlink"
        raise StageError(DATA, found, f"make it a folder; {disk}")


def _fail(name: str, text: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()  # first, so that the error is the last line if both go to one log
    except OSError:  # give up on stdout, or Python tries to flush it again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f"ERROR {name}: {one_line(text)}", file=sys.stderr, flush=True)
    sys.exit(code)


def run_stage(
    name: str,
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], None],
    alone: bool = True,
    after_stop: str = "finished work is kept; run it again to go on",
) -> NoReturn:
    """Parse the arguments, run `main` and exit: 0 when done, 1 on an error, 130 after Ctrl-C, 143 after SIGTERM.

    The last line on stderr of a failed stage is `ERROR <stage>: <file or key>: <what was found>; <what to do>`. With
    `alone`, a second command of that name in the same folder is refused: one left over from an earlier run shares no
    file with it. `after_stop`: what a signal leaves, and what to do then.
    """
    parser.prog = f"python -m stages.{name.replace('-', '_')}"  # argparse's own default is __main__.py
    parser.error = lambda message: _fail(name, f"command line: {message}; see --help", 2)  # type: ignore[method-assign]
    parser.add_argument("--debug", action="store_true", help="print the traceback of an error")
    arguments = parser.parse_args()
    try:
        raise_on_signals()
        stop_with_dvc()
        if alone:
            _check_data()
            STATE.mkdir(mode=0o700, exist_ok=True)
        with lock(LOCKS / name) if alone else nullcontext():
            main(arguments)
        sys.stdout.flush()
        ignore_signals()
    except (KeyboardInterrupt, Terminated) as stop:
        _fail(name, f"stopped by a signal: {after_stop}", 130 if isinstance(stop, KeyboardInterrupt) else 143)
    except Exception as error:  # here every error becomes one line
        ignore_signals()
        if arguments.debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
            traceback.print_exc()
        _fail(name, describe(error), 1)
    sys.exit(0)
