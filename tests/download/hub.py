"""A small hub on loopback: the part of the hub's protocol with which huggingface_hub gets files.

As on the hub, large files (`LARGE` bytes and more) are on another host, `localhost` and not `127.0.0.1`, under a signed
address, and their etag is their sha256; that of small files is git's hash. `/storage/NAME@COMMIT/FILE` serves as an
address for `url:` too.
"""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 4_000
SIGNATURE = "signature=" + 20 * "x"  # in the address of a large file


@dataclass
class Fault:
    """A fault of one file, for the next `times` requests."""

    kind: str  # 500 | 429 | truncate | stall | other-bytes
    method: str = "GET"
    times: int = 1_000_000


@dataclass
class Hub:
    address: str = ""  # the value of HF_ENDPOINT
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # by repository
    commits: dict[str, str] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path
    ranges: bool = True
    stop: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, commit: str, files: dict[str, bytes]) -> None:
        self.files[name], self.commits[name] = files, commit

    def fault(self, path: str, method: str) -> str | None:
        fault = self.faults.get(path)
        if fault is None or fault.method != method or fault.times <= 0:
            return None
        fault.times -= 1
        return fault.kind


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        server.daemon_threads, server.block_on_close = True, False
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield hub
        hub.stop.set()
        server.shutdown()


def etag_of(content: bytes) -> str:
    """The hub's etag: the sha256 of large files, git's hash of small ones."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests need no log on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        if match := re.fullmatch(r"/storage/(.+?)@\w+/(.+)", path):
            self.send_file(match[1], match[2], {})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(*match.groups())
        else:
            self.respond(404)

    def resolve(self, name: str, commit: str, file: str) -> None:
        if name not in self.hub.files:
            return self.respond(401, {"X-Error-Code": "RepoNotFound"})
        if commit != self.hub.commits[name]:
            return self.respond(404, {"X-Error-Code": "RevisionNotFound"})
        if file not in self.hub.files[name]:
            return self.respond(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        if self.hub.fault(file, self.command) == "500":
            return self.respond(500)
        if len(self.hub.files[name][file]) < LARGE:
            return self.send_file(name, file, self.facts(name, file))
        elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
        place = f"{elsewhere}/storage/{name}@{commit}/{file}?{SIGNATURE}"
        return self.respond(302, {**self.facts(name, file), "Location": place})

    def facts(self, name: str, file: str) -> dict[str, str]:
        content = self.hub.files[name][file]
        etag = f'"{etag_of(content)}"'
        facts = {"X-Repo-Commit": self.hub.commits[name], "ETag": etag}
        if len(content) >= LARGE:
            facts |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content)), "X-Xet-Hash": "0" * 64}
            facts |= {"Link": f'<{self.hub.address}/xet-read-token>; rel="xet-auth"'}
        return facts

    def send_file(self, name: str, file: str, headers: dict[str, str]) -> None:
        body, kind, status = self.hub.files[name][file], self.hub.fault(file, self.command), 200
        if kind in ("500", "429"):
            return self.respond(int(kind), {"Retry-After": "86400"})
        if self.hub.ranges and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            headers = {**headers, "Content-Range": f"bytes {match[1]}-{len(body) - 1}/{len(body)}"}
            body, status = body[int(match[1]) :], 206
        if kind == "other-bytes":
            body = bytes([body[0] ^ 1]) + body[1:]
        return self.respond(status, headers, body, kind)

    def respond(self, status: int, headers: Any = (), body: bytes = b"", fault: str | None = None) -> None:
        """Send an answer; "truncate" and "stall" send half of the body, "stall" then keeps the connection open."""
        cut = fault in ("truncate", "stall")
        self.send_response(status)
        for key, value in {**dict(headers), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
            self.hub.stop.wait(250 if fault == "stall" else 0)
            self.close_connection = cut
