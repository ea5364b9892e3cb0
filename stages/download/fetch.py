"""Fetch files from pinned sources (a wheel, the hub, a URL, a folder) and check their sha256 before they are used."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import Retry

from stages.download.archives import extract_member
from stages.download.model_folder import check_model_folder, convert_gguf
from stages.params.schema import Params
from stages.params.sources import Source, SourceFile, parse_source
from stages.params.validation import redact
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import naming, scratch_folder, sha256_of, state_folder

TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two pieces of an answer
RETRIES = Retry(
    total=3, backoff_factor=1, status_forcelist=(408, 429, 500, 502, 503, 504), respect_retry_after_header=False
)
MEBIBYTE = 1 << 20
LOCAL_COPY = (
    "check the network, use a local copy (source: file:FOLDER), "
    "or the default (dataset: chitchat, model: smollm2), which needs only the package index"
)
# huggingface_hub reads these when it is imported. Xet, another way to large files, keeps to no time limit; its warnings
# contain signed addresses.
os.environ.setdefault("HF_HUB_DISABLE_XET", "1")
os.environ.setdefault("HF_HUB_VERBOSITY", "error")


def fetch_dialogues(params: Params, folder: Path) -> None:
    """Fetch the files of the chosen corpus, and its further references if it has any, into `folder`."""
    dataset, key = params.chosen_dataset, f"datasets.{params.dataset}.files"
    for name, file in sorted(dataset.files.items()):
        source = parse_source(file.source or dataset.source)
        fetch(f"{key}.{name}", source, file, file.path, folder / dataset.file_name(name))


def fetch_model(params: Params, folder: Path) -> None:
    """Fetch the chosen base model into `folder`, as safetensors."""
    model, key = params.chosen_model, f"models.{params.model}.files"
    for name, file in sorted(model.files.items()):
        source = parse_source(file.source or model.source)
        # In the hub and in a folder, a file has the same name as here.
        path = file.path or (name if source.kind in ("hub", "file") else None)
        fetch(f"{key}.{name}", source, file, path, folder / name)
        if name == "config.json":
            check_model_folder(key, folder)  # before gigabytes of weights
        if model.format == "gguf":
            convert_gguf(f"{key}.{name}", folder / name, folder)
            (folder / name).unlink()
    check_model_folder(key, folder)


def fetch(subject: str, source: Source, entry: SourceFile, path: str | None, target: Path) -> None:
    """Fetch one file, check it and write it to `target`.

    The sha256 is that of the copy, which nobody else can change, not of the original. `subject` is the key of `entry`
    in params.yaml; without a `path`, the source itself is the file (a wheel, a URL).

    Raises:
        StageError: the file cannot be fetched, or its sha256 is not the pinned one.
    """
    copy = target if entry.member is None else target.with_name(".archive")
    for again in (False, True):  # a damaged file of a cache is fetched once more
        original = _original(subject, source, entry, path or "", again)
        with original.open("rb") as file, copy.open("wb") as written:
            shutil.copyfileobj(file, written, MEBIBYTE)
        expected = entry.sha256 or (_announced(original) if source.kind == "hub" else None)
        if expected is None or sha256_of(copy) == expected:
            break
    else:
        check_sha256(f"{subject}.sha256", copy, str(expected))
    if entry.member is not None:
        extract_member(f"{subject}.member", copy, entry.member, target)
        copy.unlink()
    if entry.member_sha256 is not None:
        check_sha256(f"{subject}.member_sha256", target, entry.member_sha256)


def check_sha256(subject: str, path: Path, expected: str) -> None:
    """Raise StageError with the file's sha256 if it is not the one that was expected."""
    if (found := sha256_of(path)) != expected:
        said = f"{path.stat().st_size} bytes with sha256 {found}, not {expected}"
        raise StageError(subject, said, "try again; if you trust the new content, put its sha256 into params.yaml")


def _original(subject: str, source: Source, file: SourceFile, path: str, again: bool) -> Path:
    """Where the file is: in its folder, in huggingface_hub's cache, or under its sha256 among what was downloaded."""
    if source.kind == "file":
        found = Path(os.path.expanduser(source.place)) / path  # which leaves ~NOBODY as it is
        if not found.is_file():
            remedy = "fix the source, or files; queued and temporary experiments need the whole path"
            raise StageError(subject, f"no file {found} (seen from {Path.cwd()})", remedy)
        return found
    if source.kind == "hub":
        return _from_hub(subject, source, path, again)
    kept = state_folder() / "downloads" / str(file.sha256)  # params.yaml is refused without it
    if again or not kept.is_file():
        print(f"downloading {redact(source.place)}", file=sys.stderr, flush=True)
        with scratch_folder() as scratch:
            arrived = (_wheel if source.kind == "pypi" else _from_url)(subject, source, path, scratch)
            check_sha256(f"{subject}.sha256", arrived, str(file.sha256))
            kept.parent.mkdir(exist_ok=True)
            arrived.replace(kept)
    return kept


def _from_hub(subject: str, source: Source, path: str, again: bool) -> Path:
    """Where huggingface_hub has the file, with the user's HF_ENDPOINT, token, cache and time limits."""
    import httpx  # imported only here: the default needs no hub
    from huggingface_hub import constants, hf_hub_download

    kind = "dataset" if source.place.startswith("datasets/") else "model"
    get = partial(hf_hub_download, source.place.removeprefix("datasets/"), repo_type=kind, revision=source.revision)
    try:
        with naming(Path(constants.HF_HUB_CACHE)):
            return Path(get(filename=path, force_download=again, tqdm_class=partial(Transfer, disable=None)))
    except (httpx.HTTPError, OSError, ValueError) as error:
        if getattr(error, "errno", None) is not None:  # a full disk, a cache that cannot be written
            raise
        # A cause of the library's own errors says what was tried. ValueError: no network, but it was to ask again.
        said = (isinstance(error, FileNotFoundError | ValueError) and error.__cause__) or error
        other = "the cached file has another sha256, and a new one could not be had: " * again
        found = f"{other}cannot get {path} of {source.place} ({redact(one_line(str(said)))})"
        advice = f"fix the source or files (no pickle is ever loaded), log in with `hf auth login`, or {LOCAL_COPY}"
        raise StageError(subject, found, advice) from None


class Transfer(tqdm):  # type: ignore[misc]
    """A bar that ends a transfer which huggingface_hub would start over for ever, because the server always cuts it."""

    def update(self, n: float | None = 1) -> None:
        """Count bytes; huggingface_hub passes a negative number if the server cannot go on where it stopped."""
        if (n or 0) < 0:
            raise OSError("the server cut the transfer and cannot go on with it")
        super().update(n)


def _announced(cached: Path) -> str | None:
    """The sha256 of a file in huggingface_hub's cache, where large files have it as their name."""
    name = cached.readlink().name if cached.is_symlink() else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _wheel(subject: str, source: Source, path: str, folder: Path) -> Path:
    """Download a wheel with pip, which uses the user's indexes, proxies and cache."""
    requirement = f"{source.place}=={source.revision}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, requirement],
        stdout=sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL,  # its bar and the addresses of its indexes
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        (wheel,) = folder.glob("*.whl")
        return wheel
    silent = re.search(r"connection broken by '(\w+)", done.stderr)
    reason = f"the index does not answer: {silent[1]}" if silent else redact(one_line(done.stderr))[-300:]
    raise StageError(subject, f"pip cannot get {requirement} ({reason})", LOCAL_COPY)


def _from_url(subject: str, source: Source, path: str, folder: Path) -> Path:
    """Download a URL, with the user's proxies and ~/.netrc; urllib3 asks again where a server is busy or silent."""
    address, target = "/".join([source.place.rstrip("/"), path] if path else [source.place]), folder / "file"
    try:
        with requests.Session() as session:
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=RETRIES))
            with session.get(address, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as answer:
                answer.raise_for_status()
                size = int(answer.headers.get("Content-Length") or 0)
                with target.open("wb") as file, tqdm.wrapattr(file, "write", total=size or None, disable=None) as bar:
                    for piece in answer.iter_content(MEBIBYTE):  # urllib3 raises if it ends before `size`
                        bar.write(piece)
    except requests.RequestException as error:
        found = f"cannot download {redact(address)} ({redact(one_line(str(error)))})"
        raise StageError(subject, found, f"fix the source, {LOCAL_COPY}") from None
    return target
