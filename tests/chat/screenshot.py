"""A picture of the chat's page, by a headless Chromium.

python -m stages.chat --web --compare NAME... &
python -m tests.chat.screenshot page.png "How was your day ?" "What do you do ?"
"""

import base64
import sys
import tempfile
from pathlib import Path

from tests.browser import Browser

COLUMNS = "[...document.querySelectorAll('.said')]"
READY = "['#query textarea', '#anew', '#experiments input', '.said'].every(e => document.querySelector(e))"


def ask(browser: Browser, said: str, *number: int) -> list[str]:
    """Type a query, ask and wait for all answers; return the text of each column.

    `number`: how many answers each column then has, the last for all further columns.
    """
    browser.type("#query textarea", said)
    browser.evaluate("document.querySelector('#query .submit-button').click()")
    found = f"column.querySelectorAll('.bot.message').length == ({list(number)}[at] ?? {number[-1]})"
    browser.until(f"{COLUMNS}.every((column, at) => {found})")
    return [" ".join(column.split()) for column in browser.evaluate(f"{COLUMNS}.map(column => column.innerText)")]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
        browser.visit("http://127.0.0.1:7860", width=1280)
        browser.until(READY)
        for number, said in enumerate(sys.argv[2:], start=1):
            ask(browser, said, number)
        shot = browser.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
    Path(sys.argv[1]).write_bytes(base64.b64decode(shot))
