"""One file from the hub, through huggingface_hub: its cache, its HF_ENDPOINT, its retries of a busy server."""

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
    """A progress bar that ends a transfer which starts again for ever.

    huggingface_hub goes on as long as any data arrives: from a server that cuts every answer short, for ever.
    """

    received = 0.0

    def update(self, n: float | None = 1) -> None:
        """Count what arrives; a negative number is huggingface_hub starting again."""
        self.received += max(n or 0, 0)
        if self.total and self.received > ATTEMPTS * self.total:
            raise TransientError(f"the transfer of {self.total} bytes is cut short each time")
        super().update(n)


def download_from_hub(subject: str, source: Source, path: str, remedy: str, again: bool = False) -> Path:
    """Path of a file in huggingface_hub's cache, downloaded if it is not there.

    Args:
        subject: the key of params.yaml that errors name.
        source: with the kind `hub`.
        path: the file in the repository.
        remedy: what errors advise.
        again: download it even if it is in the cache.

    Raises:
        StageError: no such repository, revision or file, or no answer.
        TransientError: worth another attempt.
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
        raise StageError(subject, f"{repository} has no revision {source.revision}", "mend the source") from None
    except (RemoteEntryNotFoundError, EntryNotFoundError):
        found = f"{repository} at {source.revision} has no file {path}{_only_pickles(arguments)}"
        raise StageError(subject, found, f"mend files, or {remedy}") from None
    except GatedRepoError:
        advice = f"ask for access on its page and log in with `hf auth login`, or {remedy}"
        raise StageError(subject, f"{repository} is gated", advice) from None
    except RepositoryNotFoundError:
        found = f"the hub has no {kind} {repository}, or it is private"
        raise StageError(subject, found, "mend the source, or log in with `hf auth login`") from None
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
    """A file that is what the hub says: it names large files in its cache by their sha256."""
    for force in (again, True):
        path = Path(str(download(force)))
        name = path.resolve().name
        if not re.fullmatch("[0-9a-f]{64}", name) or sha256_of(path) == name:
            return path
    raise TransientError("what came is not what the hub announced (another sha256)")


def _only_pickles(arguments: dict[str, Any]) -> str:
    """A remark on a repository whose weights are pickles only; nothing if that cannot be found out."""
    try:
        names = HfApi().list_repo_files(**arguments)
    except (HfHubHTTPError, httpx.HTTPError, OSError):
        return ""
    pickles = [name for name in names if name.endswith(PICKLES)]
    if not pickles or any(name.endswith((".safetensors", ".gguf")) for name in names):
        return ""
    return f": its weights are {', '.join(sorted(pickles))}, which can hold a pickle and is never loaded"
