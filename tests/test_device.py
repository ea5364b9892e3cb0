"""Memory that is freed stays with the process, unless it is to be as other programs have it."""

import platform
import subprocess
import sys

import pytest

from tests.tiny import ROOT

MIB_THAT_STAY = """
import sys, psutil, torch
from stages.core.device import keep_freed_memory
keep_freed_memory(sys.argv[1] == "keep")
before = psutil.Process().memory_info().rss
block = torch.full((256 << 20,), 1, dtype=torch.uint8)
del block
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def mib_that_stay(how: str) -> int:
    words = [sys.executable, "-c", MIB_THAT_STAY, how]
    return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's allocator is left alone")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    assert mib_that_stay("keep") > 200
    assert mib_that_stay("give back") < 50
