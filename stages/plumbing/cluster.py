"""A Ray cluster: the one at an address, or one on this machine alone, behind closed doors.

Ray runs the code of whoever reaches its ports. On this machine it therefore listens on loopback only, asks for a token
that is made anew each time, shows no dashboard and reports nothing to its makers. A cluster is started by its owner,
with token authentication (stages/grid/README.md); what is set in the environment for it is used here as it is.
"""

import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.plumbing.errors import StageError, one_line
from stages.plumbing.signals import raise_on_signals

ADDRESS = "RAY_ADDRESS"
KEY = "params.yaml: runtime.address"
SECONDS = 5.0  # to answer a connection
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray then takes 127.0.0.1 for this machine's own address
# How often Ray repeats a task that it has killed for want of memory. It counts these apart; its default is no limit.
MEMORY_RETRIES = ("RAY_task_oom_retries", "2")
LONGEST_FOLDER = 30  # for Ray's: a session's name and a socket's have 77 characters more
NODE = "raylet"  # the process that each node has
CODE = Path(__file__).resolve().parents[1]  # `stages`, which travels to every node


@contextmanager
def cluster(address: str | None, **resources: int) -> Iterator[Any]:
    """The module `ray`, connected for the length of the block: to `address`, to RAY_ADDRESS, or to a new one here.

    resources: of a new one, as `ray.init` calls them; what is not named is what this machine has.

    Raises:
        StageError: Ray is not installed, nothing answers at the address, what answers is another version, or this
            machine is none of its nodes.
    """
    where = address or os.environ.get(ADDRESS)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_COLOR_PREFIX="0", RAY_DEDUP_LOGS="0")
    os.environ.setdefault(*MEMORY_RETRIES)  # as all of them before `import ray`, which reads them
    with TemporaryDirectory(prefix="ray-", dir=_short_folder(), ignore_cleanup_errors=True) as folder:
        settings: dict[str, Any] = {"address": where}
        if where is None:
            os.environ.update(LOOPBACK, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_token())
            settings = {"include_dashboard": False, "_temp_dir": folder, **resources}
        ray = _ray()
        if where is not None:
            _check_answer(where)
        try:
            code = {"py_modules": [str(CODE)], "excludes": ["__pycache__"]}
            ray.init(runtime_env=code, logging_level="ERROR", **settings)
        except (RuntimeError, OSError, ValueError) as error:
            raise StageError(*explained(where, error)) from None
        finally:
            raise_on_signals()  # Ray has put a handler of its own in place of ours
        if where is not None and os.environ.get("RAY_AUTH_MODE") != "token":
            said = "it asks for no token: whoever reaches its ports runs code there as you; see stages/grid/README.md"
            print(f"WARNING: the Ray cluster at {where}: {said}", file=sys.stderr, flush=True)
        try:
            yield ray
        finally:
            ray.shutdown()


def _short_folder() -> str:
    """Where Ray may put its sockets, whose names have at most 107 characters."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= LONGEST_FOLDER else "/tmp"


@cache
def _token() -> str:
    """Anew for each process, and no oftener: Ray reads it once."""
    return secrets.token_hex(32)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        found = f"Ray is not installed in {sys.prefix}"
        remedy = "pip install -c constraints.txt -e '.[ray]', or set it to local"
        raise StageError("params.yaml: runtime.engine", found, remedy) from None
    return ray


def _check_answer(address: str) -> None:
    """Refuse an address at which nothing answers, or whose cluster has no node here. Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":  # Ray looks for one on this machine
        return
    if not host or not port.isdigit():
        raise StageError(KEY, f"{address!r} is no address", "write HOST:PORT, as `ray start --head` shows it")
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except OSError as error:
        found = f"no cluster answers at {address} ({error.strerror or error})"
        raise StageError(KEY, found, "start one (ray start --head), or correct the address") from None
    if not _has_node_here(port):
        found = f"no node of the cluster at {address} runs on this machine"
        raise StageError(KEY, found, f"type it on one of its nodes, or make this one: ray start --address={address}")


def _has_node_here(port: str) -> bool:
    """Whether this machine has a node of a cluster whose head listens on that port: Ray ends a process without one.

    By the port alone, since the head has several names; a node whose command line we may not read is believed.
    """
    import psutil  # not on the way to Ray itself

    nodes = [each.info["cmdline"] for each in psutil.process_iter(["name", "cmdline"]) if each.info["name"] == NODE]
    return any(
        words is None or any(word.startswith("--gcs-address=") and word.endswith(f":{port}") for word in words)
        for words in nodes
    )


def explained(address: str | None, error: Exception) -> tuple[str, str, str]:
    """Why Ray refused to connect, as key, what was found and what to do."""
    text = one_line(str(error))
    if "Version mismatch" in text:
        return KEY, f"{address}: {text}", "install the same versions of Python and Ray everywhere"
    if isinstance(error, ConnectionError):
        remedy = "look at its logs; if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too"
        return KEY, f"no cluster that lets us in at {address} ({text})", remedy
    return KEY, f"Ray does not start: {type(error).__name__}: {text}", "see stages/grid/README.md"


def failure_of(ray: Any, error: Exception, what: str) -> tuple[str, str, str]:
    """Why Ray gave up a task, `what`, as key, what was found and what to do."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, StageError):  # raised in the task
        return cause.subject, cause.found, cause.remedy
    remedy = "see the logs of that node; the same command goes on with what is done"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        remedy = "let fewer units run there at once (raise runtime.threads or gpus_per_unit), then run it again"
    return what, f"{type(cause).__name__}: {one_line(str(cause))[:300]}", remedy
