"""Download one file from the hub with huggingface_hub, which brings the cache, HF_ENDPOINT and retries."""

import errno
import re
from collections.abc import Callable
from functools import partial
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
from tqdm import tqdm

from stages.download.retries import ATTEMPTS, TransientError, is_busy
from stages.params.sources import PICKLES, Source
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import sha256_of


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
    repository = source.place.removeprefix("datasets/")
    kind = "dataset" if source.place.startswith("datasets/") else "model"
    arguments: dict[str, Any] = {"repo_id": repository, "repo_type": kind, "revision": source.revision}
    try:
        get = partial(hf_hub_download, filename=path, tqdm_class=BoundedTransfer, **arguments)
        return _intact(lambda force: get(force_download=force), again)
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
    """Download a file and check its sha256, which is the name of a large file in the cache; try at most twice."""
    for force in (again, True):
        path = Path(str(download(force)))
        name = path.resolve().name
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
