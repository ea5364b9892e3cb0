"""Extract one named member of a zip, wheel or tar archive; refuse the archive if any of its entries could do harm."""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stages.plumbing.errors import StageError

MAX_BYTES = 64 << 30  # of all entries together
MAX_RATIO = 200  # of unpacked to packed size: text reaches 20, a zip bomb 1,000 and more
DAMAGED = (  # raised by Python's readers; RuntimeError: a password; NotImplementedError: an unknown compression
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error),
    *(EOFError, NotImplementedError, RuntimeError),
)
SMALL = 64 << 20  # unpacked bytes: below this size any ratio is accepted


@dataclass(frozen=True)
class Entry:
    """What an archive says about one of its entries."""

    name: str
    size: int
    is_file: bool
    is_folder: bool


def extract_member(subject: str, archive: Path, member: str, target: Path) -> None:
    """Copy one member of an archive to `target`.

    Args:
        subject: the key of params.yaml that errors name.
        archive: a zip, wheel or tar file (gzip, bzip2 or xz).
        member: its name in the archive, or only the last part of the name if just one entry has it.
        target: the file to write.

    Raises:
        StageError: the file is no archive or a damaged one, it has no such member, or one of its entries is a link,
            has an absolute name or `..`, or makes the archive suspiciously large.
    """
    remedy = "download it again, or name another file"
    try:
        if zipfile.is_zipfile(archive):
            _from_zip(subject, archive, member, target)
        elif tarfile.is_tarfile(archive):
            _from_tar(subject, archive, member, target)
        else:
            raise StageError(subject, "neither a zip nor a tar archive", "remove member, or name an archive")
    except DAMAGED as error:
        raise StageError(subject, f"a damaged or unsupported archive ({error})", remedy) from None


def _from_zip(subject: str, archive: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        names = _checked(subject, archive, (_zip_entry(info) for info in infos))
        info = infos[_find(subject, member, names)]
        _copy(lambda: opened.open(info), info.file_size, target)


def _zip_entry(info: zipfile.ZipInfo) -> Entry:
    # Archives made on Unix have the file type in the upper half of external_attr; in others it is 0.
    kind = stat.S_IFMT(info.external_attr >> 16)
    is_folder = info.is_dir() and kind in (0, stat.S_IFDIR)
    # orig_filename, because zipfile cuts `filename` at a NUL and converts other systems' separators.
    return Entry(info.orig_filename, info.file_size, not info.is_dir() and kind in (0, stat.S_IFREG), is_folder)


def _from_tar(subject: str, archive: Path, member: str, target: Path) -> None:
    with tarfile.open(archive) as opened:
        # Entries are read one by one: the check stops at the first bad one, before anything large is unpacked.
        names = _checked(subject, archive, (Entry(each.name, each.size, each.isreg(), each.isdir()) for each in opened))
        info = opened.getmembers()[_find(subject, member, names)]
        _copy(lambda: opened.extractfile(info), info.size, target)


def _checked(subject: str, archive: Path, entries: Iterator[Entry]) -> list[str]:
    """Return the names of all entries; raise if one of them could do harm."""
    names: list[str] = []
    limit = max(min(archive.stat().st_size * MAX_RATIO, MAX_BYTES), SMALL)
    total = 0
    for entry in entries:
        total += entry.size
        parts = entry.name.replace("\\", "/").split("/")
        if entry.name.startswith(("/", "\\")) or ".." in parts or "\0" in entry.name or parts[0].endswith(":"):
            problem = f"the entry {entry.name!r}, which leads out of the archive"
        elif not (entry.is_file or entry.is_folder):
            problem = f"the entry {entry.name!r}, a link or a device"
        elif total > limit:
            problem = f"at least {total} bytes unpacked in {archive.stat().st_size} packed"
        else:
            names.append(entry.name if entry.is_file else "")
            continue
        raise StageError(subject, f"an archive with {problem}", "do not use this archive")
    return names


def _find(subject: str, member: str, names: list[str]) -> int:
    """Index of the member, found by its whole name, else by the last part of its name."""
    found = [index for index, name in enumerate(names) if name == member]
    if not found and "/" not in member:
        found = [index for index, name in enumerate(names) if name.rpartition("/")[2] == member]
    if len(found) == 1:
        return found[0]
    files = [name for name in names if name]
    what = f"{len(found)} entries called {member!r}" if found else f"no member {member!r}"
    listed = ", ".join(files[:8]) + (", ..." if len(files) > 8 else "")
    raise StageError(subject, what, f"its files: {listed or 'none'}")


def _copy(opening: Callable[[], IO[bytes] | None], size: int, target: Path) -> None:
    stream = opening()
    assert stream is not None, "only regular files get here"
    with stream, target.open("wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)
    if target.stat().st_size != size:
        raise EOFError(f"{target.stat().st_size} of {size} bytes")
