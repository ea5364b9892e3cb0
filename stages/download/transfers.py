"""Watch what comes from the hub: a transfer that starts over for ever or that stands still is ended.

Large files of the hub are in Xet, a storage of its own, which huggingface_hub reads with the package hf_xet. If that
storage does not answer, hf_xet on its own asks again for three minutes without a word.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
from huggingface_hub import constants, set_client_factory
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._http import hf_request_event_hook
from huggingface_hub.utils._xet import abort_xet_session
from tqdm import tqdm

from stages.download.retries import ATTEMPTS, TransientError
from stages.plumbing.errors import one_line

# Of each request to the storage. With hf_xet's own 5, which wait longer each time, a server error took three minutes.
RETRIES = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2"}
TOKENS = "/xet-read-token/"  # in the address where the hub gives tokens for Xet


class BoundedTransfer(tqdm):  # type: ignore[misc]
    """A progress bar that stops a transfer which would start again for ever.

    huggingface_hub retries as long as any data arrives. If the server cuts every answer short, it never stops.
    """

    received = 0.0

    def update(self, n: float | None = 1) -> None:
        """Count what arrives; huggingface_hub passes a negative number when it starts again."""
        self.received += max(n or 0, 0)
        if self.total and self.received > ATTEMPTS * self.total:
            raise TransientError(f"the transfer of {self.total} bytes was cut short every time")
        super().update(n)


class XetError(Exception):
    """The hub answers, but its Xet storage does not: another attempt without Xet may work."""


class BoundedClient(httpx.Client):
    """huggingface_hub's client, but one whose requests all have a time limit.

    The library has none where it asks for a token for Xet, and says "no limit" where it asks for a list of files. It
    asks five times more for a token that does not come in time, so that is an error of another kind here.
    """

    def __init__(self) -> None:
        super().__init__(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)

    def send(self, request: httpx.Request, **named: Any) -> httpx.Response:
        """Send a request, with the time limit of downloads if it has none."""
        limit = constants.HF_HUB_DOWNLOAD_TIMEOUT
        if request.extensions["timeout"]["read"] is None:
            request.extensions["timeout"] = httpx.Timeout(limit).as_dict()
        try:
            return super().send(request, **named)
        except httpx.TimeoutException:
            if TOKENS in request.url.path:
                raise XetError(nothing_for(limit)) from None
            raise


@cache
def bound_requests() -> None:
    """From now on all requests of huggingface_hub have a time limit."""
    set_client_factory(BoundedClient)


def nothing_for(seconds: float) -> str:
    """What is said of a transfer that stands still."""
    return f"nothing arrived for {seconds} s"


class StallWatch:
    """Ends a transfer from Xet in which nothing has arrived for `seconds`; its bars are of the class `bar`."""

    def __init__(self, seconds: float) -> None:
        watch = self
        self.seconds, self.stalled = seconds, False
        self._moved: float | None = None  # when something last arrived; None: no transfer has begun
        self._done = threading.Event()

        class Bar(BoundedTransfer):
            def __init__(self, *arguments: object, **named: object) -> None:
                watch.moved()
                super().__init__(*arguments, **named)

            def update(self, n: float | None = 1) -> None:
                watch.moved()
                super().update(n)

        self.bar: type[BoundedTransfer] = Bar

    def moved(self) -> None:
        """Something arrived just now."""
        self._moved = time.monotonic()

    def __enter__(self) -> "StallWatch":
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(min(self.seconds / 4, 1.0)):
            if self._moved is not None and time.monotonic() - self._moved > self.seconds:
                self.stalled = True
                abort_xet_session()  # type: ignore[no-untyped-call]  # the call that waits for it raises; without a session this does nothing
                return


@contextmanager
def watched_transfer() -> Iterator[type[BoundedTransfer]]:
    """The class of progress bar for one download by huggingface_hub, which is ended when it stands still.

    The time limit is huggingface_hub's own, HF_HUB_DOWNLOAD_TIMEOUT seconds (10 if it is not set). Without Xet,
    huggingface_hub itself keeps to it. Before the first bar there is the token for Xet: `BoundedClient`.

    Raises:
        XetError: the file is in Xet, and its storage, or the hub's door to it, fails or stands still.
    """
    bound_requests()
    if constants.HF_HUB_DISABLE_XET:
        yield BoundedTransfer
        return
    for name, value in RETRIES.items():
        os.environ.setdefault(name, value)
    with StallWatch(constants.HF_HUB_DOWNLOAD_TIMEOUT) as watch:
        try:
            yield watch.bar
        except Exception as error:
            if not _is_of_xet(error):
                raise
            reason = nothing_for(watch.seconds) if watch.stalled else one_line(str(error))
            raise XetError(reason) from None


def leave_xet_out() -> None:
    """From now on this process downloads without Xet, as if HF_HUB_DISABLE_XET were set."""
    constants.HF_HUB_DISABLE_XET = True


def _is_of_xet(error: Exception) -> bool:
    """Whether it comes from hf_xet, which raises RuntimeError and its own errors, or from the hub's door to Xet."""
    if isinstance(error, HfHubHTTPError):
        return TOKENS in error.response.request.url.path
    if isinstance(error, httpx.RequestError):
        return TOKENS in error.request.url.path
    if isinstance(error, ValueError):
        return str(error).startswith("Xet headers")  # an answer of that door that says nothing
    return type(error) is RuntimeError or type(error).__module__ == "hf_xet"
