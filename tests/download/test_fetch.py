"""Sources: only pinned content is accepted, and of an archive only the member, up to a limit."""

import io
import shutil
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from stages.download import archives, fetch
from stages.download.archives import extract_member
from stages.params.sources import Source, SourceFile, parse_source
from stages.params.validation import Refused
from stages.plumbing.errors import StageError
from tests.helpers_data import sha256, zip_of

TEXT = b"hello __eou__ hi __eou__\n" * 50


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIALOG_PROMPTING_STATE", str(tmp_path / "state"))


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
        ("url-with-query:https://host/a?dl=1", Source("url", "https://host/a?dl=1", "")),
        ("file:../shared/daily dialog", Source("file", "../shared/daily dialog", "")),
        ("file:~/corpus", Source("file", "~/corpus", "")),
    ],
)
def test_a_source_is_taken_apart(text: str, expected: Source) -> None:
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "gpt2", "hub:", "ftp:x", "pypi:a==", "pypi:a==1 --pre", "hub:a/b@-x", "url:x", "url:http://h?x", "file: "],
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


@pytest.mark.parametrize(
    "content",
    [
        zip_of({"data.txt": TEXT, "../x": b"", "/tmp/x": b"", "folder/": b""}),
        zip_with_mode("link", stat.S_IFLNK | 0o777),
        *(tar_of([(tar_member("data.txt"), TEXT), (tar_member("../x", kind), b"")])
          for kind in (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE)),
    ],
)  # fmt: skip
def test_nothing_of_an_archive_but_the_member_is_written(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive, target = tmp_path / "in/archive", tmp_path / "in/target"
    archive.write_bytes(content)
    extract_member("key", archive, "data.txt", target)
    assert target.read_bytes() == TEXT
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["in", "in/archive", "in/target"]


def header_of(size: int) -> bytes:
    """A tar archive with one name that is `size` bytes long."""
    long = tarfile.TarInfo("././@LongLink")
    long.type = tarfile.GNUTYPE_LONGNAME
    return tar_of([(long, b"a" * size), (tar_member("data.txt"), TEXT)])


@pytest.mark.parametrize(
    "content",
    [
        zip_of({"data.txt": bytes(30_000_000)}),
        tar_of([(tar_member("data.txt"), bytes(30_000_000))]),
        tar_of([(tar_member("before"), bytes(30_000_000)), (tar_member("data.txt"), TEXT)]),
        header_of(30_000_000),
    ],
    ids=["zip", "tar", "tar, another file", "tar, a header"],
)
def test_an_archive_that_unpacks_to_far_more_than_text_would_is_given_up_on(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read no further: an archive of some megabytes can unpack to what no memory holds."""
    archive, target = tmp_path / "archive", tmp_path / "target"
    archive.write_bytes(content)
    monkeypatch.setattr(archives, "SMALL", 2_000_000)
    tracemalloc.start()
    with pytest.raises(StageError, match=r"^key: cannot read this archive \(it unpacks to more than \d+ bytes\); "):
        extract_member("key", archive, "data.txt", target)
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 20_000_000
    assert not target.exists() or target.stat().st_size < 10_000_000


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
    archive.write_bytes(zip_of({"a/data.txt": TEXT, "b/data.txt": TEXT, "c": TEXT}))
    with pytest.raises(StageError, match=r"key: 0 files 'data2' in the archive; name one of a/data\.txt, b/.*, c$"):
        extract_member("key", archive, "data2", tmp_path / "target")
    with pytest.raises(StageError, match=r"2 files 'data\.txt' in the archive; name one of a/data\.txt, b/data\.txt$"):
        extract_member("key", archive, "data.txt", tmp_path / "target")
    archive.write_bytes(TEXT)
    with pytest.raises(StageError, match="cannot read this archive"):
        extract_member("key", archive, "data.txt", tmp_path / "target")


# --- a folder ------------------------------------------------------------------------------------------------------


def get(source: str, tmp_path: Path, path: str | None = None, **entry: str) -> bytes:
    target = tmp_path / "fetched"
    fetch.fetch("models.x.files.it", parse_source(source), SourceFile(path=path, **entry), path, target)
    return target.read_bytes()


def test_a_file_of_a_folder_is_copied_and_its_member_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "home/corpus"
    folder.mkdir(parents=True)
    (folder / "data.txt").write_bytes(TEXT)
    (folder / "data.zip").write_bytes(GOOD["zip"])
    assert get(f"file:{folder}", tmp_path, "data.txt", sha256=sha256(TEXT)) == TEXT
    pins = {"sha256": sha256(GOOD["zip"]), "member": "data.txt", "member_sha256": sha256(TEXT)}
    assert get(f"file:{folder}", tmp_path, "data.zip", **pins) == TEXT
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert get("file:~/corpus", tmp_path, "data.txt", sha256=sha256(TEXT)) == TEXT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fetched", "home"]


def test_a_wrong_sha256_is_named_with_the_one_found(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(GOOD["zip"])
    with pytest.raises(StageError, match=rf"models\.x\.files\.it\.sha256: .* sha256 {sha256(GOOD['zip'])}, not 00"):
        get(f"file:{tmp_path}", tmp_path, "data.zip", sha256="0" * 64)
    pins = {"sha256": sha256(GOOD["zip"]), "member": "data.txt", "member_sha256": "0" * 64}
    with pytest.raises(StageError, match=rf"models\.x\.files\.it\.member_sha256: .* sha256 {sha256(TEXT)}, not 00"):
        get(f"file:{tmp_path}", tmp_path, "data.zip", **pins)


def test_a_file_that_changes_while_it_is_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sha256 that counts is the copy's: nobody else can write to that."""
    original = tmp_path / "data.txt"

    def change_after_copying(file: IO[bytes], written: IO[bytes], size: int) -> None:
        written.write(file.read().upper())
        original.write_bytes(TEXT)

    monkeypatch.setattr(shutil, "copyfileobj", change_after_copying)
    original.write_bytes(TEXT)
    with pytest.raises(StageError, match=rf"sha256 {sha256(TEXT.upper())}, not {sha256(TEXT)}"):
        get(f"file:{tmp_path}", tmp_path, "data.txt", sha256=sha256(TEXT))


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    for source in ("file:nowhere", f"file:{tmp_path}"):
        with pytest.raises(StageError, match=rf"models\.x\.files\.it: no file {source[5:]}/data\.txt \(seen from /"):
            get(source, tmp_path, "data.txt", sha256="0" * 64)


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


def test_a_member_of_a_wheel_comes_through_pip_and_its_configuration_once_and_quietly(
    index: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pins = {"sha256": sha256(index), "member": "tiny_corpus/data.txt", "member_sha256": sha256(TEXT)}
    assert get("pypi:tiny-corpus==1.0", tmp_path, **pins) == TEXT
    assert capfd.readouterr() == ("", "downloading tiny-corpus\n")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert get("pypi:tiny-corpus==1.0", tmp_path, **pins) == TEXT


@pytest.mark.usefixtures("index")
def test_a_wheel_with_another_sha256_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"models\.x\.files\.it\.sha256: "):
        get("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")


@pytest.mark.usefixtures("index")
def test_a_version_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"pip cannot get tiny-corpus==2\.0 \(.*No matching distribution found for"):
        get("pypi:tiny-corpus==2.0", tmp_path, sha256="0" * 64, member="data.txt")


def test_an_index_that_does_not_answer_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(StageError) as caught:
        get("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")
    assert "the index does not answer: NewConnectionError); check the network, use a local copy" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_python_without_pip_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, stderr=f"{sys.executable}: No module named pip\n")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)
    with pytest.raises(StageError, match=r"this Python has no pip; run `.* -m ensurepip`"):
        get("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")
