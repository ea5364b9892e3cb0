"""A Ray cluster, at an address or on this machine alone, behind closed doors; folders and tasks on its nodes.

Ray runs the code of whoever reaches its ports. On this machine it therefore listens on loopback only, asks for a token
that is made anew each time, shows no dashboard and reports nothing to its makers. A cluster is started by its owner,
with token authentication (stages/grid/README.md); what is set in the environment for it is used here as it is.
"""

import fcntl
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from stages.plumbing.errors import StageError, describe, is_out_of_memory, one_line
from stages.plumbing.files import MANIFEST, STATE_VARIABLE, check_folder, fsync_path
from stages.plumbing.signals import StopRequest, Terminated, raise_on_signals

Key = TypeVar("Key")
Files = dict[str, Any]  # name in the folder -> reference to its bytes

ADDRESS = "RAY_ADDRESS"
KEY = "params.yaml: runtime.address"
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray then takes 127.0.0.1 for this machine's own address
# How often Ray repeats a task that it has killed for want of memory. It counts these apart; its default is no limit.
MEMORY_RETRIES = ("RAY_task_oom_retries", "2")
LONGEST_FOLDER = 30  # for Ray's: a session's name and a socket's have 77 characters more
CODE = Path(__file__).resolve().parents[1]  # `stages`, which travels to every node
TOKEN = secrets.token_hex(32)  # anew for each process, and no oftener: Ray reads it once


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """The module `ray`, connected for the length of the block: to `address`, to RAY_ADDRESS, or to a new one here.

    Raises:
        StageError: Ray is not installed, this machine is no node of a cluster at the address, or Ray does not start.
    """
    where = address or os.environ.get(ADDRESS) or None  # empty is not set, as Ray has it
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_COLOR_PREFIX="0", RAY_DEDUP_LOGS="0")
    os.environ.setdefault(*MEMORY_RETRIES)  # as all of them before `import ray`, which reads them
    place = tempfile.gettempdir() if len(tempfile.gettempdir()) <= LONGEST_FOLDER else "/tmp"
    with TemporaryDirectory(prefix="ray-", dir=place, ignore_cleanup_errors=True) as folder:
        settings: dict[str, Any] = {"address": where}
        if where is None:
            os.environ.update(LOOPBACK, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
            settings = {"include_dashboard": False, "_temp_dir": folder}
        ray = _ray()
        if where not in (None, "auto"):  # with "auto" Ray looks for one on this machine
            _check_node(str(where))
        try:
            code = {"py_modules": [str(CODE)], "excludes": ["__pycache__"]}
            ray.init(runtime_env=code, logging_level="ERROR", **settings)
        except (RuntimeError, OSError, ValueError) as error:
            raise explained(where, error) from None
        finally:
            raise_on_signals()  # Ray has put a handler of its own in place of ours
        if where is not None and os.environ.get("RAY_AUTH_MODE") != "token":
            said = "it asks for no token: whoever reaches its ports runs code there as you; see stages/grid/README.md"
            print(f"WARNING: the Ray cluster at {where}: {said}", file=sys.stderr, flush=True)
        try:
            yield ray
        finally:
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        found = f"Ray is not installed in {sys.prefix}"
        remedy = "pip install -c constraints.txt -e '.[ray]', or set it to local"
        raise StageError("params.yaml: runtime.engine", found, remedy) from None
    return ray


def _check_node(address: str) -> None:
    """Refuse an address whose cluster has no node on this machine: Ray would try for minutes, then end the process.

    By the port alone, since the head has several names; a node whose command line we may not read is believed.
    """
    import psutil  # not on the way to Ray itself

    port = address.rpartition(":")[2]
    nodes = [each.info["cmdline"] for each in psutil.process_iter(["name", "cmdline"]) if each.info["name"] == "raylet"]
    for words in nodes:
        if words is None or any(each.startswith("--gcs-address=") and each.endswith(f":{port}") for each in words):
            return
    found = f"no node of a cluster at {address} runs on this machine"
    raise StageError(KEY, found, f"start one (ray start --address={address}), or write the HOST:PORT of its head")


def explained(address: str | None, error: Exception) -> StageError:
    """Why Ray refused to connect."""
    text = one_line(str(error))
    if "Version mismatch" in text:
        return StageError(KEY, f"{address}: {text}", "install the same versions of Python and Ray everywhere")
    if isinstance(error, ConnectionError):
        remedy = "look at its logs; if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here too"
        return StageError(KEY, f"no cluster that lets us in at {address} ({text})", remedy)
    return StageError(KEY, f"Ray does not start: {type(error).__name__}: {text}", "see stages/grid/README.md")


def gather(
    ray: Any, tasks: dict[Any, Key], keep: Callable[[Key, Any], None], what: str, seconds_to_save: float = 0
) -> None:
    """Wait for tasks of Ray's; `keep` gets the key of each and what came of it, as soon as it is done.

    Whatever stops that: the other tasks are told to stop, and what is done within `seconds_to_save` is kept too; with
    none they are killed.

    Raises:
        StageError: a task, `what`, has failed.
    """
    with StopRequest() as stop:
        try:
            while tasks:
                ready, _ = ray.wait([*tasks], num_returns=1, timeout=0.5)
                stop.check()
                for reference in ready:
                    keep(tasks.pop(reference), ray.get(reference))
        except BaseException as error:
            print(f"stopping {len(tasks)} tasks", file=sys.stderr, flush=True)
            with suppress(Exception):  # the cluster itself may be what failed
                for reference in tasks:
                    ray.cancel(reference, force=not seconds_to_save)
                ended, _ = ray.wait([*tasks], num_returns=len(tasks), timeout=seconds_to_save)
                for reference in ended:
                    with suppress(ray.exceptions.RayError, OSError, StageError):  # it was stopped, or cannot be written
                        keep(tasks[reference], ray.get(reference, timeout=seconds_to_save))
            if isinstance(error, ray.exceptions.RayError):
                raise failure_of(ray, error, what) from None
            raise


def failure_of(ray: Any, error: Exception, what: str) -> StageError:
    """Why Ray gave up a task, `what`; what the task itself has raised for a user is as it was."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, StageError):
        return cause
    remedy = "see the logs of that node; the same command goes on with what is done"
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        remedy = "let fewer trials run there at once (raise runtime.threads or gpus_per_trial), then run it again"
    return StageError(what, f"{type(cause).__name__}: {one_line(str(cause))[:300]}", remedy)


@contextmanager
def on_this_node() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """A block in a process of Ray's, with the node's address and what fetches from the object store.

    All state is in `scratch`: the working directory is wherever the node was started. A signal means that the node is
    told to go: another one goes on with the work.

    Raises:
        StageError: an error that a user can fix, with the node in front.
    """
    import ray  # elsewhere it need not be installed

    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    before = os.environ.get(STATE_VARIABLE, "")  # as good as none if it is empty
    try:
        os.environ[STATE_VARIABLE] = str(scratch())
        yield node, ray.get
    except Terminated:  # what can be saved is saved
        os._exit(143)
    except (StageError, OSError, MemoryError, RuntimeError) as error:
        if not isinstance(error, StageError | OSError) and not is_out_of_memory(error):
            raise
        found, _, remedy = describe(error).rpartition("; ")
        raise StageError(f"node {node}", found, remedy) from None
    finally:
        os.environ[STATE_VARIABLE] = before


def send(folder: Path, put: Callable[[Any], Any]) -> Files:
    """Put every file of a folder into the object store, from where each node fetches it once."""
    import numpy as np  # an array travels without a copy

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): put(np.fromfile(path, dtype=np.uint8)) for path in paths}


def receive(files: Mapping[str, Any], name: str, get: Callable[[Any], Any]) -> Path:
    """The folder again, on this node: written by the first task that needs it, the same for all that come later.

    One that is damaged, or that a kill cut short, is fetched again.
    """
    folder = scratch() / "inputs" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as long as it takes: another task here may be writing hundreds of megabytes
        if (folder / MANIFEST).exists():
            try:
                check_folder(folder)
                return folder
            except StageError as error:
                print(f"{folder}: damaged ({one_line(error.found)}): fetched again", file=sys.stderr, flush=True)
        unpack(files, folder, get)
    return folder


def unpack(files: Mapping[str, Any], folder: Path, get: Callable[[Any], Any]) -> None:
    """Write a folder anew, its manifest last: that says that the rest is there; then check it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in sorted(files, key=lambda path: path == MANIFEST):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        get(files[path]).tofile(folder / path)
        fsync_path(folder / path)
    check_folder(folder)


def scratch() -> Path:
    """This user's folder on this node, below TMPDIR: inputs, and the state of trials at work.

    Raises:
        StageError: somebody else made a folder of that name.
    """
    folder = Path(tempfile.gettempdir()) / f"dialog-prompting-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        raise StageError(folder, "a folder that others can write to", "remove it, or set TMPDIR for Ray")
    return folder
