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
Group = tuple[int, str, int | str, int, dict[str, int]]  # version, folder, limit, usage, and more that it shows

GROUPS: dict[str, tuple[list[Group], list[str], int]] = {  # what the kernel shows, the process's groups, left
    "file pages can go": ([(2, "run", 1000, 400, {"old": 150, "new": 200})], ["0::/run"], 950),
    "version 1": (
        [(1, "memory/old", 1000, 400, {"old": 100, "new": 200})],
        ["9:name=systemd:/", "4:memory:/old", "3:cpuset:/", "0::/"],
        900,
    ),
    "several controllers": ([(1, "cpu,memory/c", 500, 300, {})], ["5:cpu,memory:/c"], 200),
    "more than the limit": ([(2, "over", 100, 300, {})], ["0::/over"], 0),
    "where it slows down": ([(2, "run", 1000, 100, {"high": 700})], ["0::/run"], 600),
    "which is zero": ([(2, "run", 800, 0, {"high": 0})], ["0::/run"], 0),
    "one above": ([(2, "a", 300, 100, {}), (2, "a/b", 5000, 9, {})], ["0::/a/b"], 200),
    "a lower one without a limit": ([(2, "a", 800, 100, {}), (2, "a/b", "max", 100, {})], ["0::/a/b"], 700),
    "no limit": ([(1, "memory/a", NO_LIMIT, 100, {})], ["4:memory:/a"], NO_LIMIT - 100),
    # In a container the path is the host's, and the root is the group.
    "a container": ([(1, "memory", 1000, 300, {})], ["4:memory:/docker/0123"], 700),
    "a path out of it": (
        [(1, "../system.slice/0123", 400, 390, {}), (1, "memory", 1000, 300, {})],
        ["4:memory:/../../system.slice/0123"],
        700,
    ),
    "no groups": ([], ["0::/a"], sys.maxsize),
}


@pytest.mark.parametrize(("groups", "lines", "left"), GROUPS.values(), ids=GROUPS)
def test_the_tightest_limit_decides(groups: list[Group], lines: list[str], left: int, tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    for version, path, limit, usage, more in groups:
        folder = tmp_path / "sys" / path
        folder.mkdir(parents=True, exist_ok=True)
        limit_name, usage_name, inactive, active = NAMES[version]
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / usage_name).write_text(f"{usage}\n")
        own = OF_CHILDREN_LEFT_OUT if version == 1 else ""
        pages = f"{inactive} {more.get('old', 0)}\n{active} {more.get('new', 0)}\n"
        (folder / "memory.stat").write_text(f"anon 5\n{own}{pages}")
        if version == 2:
            (folder / "memory.high").write_text(f"{more.get('high', 'max')}\n")
    (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in lines))
    assert memory_left(tmp_path / "cgroup", tmp_path / "sys") == left
    assert memory_left(tmp_path / "nothing", tmp_path / "sys") == sys.maxsize  # not Linux


@pytest.mark.parametrize(("left", "expected"), [(3000, 3000), (8000, 5000), (sys.maxsize, 5000)])
def test_a_container_can_leave_less_memory(monkeypatch: pytest.MonkeyPatch, left: int, expected: int) -> None:
    machine = psutil.virtual_memory()._replace(available=5000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "memory_left", lambda: left)
    assert free_memory(torch.device("cpu")) == expected


@pytest.mark.parametrize(("fraction", "expected"), [(1.0, 60 + 10), (0.5, 50 - 30 + 10)])
def test_half_of_a_gpu_has_half_of_its_memory(fraction: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
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
