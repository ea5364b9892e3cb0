"""A picture of the chat's page, by a headless Chromium.

python -m stages.chat --web --compare NAME... &
python -m tests.chat.screenshot --to page.png "How was your day ?" "What do you do ?"
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.browser import Browser

READY = "['#query textarea', '#ask', '#anew', '#experiments input', '.nothing'].every(e => document.querySelector(e))"


def ask(browser: Browser, tab: str, said: str, number: int) -> None:
    """Type a query, ask and wait for all answers; it is the `number`th, from 1."""
    browser.type(tab, "#query textarea", said)
    browser.evaluate(tab, "document.querySelector('#ask').click()")
    asked = f"document.querySelectorAll('.round').length == {number}"
    browser.until(tab, f"{asked} && !document.querySelector('.waiting')")


def screenshot(url: str, path: Path, queries: Sequence[str], width: int, dark: bool) -> None:
    """Write a PNG of the page after some queries."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
        tab = browser.visit(url, width, dark)
        browser.until(tab, READY)
        for number, said in enumerate(queries, start=1):
            ask(browser, tab, said, number)
        browser.screenshot(tab, path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", nargs="+")
    parser.add_argument("--to", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--width", type=int, default=1280, help="in pixels; 400: a phone")
    parser.add_argument("--dark", action="store_true")
    arguments = parser.parse_args()
    screenshot(arguments.url, arguments.to, arguments.queries, arguments.width, arguments.dark)
