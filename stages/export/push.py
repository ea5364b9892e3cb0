"""An export on the Hugging Face hub: one commit with all its files, or none."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from stages.params.validation import redact
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import MANIFEST, check_folder

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
REFUSED = {401: "the token is not valid", 403: "the token may not write there"}


def check_push(repository: str) -> None:
    """Refuse before anything slow what the hub would refuse at the end.

    Raises:
        StageError: there is no token, or the repository's name is none.
    """
    if not NAME.fullmatch(repository):
        raise StageError("--push", f"found {redact(repository)!r}", "write OWNER/NAME")
    if not get_token():
        raise StageError(f"hub: {repository}", "no token", "log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str, public: bool) -> str:
    """Make the repository of models `OWNER/NAME` hold exactly the files of an export; its address.

    All files come in one commit, and what an earlier export left goes with it: a repository of which the upload broke
    off is as it was, an empty one if it is new.

    Raises:
        StageError: no name, no token, no right to write, a public repository where a private one was asked for, or no
            answer.
    """
    check_push(repository)
    check_folder(folder)
    with _errors_of(repository):
        api = HfApi()
        address = api.create_repo(repository, private=not public, exist_ok=True)
        if not public and not api.repo_info(repository).private:
            remedy = "add --public, or make it private on its page"
            raise StageError(f"hub: {repository}", "that repository is there and public", remedy)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export of dialog-prompting",
            ignore_patterns=[MANIFEST],
            delete_patterns="*",
        )
    return str(address)


@contextmanager
def _errors_of(repository: str) -> Iterator[None]:
    """Errors of the hub and of the way there as one line without a token."""
    subject = f"hub: {repository}"
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = REFUSED.get(status) or redact(one_line(str(error.server_message or error)))[:200]
        remedy = (
            "check the name, and the token on the hub's page of access tokens" if status in REFUSED else "try again"
        )
        raise StageError(subject, f"refused ({status}: {reason})", remedy) from None
    except OfflineModeIsEnabled:
        raise StageError(subject, "HF_HUB_OFFLINE is set", "unset it") from None
    except (httpx.HTTPError, ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        found = f"the upload broke off ({redact(one_line(str(error)))[:200]}), nothing of it was committed"
        raise StageError(subject, found, "run the same command again") from None
