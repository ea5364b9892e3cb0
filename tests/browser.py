"""What a headless Chromium makes of a page."""

import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), "")
needs_browser = pytest.mark.skipif(not BROWSER, reason="Chromium is not installed")


def rendered(url: str, width: int = 1280) -> str:
    """The elements of a page after its scripts have run, as HTML."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [BROWSER, *options, f"--window-size={width},900", url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
