"""A missing device is refused; freed memory stays with the process, unless told otherwise or too much."""

import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.language_model import device
from stages.language_model.device import choose_device, free_memory
from stages.params.schema import Runtime
from stages.plumbing.errors import StageError
from tests.tiny import ROOT

MIB_THAT_STAY = """
import sys, psutil, torch
from stages.language_model.device import keep_freed_memory
keep_freed_memory(sys.argv[1] == "keep")
before = psutil.Process().memory_info().rss
block = torch.full((int(sys.argv[2]) << 20,), 1, dtype=torch.uint8)
del block
print((psutil.Process().memory_info().rss - before) >> 20)
"""


def mib_that_stay(how: str, mib: int) -> int:
    words = [sys.executable, "-c", MIB_THAT_STAY, how, str(mib)]
    return int(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is changed")
def test_freed_memory_stays_until_it_is_given_back() -> None:
    mib = 2560  # twelve trials free more than 2 GiB at a time
    if psutil.virtual_memory().available < 3 * mib << 20:
        pytest.skip("too little memory")
    assert mib_that_stay("keep", mib) > 0.8 * mib
    assert mib_that_stay("give back", mib) < 50


RESIDENT_MIB = """
import psutil, torch
from stages.language_model.device import give_back_freed_memory, keep_freed_memory
keep_freed_memory(True)
MIB = 1 << 20
def resident():
    return psutil.Process().memory_info().rss // MIB
blocks = [torch.ones(8 * MIB, dtype=torch.uint8) for _ in range(64)]
print(resident())
del blocks[:32]
give_back_freed_memory(beyond=512 * MIB)  # 256 were freed
print(resident())
give_back_freed_memory(beyond=200 * MIB)
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is changed")
def test_freed_memory_goes_back_once_it_is_more_than_may_stay() -> None:
    words = [sys.executable, "-c", RESIDENT_MIB]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    full, less, given_back = map(int, said.split())
    assert full - less < 50
    assert less - given_back > 200


def resident_of_file(path: Path) -> int:
    """KiB of a mapped file that are in this process's memory."""
    own = Path("/proc/self/smaps").read_text().partition(str(path))[2]
    return int(own.partition("Rss:")[2].split()[0])


@pytest.mark.skipif(platform.system() != "Linux", reason="only Linux takes this advice")
def test_a_tensor_that_came_from_a_file_leaves_memory_and_comes_back(tmp_path: Path) -> None:
    values = torch.arange(1 << 20, dtype=torch.float32)
    save_file({"weight": values}, tmp_path / "weights")
    tensor = load_file(tmp_path / "weights")["weight"]
    assert torch.equal(tensor, values)
    before = resident_of_file(tmp_path / "weights")
    device.page_out(tensor)
    assert before > 4000
    assert resident_of_file(tmp_path / "weights") < before // 2
    assert torch.equal(tensor, values)


def test_a_tensor_that_came_from_no_file_keeps_its_values() -> None:
    tensor = torch.arange(1 << 20, dtype=torch.float32)
    device.page_out(tensor)
    device.page_out(tensor[:3])
    assert torch.equal(tensor, torch.arange(1 << 20, dtype=torch.float32))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused_where_it_was_asked_for() -> None:
    runtime = Runtime(
        device="cuda",
        threads=0,
        generation_batch_size=0,
        engine="local",
        address=None,
        gpus_per_unit=1.0,
        checkpoints=None,
    )
    with pytest.raises(StageError, match=r"params\.yaml: runtime.device: cuda, which"):
        choose_device(runtime)
    with pytest.raises(StageError, match="--device: cuda, which"):
        choose_device(runtime, asked_in="--device")


@pytest.mark.parametrize(
    ("amx", "avx512", "vendor", "expected"),
    [
        (True, True, "GenuineIntel", torch.bfloat16),
        (False, True, "AuthenticAMD", torch.bfloat16),
        (False, True, "GenuineIntel", torch.float32),  # where it is no faster than float32
        (False, False, "AuthenticAMD", torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_multiplies_it_faster(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, vendor: str, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(device, "_processor", lambda: f"vendor_id : {vendor}")
    assert device.arithmetic("auto", torch.device("cpu")) is expected
    assert device.arithmetic("bfloat16", torch.device("cpu")) is torch.bfloat16


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
    assert free_memory(torch.device("cuda")) == expected
    assert free_memory(torch.device("cuda", 0)) == expected
