"""Retry what may work the next time, a limited number of times."""

import time
from collections.abc import Callable
from typing import TypeVar

from stages.plumbing.errors import StageError

ATTEMPTS = 3
FIRST_WAIT = 1.0  # seconds; doubled after each attempt

Result = TypeVar("Result")


class TransientError(Exception):
    """An error after which another attempt may work: a broken connection, a busy server."""


def is_busy(status: int) -> bool:
    """Whether an HTTP status means: try again later."""
    return status >= 500 or status in (408, 429)


def with_retries(subject: str, what: str, remedy: str, attempt: Callable[[], Result]) -> Result:
    """Call `attempt` until it works, at most three times.

    Raises:
        StageError: it never worked; the message lists what went wrong each time.
    """
    problems: list[str] = []
    for number in range(ATTEMPTS):
        if number:
            time.sleep(FIRST_WAIT * 2 ** (number - 1))
        try:
            return attempt()
        except TransientError as error:
            problems.append(str(error))
    tried = "; ".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
    raise StageError(subject, f"{what} failed {ATTEMPTS} times ({tried})", remedy)
