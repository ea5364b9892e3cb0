"""Download one file from the hub with huggingface_hub, which brings the cache, HF_ENDPOINT, Xet and retries."""

import errno
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stages.download.retries import TransientError, is_busy
from stages.download.transfers import XetError, leave_xet_out, watched_transfer
from stages.params.sources import PICKLES, Source
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import sha256_of


def download_from_hub(subject: str, source: Source, path: str, remedy: str, again: bool = False) -> Path:
    """Path of a file in huggingface_hub's cache; downloads it if it is not there.

    Args:
        subject: the key of params.yaml that errors name.
        source: a source of the kind `hub`.
        path: the file in the repository.
        remedy: the advice in errors.
        again: download it even if it is in the cache.

    Raises:
        StageError: the hub has no such repository, revision or file, or does not answer.
        TransientError: another attempt may work.
    """
    try:
        return _download(subject, source, path, remedy, again)
    except XetError as error:
        by_xet = str(error)
    leave_xet_out()
    print(f"{subject}: Xet storage failed ({by_xet}); trying once more without Xet", file=sys.stderr, flush=True)
    try:
        return _download(subject, source, path, remedy, again)
    except TransientError as error:
        found = f"downloading {path} failed with Xet ({by_xet}) and without ({error})"
        raise StageError(subject, found, f"set HF_HUB_DISABLE_XET=1 to leave Xet out, or {remedy}") from None


def _download(subject: str, source: Source, path: str, remedy: str, again: bool) -> Path:
    """Like `download_from_hub`, but raises XetError too."""
    repository = source.place.removeprefix("datasets/")
    kind = "dataset" if source.place.startswith("datasets/") else "model"
    arguments: dict[str, Any] = {"repo_id": repository, "repo_type": kind, "revision": source.revision}

    def get(force: bool) -> Any:
        with watched_transfer() as bar:
            return hf_hub_download(filename=path, tqdm_class=bar, force_download=force, **arguments)

    try:
        return _intact(get, again)
    except LocalEntryNotFoundError as error:
        reason = one_line(str(error.__cause__ or error))
        found = f"no answer from the hub for {repository} after several attempts ({reason})"
        raise StageError(subject, found, remedy) from None
    except RevisionNotFoundError:
        raise StageError(subject, f"{repository} has no revision {source.revision}", "fix the source") from None
    except (RemoteEntryNotFoundError, EntryNotFoundError):
        found = f"{repository} at {source.revision} has no file {path}{_only_pickles(arguments)}"
        raise StageError(subject, found, f"fix files, or {remedy}") from None
    except GatedRepoError:
        advice = f"ask for access on its page and log in with `hf auth login`, or {remedy}"
        raise StageError(subject, f"{repository} is gated", advice) from None
    except RepositoryNotFoundError:
        found = f"the hub has no {kind} {repository}, or it is private"
        raise StageError(subject, found, "fix the source, or log in with `hf auth login`") from None
    except HfHubHTTPError as error:
        if is_busy(error.response.status_code):
            raise TransientError(f"HTTP {error.response.status_code}") from None
        raise StageError(subject, f"the hub answers HTTP {error.response.status_code}", remedy) from None
    except httpx.HTTPError as error:
        raise TransientError(one_line(str(error)) or type(error).__name__) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise TransientError(one_line(str(error))) from None


def _intact(download: Callable[[bool], Any], again: bool) -> Path:
    """Download a file and check its sha256, which is the name of a large file in the cache; try at most twice.

    What the download returns is a link to that name. That name may itself be a link, to a file from Xet that several
    repositories share: its name there is a hash of another kind.
    """
    for force in (again, True):
        path = Path(str(download(force)))
        name = path.readlink().name if path.is_symlink() else path.name
        if not re.fullmatch("[0-9a-f]{64}", name) or sha256_of(path) == name:
            return path
    raise TransientError("the file's sha256 is not the one that the hub announced")


def _only_pickles(arguments: dict[str, Any]) -> str:
    """A remark if a repository has its weights only as pickles; empty if not, or if the hub does not list its files."""
    try:
        names = HfApi().list_repo_files(**arguments)
    except (HfHubHTTPError, httpx.HTTPError, OSError):
        return ""
    pickles = [name for name in names if name.endswith(PICKLES)]
    if not pickles or any(name.endswith((".safetensors", ".gguf")) for name in names):
        return ""
    return f": its weights are {', '.join(sorted(pickles))}, a format that can hold a pickle and is never loaded"
