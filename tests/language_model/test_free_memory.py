"""The memory that a machine, a container or a share of a GPU leaves, and what of it stays with the process."""

import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.language_model import memory
from stages.language_model.memory import free_memory, memory_left
from tests.tiny import ROOT

NO_LIMIT = 9223372036854771712  # how version 1 says it
NAMES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"),
    2: ("memory.max", "memory.current", "inactive_file", "active_file"),
}
OF_CHILDREN_LEFT_OUT = "inactive_file 7\nactive_file 70\n"  # version 1 has such lines too, of one group alone


class Kernel:
    """What the kernel would show of a process's groups."""

    def __init__(self, folder: Path) -> None:
        self.groups, self.mounted = folder / "cgroup", folder / "sys"
        self.mounted.mkdir()

    def group(
        self, version: int, path: str, limit: int | str, usage: int, old: int = 0, new: int = 0, high: int | str = "max"
    ) -> None:
        """`old` and `new`: its inactive and active file pages; `high`: its memory.high, in version 2."""
        folder = self.mounted / path
        folder.mkdir(parents=True, exist_ok=True)
        limit_name, usage_name, inactive, active = NAMES[version]
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / usage_name).write_text(f"{usage}\n")
        own = OF_CHILDREN_LEFT_OUT if version == 1 else ""
        (folder / "memory.stat").write_text(f"anon 5\n{own}{inactive} {old}\n{active} {new}\n")
        if version == 2:
            (folder / "memory.high").write_text(f"{high}\n")

    def left(self, *lines: str) -> int | None:
        self.groups.write_text("".join(f"{line}\n" for line in lines))
        return memory_left(self.groups, self.mounted)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_it_is_the_limit_without_what_is_used_but_file_pages_can_go(kernel: Kernel) -> None:
    kernel.group(2, "run", limit=1000, usage=400, old=150, new=200)
    assert kernel.left("0::/run") == 1000 - (400 - 150 - 200)
    kernel.group(1, "memory/old", limit=1000, usage=400, old=100, new=200)
    assert kernel.left("9:name=systemd:/", "4:memory:/old", "3:cpuset:/", "0::/") == 1000 - (400 - 100 - 200)
    kernel.group(1, "cpu,memory/c", limit=500, usage=300)
    assert kernel.left("5:cpu,memory:/c") == 200
    kernel.group(2, "over", limit=100, usage=300)
    assert kernel.left("0::/over") == 0


@pytest.mark.parametrize(
    ("limit", "high", "left"), [(1000, 700, 600), (1000, 5000, 900), ("max", 700, 600), (1000, "max", 900), (800, 0, 0)]
)
def test_the_limit_above_which_the_kernel_slows_a_group_down_counts_too(
    kernel: Kernel, limit: int | str, high: int | str, left: int
) -> None:
    kernel.group(2, "run", limit=limit, usage=100, high=high)
    assert kernel.left("0::/run") == left


@pytest.mark.parametrize(("version", "root", "line"), [(1, "memory/", "4:memory:/a/b/c"), (2, "", "0::/a/b/c")])
@pytest.mark.parametrize("tight", ["a", "a/b", "a/b/c"])
def test_the_group_that_leaves_least_decides_at_whatever_height(
    kernel: Kernel, version: int, root: str, line: str, tight: str
) -> None:
    for path in ("a", "a/b", "a/b/c"):
        kernel.group(version, root + path, limit=300 if path == tight else 5000, usage=100)
    assert kernel.left(line) == 200


def test_groups_without_a_limit_leave_the_decision_to_the_others(kernel: Kernel) -> None:
    kernel.group(2, "a", limit=800, usage=100)
    kernel.group(2, "a/b", limit="max", usage=100)
    assert kernel.left("0::/a/b") == 700
    kernel.group(1, "memory/a", limit=NO_LIMIT, usage=100)
    assert kernel.left("4:memory:/a") is None


@pytest.mark.parametrize("path", ["/docker/0123", "/../../system.slice/0123", "/"])
def test_inside_a_container_whose_path_is_that_of_the_host_its_root_is_the_group(kernel: Kernel, path: str) -> None:
    kernel.group(1, "../system.slice/0123", limit=400, usage=390)  # where `..` would lead
    kernel.group(1, "memory", limit=1000, usage=300)
    assert kernel.left(f"4:memory:{path}") == 700
    kernel.group(2, ".", limit=2000, usage=300)
    assert kernel.left(f"0::{path}") == 1700


def test_without_groups_nothing_is_said(kernel: Kernel, tmp_path: Path) -> None:
    assert memory_left(tmp_path / "nothing", kernel.mounted) is None  # not Linux
    assert kernel.left("0::/a") is None


@pytest.mark.parametrize(("left", "expected"), [(3000, 3000), (8000, 5000), (None, 5000)])
def test_free_memory_is_the_smaller_of_the_machine_s_and_the_container_s(
    monkeypatch: pytest.MonkeyPatch, left: int | None, expected: int
) -> None:
    machine = psutil.virtual_memory()._replace(available=5000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    assert free_memory(torch.device("cpu")) == expected


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, 60 + 10), (0.5, 50 - 30 + 10)])
def test_a_process_that_may_have_half_of_a_gpu_counts_on_no_more(
    fraction: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 20)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (60, 100))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    # PyTorch takes nothing but the number of the GPU here, and says so only where there is one.
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", {0: fraction}.__getitem__)
    assert free_memory(torch.device("cuda")) == free_memory(torch.device("cuda", 0)) == expected


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux takes this advice")
def test_a_tensor_that_came_from_a_file_leaves_memory_and_comes_back(tmp_path: Path) -> None:
    values = torch.arange(1 << 20, dtype=torch.float32)
    save_file({"weight": values}, tmp_path / "weights")

    def resident() -> int:
        """KiB of the mapped file that are in this process's memory."""
        own = Path("/proc/self/smaps").read_text().partition(str(tmp_path / "weights"))[2]
        return int(own.partition("Rss:")[2].split()[0])

    tensor = load_file(tmp_path / "weights")["weight"]
    assert torch.equal(tensor, values)
    before = resident()
    memory.page_out(tensor)
    assert before > 4000 and resident() < before // 2
    memory.page_out(values[:3])  # came from no file
    assert torch.equal(tensor, values)


RESIDENT = """
import psutil, torch
from stages.language_model.memory import give_back_freed_memory, keep_freed_memory
keep_freed_memory(True)
def resident():
    return psutil.Process().memory_info().rss >> 20
give_back_freed_memory()
before = resident()
blocks = [torch.ones(48 << 20, dtype=torch.uint8) for _ in range(8)]
del blocks[:7]
for beyond in (512 << 20, 200 << 20):
    give_back_freed_memory(beyond)
    print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is changed")
def test_freed_memory_stays_until_it_is_more_than_may_stay() -> None:
    said = subprocess.run([sys.executable, "-c", RESIDENT], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [int(each) for each in said.split()] == pytest.approx([384, 48], abs=20)
