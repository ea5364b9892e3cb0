"""Sources: only pinned content is accepted, harmful archives are refused as a whole, retries are limited."""

import http.server
import io
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from stages.download import archives, retries
from stages.download import fetch as sources
from stages.download.archives import extract_member
from stages.download.fetch import Fetcher, download
from stages.params.sources import Source, SourceFile, parse_source
from stages.params.validation import Refused
from stages.plumbing.errors import StageError, describe
from tests.helpers_data import sha256, zip_of

TEXT = b"hello __eou__ hi __eou__\n" * 50


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(sources, "TIMEOUT", (0.5, 0.5))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# --- how a source is written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pypi:chitchat-dataset==0.9.0", Source("pypi", "chitchat-dataset", "0.9.0")),
        ("pypi:a==1!2.0rc1+local.1", Source("pypi", "a", "1!2.0rc1+local.1")),
        ("hub:openai-community/gpt2@main", Source("hub", "openai-community/gpt2", "main")),
        ("hub:datasets/a/b_c@refs/convert/parquet", Source("hub", "datasets/a/b_c", "refs/convert/parquet")),
        ("url:https://host:8080/a/b.zip", Source("url", "https://host:8080/a/b.zip", "")),
        ("url:http://host", Source("url", "http://host", "")),
        ("file:../shared/daily dialog", Source("file", "../shared/daily dialog", "")),
        ("file:~/corpus", Source("file", "~/corpus", "")),
    ],
)
def test_a_source_is_taken_apart(text: str, expected: Source) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text", ["", "gpt2", "hub:", "ftp:x", "pypi:a==", "pypi:a==1 --pre", "hub:a/b@-x", "url:x", "file: "]
)
def test_another_source_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        parse_source(text)


# --- archives ------------------------------------------------------------------------------------------------------


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]], mode: Any = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return info


def zip_with_mode(name: str, mode: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.txt", TEXT)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


GOOD = {
    "zip": zip_of({"a/data.txt": TEXT, "a/other.txt": b"x"}),
    "stored": zip_of({"a/data.txt": TEXT, "a/other.txt": b"x"}, zipfile.ZIP_STORED),
    "tar": tar_of([(tar_member("a/data.txt"), TEXT), (tar_member("a/other.txt"), b"x")], "w"),
    "tar.gz": tar_of([(tar_member("a/data.txt"), TEXT), (tar_member("a/other.txt"), b"x")]),
    "tar.xz": tar_of([(tar_member("a", tarfile.DIRTYPE), b""), (tar_member("a/data.txt"), TEXT)], "w:xz"),
}


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("member", ["a/data.txt", "data.txt"])
def test_one_member_is_read_by_its_whole_name_or_by_its_last_part(kind: str, member: str, tmp_path: Path) -> None:
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(GOOD[kind])
    extract_member("key", archive, member, target)
    assert target.read_bytes() == TEXT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "target"]


BAD: dict[str, tuple[bytes, str]] = {
    "zip ..": (zip_of({"data.txt": TEXT, "a/../../x": b""}), "leads out of the archive"),
    "zip absolute": (zip_of({"data.txt": TEXT, "/x": b""}), "leads out of the archive"),
    "zip backslash": (zip_of({"data.txt": TEXT, "..\\x": b""}), "leads out of the archive"),
    "zip drive": (zip_of({"data.txt": TEXT, "C:\\x": b""}), "leads out of the archive"),
    "zip link": (zip_with_mode("link", stat.S_IFLNK | 0o777), "a link or a device"),
    "zip link as folder": (zip_with_mode("link/", stat.S_IFLNK | 0o777), "a link or a device"),
    "tar ..": (tar_of([(tar_member("data.txt"), TEXT), (tar_member("../x"), b"")]), "leads out of the archive"),
    "tar absolute": (tar_of([(tar_member("data.txt"), TEXT), (tar_member("/x"), b"")]), "leads out of the archive"),
    "tar symlink": (tar_of([(tar_member("data.txt"), TEXT), (tar_member("x", tarfile.SYMTYPE), b"")]), "a link or"),
    "tar hard link": (tar_of([(tar_member("data.txt"), TEXT), (tar_member("x", tarfile.LNKTYPE), b"")]), "a link or"),
    "tar device": (tar_of([(tar_member("data.txt"), TEXT), (tar_member("x", tarfile.CHRTYPE), b"")]), "a link or"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_archive_with_one_bad_entry_is_refused_whole(kind: str, tmp_path: Path) -> None:
    """Even if the requested member itself is fine."""
    content, problem = BAD[kind]
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(content)
    with pytest.raises(StageError, match=problem):
        extract_member("key", archive, "data.txt", target)
    assert not target.exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_out_of_all_proportion_is_refused(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zeros = bytes(3_000_000)
    archive = tmp_path / "archive"
    archive.write_bytes(
        zip_of({"data.txt": TEXT, "bomb": zeros})
        if kind == "zip"
        else tar_of([(tar_member("data.txt"), TEXT), (tar_member("bomb"), zeros)])
    )
    extract_member("key", archive, "data.txt", tmp_path / "target")  # small enough to be accepted
    monkeypatch.setattr(archives, "SMALL", 1_000_000)
    with pytest.raises(StageError, match=r"at least \d+ bytes unpacked in \d+ packed; do not use"):
        extract_member("key", archive, "data.txt", tmp_path / "target")


@pytest.mark.parametrize("kind", GOOD)
def test_a_damaged_archive_is_an_error_of_one_line(kind: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    whole = GOOD[kind]
    for damaged in (whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:], whole[:-30]):
        archive.write_bytes(damaged)
        target = tmp_path / "target"
        target.unlink(missing_ok=True)
        try:
            extract_member("key", archive, "a/data.txt", target)
        except StageError:
            continue
        assert target.read_bytes() == TEXT  # the damage did not reach the member


def test_a_zip_whose_content_is_not_what_it_declares_is_refused(tmp_path: Path) -> None:
    content = zip_of({"data.txt": TEXT}, zipfile.ZIP_STORED)
    (tmp_path / "archive").write_bytes(content.replace(b"hello", b"jello", 1))
    with pytest.raises(StageError, match="Bad CRC-32"):
        extract_member("key", tmp_path / "archive", "data.txt", tmp_path / "target")


def test_a_member_that_is_not_there_or_there_twice_is_named_with_the_files(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(zip_of({"a/data.txt": TEXT, "b/data.txt": TEXT}))
    with pytest.raises(StageError, match=r"key: no member 'data2\.txt'; its files: a/data\.txt, b/data\.txt"):
        extract_member("key", archive, "data2.txt", tmp_path / "target")
    with pytest.raises(StageError, match=r"2 entries called 'data\.txt'"):
        extract_member("key", archive, "data.txt", tmp_path / "target")
    archive.write_bytes(TEXT)
    with pytest.raises(StageError, match="neither a zip nor a tar archive"):
        extract_member("key", archive, "data.txt", tmp_path / "target")


# --- a folder ------------------------------------------------------------------------------------------------------


def fetch(source: str, tmp_path: Path, path: str | None = None, **entry: str) -> bytes:
    target = tmp_path / "fetched"
    scratch = Path(tempfile.mkdtemp(dir=tmp_path))
    Fetcher("models.x", source, scratch).fetch("files.name", SourceFile(path=path, **entry), path, target)
    return target.read_bytes()


def test_a_file_of_a_folder_is_copied_and_its_member_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "home/corpus"
    folder.mkdir(parents=True)
    (folder / "data.txt").write_bytes(TEXT)
    (folder / "data.zip").write_bytes(GOOD["zip"])
    assert fetch(f"file:{folder}", tmp_path, "data.txt", sha256=sha256(TEXT)) == TEXT
    pins = {"sha256": sha256(GOOD["zip"]), "member": "data.txt", "member_sha256": sha256(TEXT)}
    assert fetch(f"file:{folder}", tmp_path, "data.zip", **pins) == TEXT
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch("file:~/corpus", tmp_path, "data.txt", sha256=sha256(TEXT)) == TEXT


def test_a_wrong_sha256_is_named_with_the_one_found(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(GOOD["zip"])
    with pytest.raises(StageError, match=rf"models\.x\.files\.name\.sha256: .* sha256 {sha256(GOOD['zip'])}, but"):
        fetch(f"file:{tmp_path}", tmp_path, "data.zip", sha256="0" * 64)
    pins = {"sha256": sha256(GOOD["zip"]), "member": "data.txt", "member_sha256": "0" * 64}
    with pytest.raises(StageError, match=rf"models\.x\.files\.name\.member_sha256: .* sha256 {sha256(TEXT)}, but"):
        fetch(f"file:{tmp_path}", tmp_path, "data.zip", **pins)


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"models\.x\.files\.name: no folder nowhere"):
        fetch("file:nowhere", tmp_path, "data.txt", sha256="0" * 64)
    (tmp_path / "other.txt").write_bytes(b"")
    with pytest.raises(StageError, match=rf"no file data\.txt in {tmp_path}; its files: other\.txt"):
        fetch(f"file:{tmp_path}", tmp_path, "data.txt", sha256="0" * 64)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("member", [None, "data.txt"])
def test_a_full_disk_is_said_of_the_file_that_was_written(member: str | None, tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(GOOD["zip"])
    target = tmp_path / "target"
    target.symlink_to("/dev/full")
    file = SourceFile(member=member, sha256=sha256(GOOD["zip"]))
    with pytest.raises(OSError, match="No space left") as caught:
        Fetcher("models.x", f"file:{tmp_path}", tmp_path / "scratch").fetch("files.name", file, "data.zip", target)
    assert describe(caught.value).startswith(f"{target}: no space left on the device; ")


# --- a URL ---------------------------------------------------------------------------------------------------------

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Web:
    """A server on loopback that gives the listed answers one after another and then repeats the last."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.paths: list[str] = []
        web, stop = self, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                web.paths.append(self.path)
                (web.answers.pop(0) if len(web.answers) > 1 else web.answers[0])(self)

        self.stopping = stop
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def sends(self, body: bytes, status: int = 200, announced: int | None = None, stall: bool = False) -> Answer:
        def answer(request: http.server.BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            request.send_header("Content-Length", str(len(body) if announced is None else announced))
            request.end_headers()
            request.wfile.write(body)
            request.wfile.flush()
            if stall:
                self.stopping.wait(20)

        return answer


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.stopping.set()
    server.server.shutdown()
    server.server.server_close()


def test_an_address_is_downloaded_with_its_path(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(TEXT)]
    assert fetch(f"url:{web.address}/base/", tmp_path, "a/data.txt", sha256=sha256(TEXT)) == TEXT
    assert web.paths == ["/base/a/data.txt"]


def test_two_members_of_one_address_take_one_download(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(GOOD["zip"])]
    fetcher = Fetcher("datasets.x", f"url:{web.address}/x.zip", tmp_path / "scratch")
    for member in ("data.txt", "other.txt"):
        fetcher.fetch(member, SourceFile(member=member, sha256=sha256(GOOD["zip"])), None, tmp_path / member)
    assert (tmp_path / "other.txt").read_bytes() == b"x"
    assert web.paths == ["/x.zip"]


def test_a_busy_a_cut_and_a_silent_server_are_asked_again(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(b"", 503), web.sends(TEXT[:100], announced=len(TEXT)), web.sends(TEXT)]
    assert fetch(f"url:{web.address}/x", tmp_path, sha256=sha256(TEXT)) == TEXT
    web.answers = [web.sends(TEXT[:100], announced=len(TEXT), stall=True), web.sends(TEXT)]
    (tmp_path / "again").mkdir()
    assert fetch(f"url:{web.address}/x", tmp_path / "again", sha256=sha256(TEXT)) == TEXT


def test_three_failures_are_enough_and_are_listed(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(b"", 500), web.sends(TEXT[:100], announced=len(TEXT)), web.sends(b"", 429)]
    with pytest.raises(StageError) as caught:
        fetch(f"url:{web.address}/x?key=secret", tmp_path, sha256=sha256(TEXT))
    message = str(caught.value)
    assert message.startswith("models.x.files.name: downloading ")
    assert "failed 3 times (1. HTTP 500 from 127.0.0.1; 2. " in message
    assert "3. HTTP 429 from 127.0.0.1); check the network, use a local copy (source: file:FOLDER)" in message
    assert "secret" not in message
    assert len(web.paths) == 3


def test_a_refusal_is_not_asked_again(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(b"", 404)]
    with pytest.raises(StageError, match=r"models\.x\.files\.name: HTTP 404 from 127\.0\.0\.1; fix the source"):
        fetch(f"url:{web.address}/x", tmp_path, sha256=sha256(TEXT))
    assert len(web.paths) == 1


def test_no_server_at_all_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"failed 3 times .*or the default \(dataset: chitchat, model: smollm2\)"):
        fetch("url:http://127.0.0.1:9/x?key=secret", tmp_path, sha256=sha256(TEXT))


def test_an_error_page_in_place_of_data_is_recognised(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(b"\n <!DOCTYPE html><html>Please log in</html>")]
    with pytest.raises(StageError, match=r"\(they look like a web page, not data\), but"):
        fetch(f"url:{web.address}/x", tmp_path, sha256=sha256(TEXT))


def test_a_server_that_stops_is_left_within_the_timeout(web: Web, tmp_path: Path) -> None:
    web.answers = [web.sends(TEXT[:100], announced=len(TEXT), stall=True)]
    began = time.monotonic()
    with pytest.raises(retries.TransientError):
        download("x", f"{web.address}/x", tmp_path / "target")
    assert time.monotonic() - began < 5


# --- a wheel -------------------------------------------------------------------------------------------------------


def wheel_of(folder: Path) -> bytes:
    """Write a wheel of the distribution `tiny-corpus` 1.0 that pip accepts; return its bytes."""
    about = "tiny_corpus-1.0.dist-info"
    content = zip_of(
        {
            "tiny_corpus/data.txt": TEXT,
            f"{about}/METADATA": b"Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nRequires-Dist: not-wanted\n",
            f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": b"",
        }
    )
    folder.mkdir()
    (folder / "tiny_corpus-1.0-py3-none-any.whl").write_bytes(content)
    return content


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Pip with a user's configuration: it looks for wheels in one folder only."""
    content = wheel_of(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return content


def test_a_member_of_a_wheel_comes_through_pip_and_the_users_configuration(index: bytes, tmp_path: Path) -> None:
    pins = {"sha256": sha256(index), "member": "tiny_corpus/data.txt", "member_sha256": sha256(TEXT)}
    assert fetch("pypi:tiny-corpus==1.0", tmp_path, **pins) == TEXT


@pytest.mark.usefixtures("index")
def test_a_wheel_with_another_sha256_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"models\.x\.files\.name\.sha256: "):
        fetch("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")


@pytest.mark.usefixtures("index")
def test_a_version_that_does_not_exist_is_named_and_asked_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Mock(wraps=subprocess.run)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(StageError, match=r"pip cannot get tiny-corpus==2\.0 \(No matching distribution found for"):
        fetch("pypi:tiny-corpus==2.0", tmp_path, sha256="0" * 64, member="data.txt")
    assert run.call_count == 1


def test_an_index_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(StageError) as caught:
        fetch("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")
    assert "the index does not answer" in str(caught.value)
    assert "use a local copy" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_python_without_pip_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, stderr=f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)
    with pytest.raises(StageError, match=r"this Python has no pip; run `.* -m ensurepip`"):
        fetch("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")
