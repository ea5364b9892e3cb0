"""Copy one named member out of a zip, wheel or tar archive, under a limit of bytes; nothing else of it is written."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from stages.plumbing.errors import StageError, of_the_machine, one_line

SMALL = 64 << 20  # unpacked bytes that any archive may have
MAX_RATIO = 200  # of unpacked to packed size beyond that: text reaches 20, a zip bomb 1,000 and more
OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


class Limited:
    """Unpacked bytes as a file to read, which ends in an error after `limit` of them.

    A tar archive is read through this as a whole, because Python reads its headers into memory whatever their size.
    """

    def __init__(self, file: Any, limit: int) -> None:
        self.file, self.limit, self.tell = file, limit, file.tell

    def seek(self, place: int) -> None:
        """Go to a place."""
        if place > self.limit:
            raise ValueError(f"it unpacks to more than {self.limit} bytes")
        self.file.seek(place)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes from here on."""
        content: bytes = self.file.read(min(size, self.limit - self.tell() + 1))
        self.seek(self.tell())
        return content


def extract_member(subject: str, archive: Path, member: str, target: Path) -> None:
    """Copy one member of a zip, wheel or tar file (gzip, bzip2 or xz) to `target`.

    member: its name in the archive, or only the last part of the name if just one file has it.

    Raises:
        StageError: the file is no archive or a damaged one, it has no such member, or it unpacks to far more than text
            or weights would.
    """
    limit = max(archive.stat().st_size * MAX_RATIO, SMALL)
    with archive.open("rb") as file:
        start = file.read(6)
    opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), open)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:
                name = _find(subject, member, [info.filename for info in packed.infolist() if not info.is_dir()])
                _copy(Limited(packed.open(name), limit), target)
        else:
            with opener(archive, "rb") as file, tarfile.TarFile(fileobj=Limited(file, limit)) as tar:  # type: ignore[arg-type]
                name = _find(subject, member, [info.name for info in tar.getmembers() if info.isreg()])
                _copy(tar.extractfile(name), target)
    except Exception as error:  # Python's readers raise anything on a damaged archive
        if isinstance(error, StageError) or of_the_machine(error):
            raise
        found = f"cannot read this archive ({one_line(str(error))})"
        raise StageError(subject, found, "download it again, or name another file") from None


def _copy(content: Any, target: Path) -> None:
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _find(subject: str, member: str, names: list[str]) -> str:
    """The member's whole name."""
    found = [name for name in names if name == member] or [name for name in names if name.endswith(f"/{member}")]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found or names[:8]) + (", ..." if len(found or names) > 8 else "")
    raise StageError(subject, f"{len(found)} files {member!r} in the archive", f"name one of {listed or 'no files'}")
