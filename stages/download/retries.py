"""A bounded number of attempts at what may work the next time, and only at that."""

import time
from collections.abc import Callable
from typing import TypeVar

from stages.plumbing.errors import StageError

ATTEMPTS = 3
FIRST_WAIT = 1.0  # seconds; doubled after each attempt

Result = TypeVar("Result")


class TransientError(Exception):
    """It may work the next time: a connection that broke, a server that is busy."""


def is_busy(status: int) -> bool:
    """Whether an HTTP status says: later."""
    return status >= 500 or status in (408, 429)


def with_retries(subject: str, what: str, remedy: str, attempt: Callable[[], Result]) -> Result:
    """Call `attempt` until it works, three times at most.

    Raises:
        StageError: it did not work; the message lists what went wrong each time.
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
