"""The hub's Xet storage, as far as the real hf_xet asks it: which chunks make a file, and the chunks themselves.

A file is cut into chunks, chunks are packed into xorbs, and a file is a list of terms: chunks 3 to 7 of that xorb. The
hub's answer to HEAD names the file's hash and where to get a token; `reconstruction` says which terms it has and where
their bytes are; those bytes are chunks, each with a header. hf_xet asks for version 2 of the reconstruction, and for
version 1 where that is not found. Hashes are made up here: hf_xet does not compute them when it downloads.
"""

import hashlib
import json
from typing import Any

CHUNK = 1 << 16  # bytes; on the hub about that, cut where the content says
CHUNKS_OF_XORB = 16
STORED = 0  # the scheme of a chunk that is not compressed


def xet_hash(content: bytes) -> str:
    """What stands for the hash of a file, a xorb: 64 hex digits, and not the sha256 of the content."""
    return hashlib.sha256(b"xet" + content).hexdigest()


def xorbs_of(content: bytes) -> list[list[bytes]]:
    """The chunks of each xorb of a file."""
    chunks = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    return [chunks[start : start + CHUNKS_OF_XORB] for start in range(0, len(chunks), CHUNKS_OF_XORB)]


def packed(chunks: list[bytes]) -> bytes:
    """A xorb: each chunk behind its header, which has version, length as stored, scheme and length."""
    sizes = [len(chunk).to_bytes(3, "little") for chunk in chunks]
    return b"".join(b"\0" + size + bytes([STORED]) + size + chunk for size, chunk in zip(sizes, chunks, strict=True))


def reconstruction(content: bytes, storage: str) -> bytes:
    """The JSON that says how a file is put together; the xorbs are under the address `storage`."""
    terms, places = [], {}
    for chunks in xorbs_of(content):
        name, everything = xet_hash(b"".join(chunks)), {"start": 0, "end": len(chunks)}
        terms.append({"hash": name, "unpacked_length": sum(map(len, chunks)), "range": everything})
        there = {"start": 0, "end": len(packed(chunks)) - 1}  # as in a Range header, the last byte included
        places[name] = [{"range": everything, "url": f"{storage}/{name}", "url_range": there}]
    value: dict[str, Any] = {"offset_into_first_range": 0, "terms": terms, "fetch_info": places}
    return json.dumps(value).encode()


def xorb(contents: list[bytes], name: str) -> bytes | None:
    """The bytes of a xorb of one of these files."""
    for content in contents:
        for chunks in xorbs_of(content):
            if xet_hash(b"".join(chunks)) == name:
                return packed(chunks)
    return None
