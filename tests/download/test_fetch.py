"""Sources: only pinned content is accepted, and of an archive only the member, up to a limit."""

import io
import shutil
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest

from stages.download import archives, fetch
from stages.download.archives import extract_member
from stages.params.sources import SourceFile, parse_source
from stages.plumbing.errors import StageError
from tests.helpers_data import sha256, zip_of

TEXT = b"hello __eou__ hi __eou__\n" * 50


def tar_of(members: dict[str, bytes], mode: Any = "w:gz", last: bytes = tarfile.REGTYPE) -> bytes:
    """A tar archive; `last` is the type of its last member."""
    buffer, types = io.BytesIO(), [tarfile.REGTYPE] * (len(members) - 1) + [last]
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for (name, content), kind in zip(members.items(), types, strict=True):
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            info.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"a/data.txt": TEXT, "a/other.txt": b"x"}
GOOD = {
    "zip": zip_of(FILES),
    "stored": zip_of(FILES, zipfile.ZIP_STORED),
    "tar": tar_of(FILES, "w"),
    "tar.gz": tar_of(FILES),
    "tar.bz2": tar_of(FILES, "w:bz2"),
    "tar.xz": tar_of({**FILES, "b": b""}, "w:xz", tarfile.DIRTYPE),
}


def extract(content: bytes, member: str, folder: Path) -> bytes:
    """What is extracted from an archive in a folder, where nothing else appears."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in/archive").write_bytes(content)
    (folder / "in/target").unlink(missing_ok=True)
    extract_member("key", folder / "in/archive", member, folder / "in/target")
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["in", "in/archive", "in/target"]
    return (folder / "in/target").read_bytes()


@pytest.mark.parametrize("kind", GOOD)
def test_one_member_is_read_by_its_whole_name_or_by_its_last_part(kind: str, tmp_path: Path) -> None:
    for member in ("a/data.txt", "data.txt"):
        assert extract(GOOD[kind], member, tmp_path) == TEXT


@pytest.mark.parametrize(
    "content",
    [
        zip_of({"data.txt": TEXT, "../x": b"", "/tmp/x": b"", "folder/": b""}),
        *(tar_of({"data.txt": TEXT, "../x": b""}, last=kind) for kind in (tarfile.REGTYPE, tarfile.SYMTYPE)),
    ],
)
def test_nothing_of_an_archive_but_the_member_is_written(content: bytes, tmp_path: Path) -> None:
    assert extract(content, "data.txt", tmp_path) == TEXT


@pytest.mark.parametrize(
    "content",
    [
        zip_of({"data.txt": bytes(30_000_000)}),
        tar_of({"data.txt": bytes(30_000_000)}),
        tar_of({"before": bytes(30_000_000), "data.txt": TEXT}),
        tar_of({"././@LongLink": bytes(30_000_000)}, last=tarfile.GNUTYPE_LONGNAME),
    ],
    ids=["zip", "tar", "tar, another file", "tar, a header"],
)
def test_an_archive_bomb_is_given_up_on(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And read no further: an archive of some megabytes can unpack to what no memory holds."""
    monkeypatch.setattr(archives, "SMALL", 2_000_000)
    tracemalloc.start()
    with pytest.raises(StageError, match=r"^key: cannot read this archive \(it unpacks to more than \d+ bytes\); "):
        extract(content, "data.txt", tmp_path)
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 20_000_000
    target = tmp_path / "in/target"
    assert not target.exists() or target.stat().st_size < 10_000_000


@pytest.mark.parametrize("kind", GOOD)
def test_a_damaged_archive_is_an_error_of_one_line(kind: str, tmp_path: Path) -> None:
    whole = GOOD[kind]
    for damaged in (whole[: len(whole) // 2], whole[:40] + bytes(20) + whole[60:], whole[:-30]):
        try:
            content = extract(damaged, "a/data.txt", tmp_path)
        except StageError:
            continue
        assert content == TEXT  # the damage did not reach the member


@pytest.mark.parametrize(
    ("content", "member", "found"),
    [
        (TEXT, "x", r"cannot read this archive \("),
        (zip_of(FILES), "x", r"0 files 'x' in the archive; .*a/data\.txt, a/other\.txt$"),
        (zip_of({"a/x": TEXT, "b/x": TEXT, "c": TEXT}), "x", r"2 files 'x' in the archive; .*a/x, b/x$"),
    ],
)
def test_what_is_no_archive_or_has_no_such_member(content: bytes, member: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=f"^key: {found}"):
        extract(content, member, tmp_path)


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
        found = rf"models\.x\.files\.it: no file {source[5:]}/data\.txt \(seen from /.*; queued .* need the whole path"
        with pytest.raises(StageError, match=found):
            get(source, tmp_path, "data.txt", sha256="0" * 64)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A wheel in the one folder where pip looks for wheels, as its user has configured it."""
    about = b"Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\nRequires-Dist: not-wanted\n"
    metadata = {"METADATA": about, "WHEEL": b"Wheel-Version: 1.0\n"}
    files = {f"tiny_corpus-1.0.dist-info/{name}": content for name, content in metadata.items()}
    content = zip_of({"tiny_corpus/data.txt": TEXT} | files)
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/tiny_corpus-1.0-py3-none-any.whl").write_bytes(content)
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
@pytest.mark.parametrize(
    ("version", "found"),
    [("1.0", r"it\.sha256: "), ("2.0", r"it: pip cannot get tiny-corpus==2\.0 \(.*No matching distribution found for")],
)
def test_another_wheel_and_an_unknown_version_are_refused(version: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=rf"^models\.x\.files\.{found}"):
        get(f"pypi:tiny-corpus=={version}", tmp_path, sha256="0" * 64, member="data.txt")


def test_a_silent_index_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(StageError) as caught:
        get("pypi:tiny-corpus==1.0", tmp_path, sha256="0" * 64, member="data.txt")
    assert "the index does not answer: NewConnectionError); check the network, use a local copy" in str(caught.value)
    assert "secret" not in str(caught.value)
