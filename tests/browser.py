"""A headless Chromium, driven by its DevTools protocol over a pipe: records a page's requests and complaints."""

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
        clipped: [...own.filter(e => !beside(box(e), page)), ...cut].map(name),
        overlapping: words.flatMap(([_, texts]) => covered(texts)),
    };
})()"""


class Browser:
    """One tab: `with Browser(profile) as browser: browser.visit(url, width)`."""

    def __init__(self, profile: Path) -> None:
        to_read, self.output = os.pipe()
        self.input, to_write = os.pipe()
        words = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        start = [sys.executable, "-c", START, str(to_read), str(to_write), *words]
        self.process = subprocess.Popen(start, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.unread, self.number = b"", 0
        self.session: str | None = None  # of the tab, once there is one
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

    def send(self, method: str, **params: Any) -> Any:
        self.number += 1
        command = {"id": self.number, "method": method, "params": params}
        command |= {"sessionId": self.session} if self.session else {}
        os.write(self.output, json.dumps(command).encode() + b"\0")
        while (reply := self.message()).get("id") != self.number:
            self.events.append(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def visit(self, url: str, width: int) -> None:
        """Open a page; return when it is loaded."""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.send(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self.send("Page.navigate", url=url)
        while "Page.loadEventFired" not in (each["method"] for each in self.events):
            self.events.append(self.message())

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, (expression, self.complaints())
            time.sleep(0.05)

    def type(self, selector: str, text: str) -> None:
        """Type a text into the element that a CSS selector finds, in place of what stands there."""
        self.evaluate(f"(e => (e.focus(), e.select()))(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def requests(self) -> list[str]:
        """The URLs that were requested."""
        sent = [each["params"] for each in self.events if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent]

    def complaints(self) -> list[str]:
        """What the browser and the page wrote into the console."""
        return [json.dumps(each["params"]) for each in self.events if each["method"] in COMPLAINTS]
