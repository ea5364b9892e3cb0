"""A headless Chromium, driven by its DevTools protocol over a pipe: records a page's requests and complaints."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# The browser reads commands from file descriptor 3 and writes to 4.
START = """
import fcntl, os, sys
to_read, to_write = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 10) for each in sys.argv[1:3])
os.dup2(to_read, 3)
os.dup2(to_write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
COMPLAINTS = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}


class Browser:
    """`with Browser(profile) as browser: browser.open(path)`."""

    def __init__(self, profile: Path) -> None:
        to_read, self.output = os.pipe()
        self.input, to_write = os.pipe()
        words = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        start = [sys.executable, "-c", START, str(to_read), str(to_write), *words]
        self.process = subprocess.Popen(start, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.unread, self.number = b"", 0
        self.events: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.input)
        os.close(self.output)

    def message(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            part = os.read(self.input, 1 << 16)
            assert part, "the browser is gone"
            self.unread += part
        line, _, self.unread = self.unread.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        self.number += 1
        command = {"id": self.number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self.output, json.dumps(command).encode() + b"\0")
        while (reply := self.message()).get("id") != self.number:
            self.events.append(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def open(self, page: Path) -> tuple[list[str], list[str], dict[str, Any]]:
        """The URLs that a page requests besides its own; what the browser complains about; facts about its layout."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable", session)
        self.send("Page.navigate", session, url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.message())
        look = "({figures: document.querySelectorAll('figure svg').length, tables: document.querySelectorAll('table')"
        look += ".length, wide: [...document.querySelectorAll('figure svg')].every(s => s.clientWidth > 300)})"
        seen = self.send("Runtime.evaluate", session, expression=look, returnByValue=True)["result"]["value"]
        requests = [each["params"] for each in self.events if each["method"] == "Network.requestWillBeSent"]
        asked = [each["request"]["url"] for each in requests]
        complaints = [json.dumps(each["params"]) for each in self.events if each["method"] in COMPLAINTS]
        return [url for url in asked if url != page.as_uri()], complaints, seen
