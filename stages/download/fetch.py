"""Fetch files from pinned sources (a wheel, the hub, a URL, a folder) and check their sha256 before they are used."""

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import requests

from stages.download.archives import extract_member
from stages.download.model_folder import check_model_folder, convert_gguf
from stages.download.retries import TransientError, is_busy, with_retries
from stages.params.schema import Params
from stages.params.sources import Source, SourceFile, parse_source
from stages.params.validation import redact
from stages.plumbing.errors import StageError, one_line
from stages.plumbing.files import sha256_of
from stages.plumbing.progress import Progress

TIMEOUT = (10.0, 30.0)  # seconds: to connect, and between two pieces of an answer
MEBIBYTE = 1 << 20
LOCAL_COPY = (
    "check the network, use a local copy (source: file:FOLDER), "
    "or the default (dataset: chitchat, model: smollm2), which needs only the package index"
)


class Fetcher:
    """Fetches the files of one entry of params.yaml; downloads an archive once, even if several files come from it."""

    def __init__(self, key: str, source: str, scratch: Path) -> None:
        self.key, self.source, self.scratch = key, parse_source(source), scratch
        self.artifacts: dict[str, Path] = {}

    def fetch(self, name: str, file: SourceFile, path: str | None, target: Path) -> None:
        """Fetch one file, check it and write it to `target`.

        Args:
            name: its key in the entry: `files.NAME`.
            file: its entry.
            path: its path in the source; None: the source itself is the file (a wheel, a URL).
            target: the file to write.

        Raises:
            StageError: the file cannot be fetched, or its sha256 is not the pinned one.
        """
        try:
            self._fetch(f"{self.key}.{name}", file, path, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # Python names no file here, or the one it was reading
                raise OSError(error.errno, error.strerror, str(target)) from error
            raise

    def _fetch(self, subject: str, file: SourceFile, path: str | None, target: Path) -> None:
        artifact = self._artifact(subject, file, path)
        if file.member is None:
            shutil.copyfile(artifact, target)
            return
        extract_member(f"{subject}.member", artifact, file.member, target)
        if file.member_sha256 is not None:
            check_sha256(f"{subject}.member_sha256", target, file.member_sha256)

    def _artifact(self, subject: str, file: SourceFile, path: str | None) -> Path:
        """Download what the source has under `path`, once, and check it; return the local copy."""
        place = path or ""
        if place not in self.artifacts:
            folder = self.scratch / f"artifact-{len(self.artifacts)}"
            folder.mkdir(parents=True)
            self.artifacts[place] = self._download(subject, place, folder)
        if file.sha256 is not None:
            if self.source.kind == "hub" and sha256_of(self.artifacts[place]) != file.sha256:
                # huggingface_hub would return a damaged file of its cache again and again.
                self.artifacts[place] = self._download(subject, place, self.scratch, again=True)
            check_sha256(f"{subject}.sha256", self.artifacts[place], file.sha256)
        return self.artifacts[place]

    def _download(self, subject: str, path: str, folder: Path, again: bool = False) -> Path:
        source, what = self.source, f"downloading {path or redact(self.source.place)}"
        if source.kind == "file":
            return _local(subject, source, path)
        if source.kind == "pypi":
            return with_retries(subject, what, LOCAL_COPY, lambda: _wheel(subject, source, folder))
        if source.kind == "url":
            address = f"{source.place.rstrip('/')}/{path}" if path else source.place
            return with_retries(subject, what, LOCAL_COPY, lambda: download(subject, address, folder / "file"))
        from stages.download.hub import download_from_hub  # imported only here: the default needs no hub

        return with_retries(
            subject, what, LOCAL_COPY, lambda: download_from_hub(subject, source, path, LOCAL_COPY, again)
        )


def check_sha256(subject: str, path: Path, expected: str) -> None:
    """Compare a file's sha256 with the one in params.yaml.

    Raises:
        StageError: they differ; the message has the sha256 found and says whether the file looks like a web page.
    """
    found = sha256_of(path)
    if found == expected:
        return
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    page = " (they look like a web page, not data)" if start.startswith((b"<!doctype html", b"<html")) else ""
    raise StageError(
        subject,
        f"{path.stat().st_size} bytes with sha256 {found}{page}, but params.yaml has {expected}",
        "try again; if you trust the new content, put its sha256 into params.yaml",
    )


def _local(subject: str, source: Source, path: str) -> Path:
    folder = Path(source.place).expanduser()
    if not folder.is_dir():
        raise StageError(subject, f"no folder {source.place} (seen from {Path.cwd()})", "fix the source")
    found = folder / path
    if not found.is_file():
        names = sorted(each.name for each in folder.iterdir() if each.is_file())
        listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise StageError(subject, f"no file {path} in {source.place}", f"its files: {listed or 'none'}")
    return found


def _wheel(subject: str, source: Source, folder: Path) -> Path:
    """Download a wheel with pip, which uses the user's indexes, proxies and cache."""
    requirement = f"{source.place}=={source.revision}"
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, requirement],
        stdout=sys.stderr,  # shows pip's progress
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        (wheel,) = folder.glob("*.whl")
        return wheel
    if "No module named pip" in done.stderr:
        raise StageError(subject, "this Python has no pip", f"run `{sys.executable} -m ensurepip`")
    problem = redact(_pip_problem(done.stderr.splitlines()))
    if re.search(r"No matching distribution|No space left|Permission denied|Read-only", done.stderr):
        raise StageError(subject, f"pip cannot get {requirement} ({problem})", LOCAL_COPY)
    raise TransientError(problem)


def _pip_problem(lines: Iterable[str]) -> str:
    """Pip's last error, and the reason for its last retry if it retried."""
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")] or lines or ["no message"]
    broken = [line for line in lines if line.startswith("WARNING: Retrying")]
    reason = re.search(r"'(\w+\([^']*)", broken[-1]) if broken else None
    return one_line(errors[-1] + (f"; the index does not answer: {reason[1]}" if reason else ""))


def download(subject: str, address: str, target: Path) -> Path:
    """Download a URL to `target`, with the user's proxies and ~/.netrc.

    Raises:
        StageError: the server refuses.
        TransientError: another attempt may work.
    """
    host = urlsplit(address).hostname
    try:
        with requests.get(address, stream=True, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}) as answer:
            if is_busy(answer.status_code):
                raise TransientError(f"HTTP {answer.status_code} from {host}")
            if answer.status_code != requests.codes.ok:
                raise StageError(subject, f"HTTP {answer.status_code} from {host}", "fix the source")
            _receive(answer, target, title=urlsplit(address).path.rpartition("/")[2] or str(host))
    except requests.RequestException as error:
        raise TransientError(redact(one_line(str(error)))) from None
    return target


def _receive(answer: requests.Response, target: Path, title: str) -> None:
    """Write the body of an answer; urllib3 raises if it is shorter than announced."""
    announced = int(answer.headers.get("Content-Length") or 0)
    received = 0
    with target.open("wb") as file, Progress(-(-announced // MEBIBYTE), title, "MiB") as progress:
        for piece in answer.iter_content(MEBIBYTE):
            file.write(piece)
            progress.advance((received + len(piece)) // MEBIBYTE - received // MEBIBYTE)
            received += len(piece)


def fetch_dialogues(params: Params, folder: Path, scratch: Path) -> None:
    """Fetch the files of the chosen corpus, and its further references if it has any, into `folder`."""
    dataset = params.chosen_dataset
    fetcher = Fetcher(f"datasets.{params.dataset}", dataset.source, scratch)
    for split, file in sorted(dataset.files.items()):
        fetcher.fetch(f"files.{split}", file, file.path, folder / dataset.file_name(split))
    if (references := dataset.references) is not None:
        if references.source is not None:
            fetcher = Fetcher(fetcher.key, references.source, scratch / "references")
        fetcher.fetch("references", references, references.path, folder / dataset.references_name)


def fetch_model(params: Params, folder: Path, scratch: Path) -> None:
    """Fetch the chosen base model into `folder`, as safetensors."""
    model = params.chosen_model
    fetcher = Fetcher(f"models.{params.model}", model.source, scratch)
    named = parse_source(model.source).kind in ("hub", "file")  # there a file has the same name as here
    arrived = folder if model.format == "safetensors" else scratch
    for name, file in sorted(model.files.items()):
        fetcher.fetch(f"files.{name}", file, file.path or (name if named else None), arrived / name)
        if model.format == "gguf":
            convert_gguf(f"models.{params.model}.files.{name}", arrived / name, folder)
    check_model_folder(f"models.{params.model}.files", folder)
