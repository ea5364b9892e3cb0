"""A picture of the chat's page, by a headless Chromium.

python -m stages.chat --web --compare NAME... &
python -m tests.chat.screenshot page.png "How was your day ?" "What do you do ?"
"""

import argparse
import tempfile
from pathlib import Path

from tests.browser import Browser

COLUMNS = "[...document.querySelectorAll('.said')]"
READY = "['#query textarea', '#anew', '#experiments input', '.said'].every(e => document.querySelector(e))"


def ask(browser: Browser, tab: str, said: str, *number: int) -> list[str]:
    """Type a query, ask and wait for all answers; return the text of each column.

    `number`: how many answers each column then has, the last for all further columns.
    """
    browser.type(tab, "#query textarea", said)
    browser.evaluate(tab, "document.querySelector('#query .submit-button').click()")
    found = f"column.querySelectorAll('.bot.message').length == ({list(number)}[at] ?? {number[-1]})"
    browser.until(tab, f"{COLUMNS}.every((column, at) => {found})")
    columns: list[str] = browser.evaluate(tab, f"{COLUMNS}.map(column => column.innerText)")
    return [" ".join(column.split()) for column in columns]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="PNG file to write")
    parser.add_argument("queries", nargs="+")
    parser.add_argument("--width", type=int, default=1280, help="in pixels; 400: a phone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
        tab = browser.visit("http://127.0.0.1:7860", arguments.width)
        browser.until(tab, READY)
        for number, said in enumerate(arguments.queries, start=1):
            ask(browser, tab, said, number)
        browser.screenshot(tab, arguments.file)
