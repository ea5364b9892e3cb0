"""A headless Chromium, driven by its DevTools protocol over a pipe: records a page's requests and complaints."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
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

# clipped: what cannot be read even by scrolling a table: elements beyond the page's sides that are in nothing that
# scrolls, and words beyond the edge of their figure. overlapping: pairs of words of a figure that cover each other.
LOOK = """(() => {
    const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
    const name = e => e.tagName + ': ' + e.textContent.trim().slice(0, 40);
    const box = e => e.getBoundingClientRect();
    const beside = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1;
    const within = (a, b) => beside(a, b) && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
    const across = (a, b) => a.left < b.right - 1 && b.left < a.right - 1;
    const meet = (a, b) => across(a, b) && a.top < b.bottom - 1 && b.top < a.bottom - 1;
    const scrolls = e => e && getComputedStyle(e).overflowX === 'auto';
    const page = {left: 0, right: document.documentElement.clientWidth};
    const own = all('body *').filter(e => !scrolls(e.closest('.wide')) && !e.closest('svg'));
    const words = all('figure svg').map(svg => [svg, all('text', svg).filter(text => text.textContent.trim())]);
    const cut = words.flatMap(([svg, texts]) => texts.filter(text => !within(box(text), box(svg))));
    const covered = texts => texts.flatMap((a, at) => texts.slice(at + 1).filter(b => meet(box(a), box(b)))
        .map(b => name(a) + ' / ' + name(b)));
    return {
        figures: words.length,
        tables: all('table').length,
        wide: words.every(([svg, _]) => svg.clientWidth > 300),
        clipped: [...own.filter(e => !beside(box(e), page)), ...cut].map(name),
        overlapping: words.flatMap(([_, texts]) => covered(texts)),
    };
})()"""


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

    def visit(self, url: str, width: int = 1280, dark: bool = False) -> str:
        """Open a page in a new tab; return the tab's session once the page is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session: str = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", session, features=[scheme])
        self.send("Page.navigate", session, url=url)
        while not any(
            (each["method"], each.get("sessionId")) == ("Page.loadEventFired", session) for each in self.events
        ):
            self.events.append(self.message())
        return session

    def evaluate(self, session: str, expression: str) -> Any:
        """The value of a JavaScript expression in a tab."""
        return self.send("Runtime.evaluate", session, expression=expression, returnByValue=True)["result"].get("value")

    def until(self, session: str, expression: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true in a tab."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(session, expression):
            assert time.monotonic() < deadline, (expression, self.complaints())
            time.sleep(0.05)

    def type(self, session: str, selector: str, text: str) -> None:
        """Type a text into the element that a CSS selector finds, in place of what stands there."""
        self.evaluate(session, f"(e => (e.focus(), e.select()))(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", session, text=text)

    def screenshot(self, session: str, path: Path) -> None:
        """Write the whole page of a tab as a PNG."""
        shot = self.send("Page.captureScreenshot", session, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(shot))

    def requests(self) -> list[str]:
        """The URLs that were requested, by all tabs."""
        sent = [each["params"] for each in self.events if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def complaints(self) -> list[str]:
        """What the browser and the pages wrote into the console."""
        return [json.dumps(each["params"]) for each in self.events if each["method"] in COMPLAINTS]

    def open(self, page: Path, width: int = 1280) -> tuple[list[str], list[str], dict[str, Any]]:
        """The URLs that a page requests besides its own; what the browser complains about; facts about its layout."""
        session = self.visit(page.as_uri(), width)
        seen = self.evaluate(session, LOOK)
        return [url for url in self.requests() if url != page.as_uri()], self.complaints(), seen
