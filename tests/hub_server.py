"""A small hub on loopback: the part of the hub's protocol with which huggingface_hub gets files.

    with HubServer() as hub:
        hub.add("openai-community/gpt2", commit, {"config.json": b"{}"})
        ... HF_ENDPOINT=hub.address ...

As on the hub, large files (`LARGE` bytes and more) are on another host: `/resolve/` redirects to `localhost`, while the
hub itself is `127.0.0.1`, and their etag is their sha256. For small files the redirect stays on the same host, and
their etag is git's hash. The address of a large file is signed, and so is a secret. `/storage/NAME@COMMIT/FILE` serves
as an address for `url:` too.
"""

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 4_000
TOKEN = "hf_abcdefghijklmnop"
SIGNATURE = "signature=" + 20 * "x"  # in the address of a large file


@dataclass
class Repository:
    """One repository with one commit."""

    commit: str
    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)


@dataclass
class Fault:
    """A fault of one file, for the next `times` requests."""

    kind: str  # 500 | 429 | truncate | stall | other-bytes
    method: str = "GET"
    times: int = 1_000_000


@dataclass
class HubServer:
    """The server; `requests` logs method and path, `tokens` counts requests with and without a token, by host."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: Counter[str] = field(default_factory=Counter)
    ranges: bool = True

    def add(self, name: str, commit: str, files: dict[str, bytes], branches: Iterable[str] = ("main",)) -> None:
        """Serve a repository; a data set's name starts with `datasets/`."""
        self.repositories[name] = Repository(commit, files, tuple(branches))

    def __enter__(self) -> "HubServer":
        self.stop = threading.Event()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.server.server_address[1])

    @property
    def address(self) -> str:
        """The value of HF_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, path: str, method: str) -> str | None:
        """The kind of fault for this request, if any."""
        fault = self.faults.get(path)
        if fault is None or fault.method != method or fault.times <= 0:
            return None
        fault.times -= 1
        return fault.kind


def etag_of(content: bytes) -> str:
    """The hub's etag: the sha256 of large files, git's hash of small ones."""
    if len(content) >= LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests need no log on stderr."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        host = (self.headers.get("Host") or "").partition(":")[0]
        self.hub.tokens[f"{host} {'with' if self.headers.get('Authorization') else 'without'} token"] += 1
        if match := re.fullmatch(r"/storage/(.+?)@(\w+)/(.+)", path):
            self.send_file(self.hub.repositories[match[1]], match[3], {})
        elif match := re.fullmatch(r"/api/resolve-cache/(.+?)@(\w+)/(.+)", path):
            repository = self.hub.repositories[match[1]]
            self.send_file(repository, match[3], self.facts(repository, match[3]))
        elif match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/(.+)", path):
            self.resolve(match[1], match[2])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            self.tree(match[1])
        else:
            self.refuse(404, "EntryNotFound")

    def json(self, value: Any) -> None:
        self.respond(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, rest: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self.refuse(401, "RepoNotFound")
        revision = next((r for r in (repository.commit, *repository.branches) if rest.startswith(f"{r}/")), None)
        if revision is None:
            return self.refuse(404, "RevisionNotFound")
        file = rest[len(revision) + 1 :]
        if file not in repository.files:
            return self.refuse(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
        if self.hub.fault(file, self.command) == "500":
            return self.refuse(500, "")
        facts = self.facts(repository, file)
        if len(repository.files[file]) >= LARGE:
            place = f"http://localhost:{self.hub.port}/storage/{name}@{repository.commit}/{file}?{SIGNATURE}"
            return self.respond(302, b"", {**facts, "Location": place})
        place = f"/api/resolve-cache/{name}@{repository.commit}/{file}"
        return self.respond(307, b"", {**facts, "Location": place})

    def facts(self, repository: Repository, file: str) -> dict[str, str]:
        content = repository.files[file]
        etag = f'"{etag_of(content)}"'
        facts = {"X-Repo-Commit": repository.commit, "ETag": etag}
        if len(content) >= LARGE:
            facts |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(content))}
            facts |= {"X-Xet-Hash": hashlib.sha256(b"xet" + content).hexdigest()}
            facts |= {"Link": f'<{self.hub.address}/xet-read-token>; rel="xet-auth"'}
        return facts

    def send_file(self, repository: Repository, file: str, headers: dict[str, str]) -> None:
        content = repository.files[file]
        kind = self.hub.fault(file, self.command)
        if kind in ("500", "429"):
            return self.respond(int(kind), b"", {"Retry-After": "86400"})
        status, start = 200, 0
        if self.hub.ranges and (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")):
            status, start = 206, int(match[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        body = content[start:]
        if kind == "other-bytes":
            body = bytes([body[0] ^ 1]) + body[1:]
        self.respond(status, body, headers, kind)

    def tree(self, name: str) -> None:
        files = sorted(self.hub.repositories[name].files.items())
        self.json([{"type": "file", "path": path, "size": len(each), "oid": etag_of(each)} for path, each in files])

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self.respond(status, b"", {**(headers or {}), "X-Error-Code": code} if code else {})

    def respond(self, status: int, body: bytes, headers: dict[str, str], fault: str | None = None) -> None:
        """Send an answer; "truncate" and "stall" send half of the body, "stall" then keeps the connection open."""
        cut = fault in ("truncate", "stall")
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.wfile.flush()
        if fault == "stall":
            self.hub.stop.wait(250)
        if cut:
            self.close_connection = True
