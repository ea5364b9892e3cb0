"""Memory that is freed is not asked for again, unless it is to be as other programs have it."""

import platform
import subprocess
import sys

import pytest

from tests.tiny import ROOT

PAGES = """
import resource, sys, torch
from stages.core.device import keep_freed_memory
keep_freed_memory(sys.argv[1] == "keep")
make = lambda: torch.full((64 << 20,), 1, dtype=torch.uint8)
for _ in range(4):
    make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    make()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults_of_pages(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PAGES, how], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's allocator is left alone")
def test_freed_memory_is_used_again_without_the_kernel() -> None:
    kept, given_back = faults_of_pages("keep"), faults_of_pages("give back")
    assert 2 * kept < given_back, "how many these are depends on the size of pages, which may be huge"
