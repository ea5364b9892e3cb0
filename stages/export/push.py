"""An export on the Hugging Face hub: one commit with all its files, or none."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from huggingface_hub import HfApi, ModelCard, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from stages.params.validation import redact
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import MANIFEST, check_folder

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
TAG = "dialog-prompting"  # among the tags of every export's card
REFUSED = {401: "the token is not valid", 403: "the token may not write there"}


def check_push(repository: str) -> None:
    """Refuse before anything slow what the hub would refuse at the end.

    Raises:
        StageError: there is no token, or the repository's name is none.
    """
    if not NAME.fullmatch(repository):
        raise StageError("--push", f"found {redact(repository)!r}", "write OWNER/NAME")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise StageError("--push", one_line(str(error)), "write another name") from None
    if not get_token():
        raise StageError(f"hub: {repository}", "no token", "log in with `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str, public: bool) -> str:
    """Make the repository of models `OWNER/NAME` hold exactly the files of an export; its address.

    All files come in one commit, and what an earlier export left goes with it: a repository of which the upload broke
    off is as it was, an empty one if it is new.

    Raises:
        StageError: no name, no token, no right to write, a repository that is there and is another one than was meant,
            or no answer.
    """
    check_push(repository)
    check_folder(folder)
    with _errors_of(repository):
        api = HfApi()
        address = api.create_repo(repository, private=not public, exist_ok=True)
        _check_repository(api, repository, public)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message="Export of dialog-prompting",
            ignore_patterns=[MANIFEST],
            delete_patterns="*",
        )
    return str(address)


def _check_repository(api: HfApi, repository: str, public: bool) -> None:
    """Refuse a repository that was there already and is another one than was meant.

    Raises:
        StageError: it is public and should not be, or the reverse, or it holds what no export has written.
    """
    subject = f"hub: {repository}"
    if api.repo_info(repository).private == public:
        now, remedy = (
            ("private", "leave out --public, or make it public")
            if public
            else ("public", "add --public, or make it private")
        )
        raise StageError(subject, f"that repository is there and {now}", f"{remedy} on its page")
    files = {*api.list_repo_files(repository)} - {".gitattributes"}
    with TemporaryDirectory() as scratch:
        card = "README.md" in files and api.hf_hub_download(repository, "README.md", local_dir=scratch)
        of_ours = card and TAG in _tags(card)
    if files and not of_ours:
        found = f"it holds {len(files)} files that are no export, {min(files)} among them"
        raise StageError(subject, found, "name another repository, or empty this one on its page")


def _tags(card: str) -> list[str]:
    """The tags of a model card, a file; none if it has none."""
    try:
        return ModelCard.load(card).data.tags or []
    except ValueError:
        return []


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
