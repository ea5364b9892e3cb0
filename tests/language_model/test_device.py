"""Which device computes, in which precision; what each task gets of a cluster, and what no node has is refused."""

import re
from typing import Any

import pytest
import torch

from stages.language_model import device
from stages.language_model.device import Share, share_of
from stages.params.schema import Runtime
from stages.plumbing.errors import StageError
from tests.tiny import ROOT


def runtime(**changes: Any) -> Runtime:
    plain: dict[str, Any] = {
        "device": "auto", "threads": 0, "generation_batch_size": 0, "engine": "ray", "address": None,
        "gpus_per_trial": 1.0, "checkpoints": None,
    }  # fmt: skip
    return Runtime(**{**plain, **changes})


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


def nodes(*resources: dict[str, float], dead: int = 0) -> list[dict[str, Any]]:
    gone = [{"Alive": False, "Resources": {"CPU": 999.0, "GPU": 8.0}}] * dead
    return [*gone, *({"Alive": True, "Resources": each} for each in resources)]


SERVER = {"CPU": 64.0, "GPU": 8.0}
NARROW = {"CPU": 8.0, "GPU": 8.0}  # a CPU for each of its GPUs
NO_CPUS = {"GPU": 8.0}  # ray start --num-cpus=0
LAPTOP = {"CPU": 8.0}
BIG = {"CPU": 64.0}


@pytest.mark.parametrize(
    ("changes", "there", "tasks", "expected"),
    [
        ({}, [SERVER, LAPTOP], 12, Share(1.0, 0)),
        ({"gpus_per_trial": 0.5}, [NARROW], 16, Share(0.5, 0)),
        ({"threads": 2}, [SERVER], 12, Share(1.0, 2)),
        ({}, [NO_CPUS, LAPTOP], 12, Share(1.0, 0)),
        ({"device": "cpu"}, [SERVER], 4, Share(0.0, 16)),
        ({}, [LAPTOP], 12, Share(0.0, 1)),
        ({}, [BIG, LAPTOP, LAPTOP, LAPTOP], 11, Share(0.0, 8)),
    ],
)
def test_the_share_of_a_task(
    changes: dict[str, Any], there: list[dict[str, float]], tasks: int, expected: Share
) -> None:
    share = share_of(runtime(**changes), nodes(*there), tasks)
    assert share == expected
    assert any(share.gpus <= node.get("GPU", 0) and share.cpus <= node.get("CPU", 0) for node in there)


@pytest.mark.parametrize(
    ("changes", "there", "message"),
    [
        ({"device": "cuda"}, [LAPTOP], "a task needs 1 GPU and 0 CPUs, and none of 1 nodes has them"),
        # The threads of one node and the GPU of another are no task's.
        ({"threads": 16}, [NARROW, BIG], "a task needs 1 GPU and 16 CPUs, and none of 2 nodes has them"),
        ({}, [{}], "a task needs 1 CPUs, and none of 1 nodes has them"),
    ],
)
def test_what_no_node_has_is_refused(changes: dict[str, Any], there: list[dict[str, float]], message: str) -> None:
    with pytest.raises(StageError, match=message):
        share_of(runtime(**changes), nodes(*there, dead=1), 1)


def test_a_share_of_a_gpu_is_a_share_of_its_memory_and_a_whole_one_all(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", limits.append)
    shares = [Share(gpus, 3) for gpus in (0.0, 0.5, 1.0)]
    assert [share.taken(runtime(), "a task").threads for share in shares] == [3, 3, 3]
    assert limits == [0.5]


def test_no_device_is_asked_for_float64_which_apple_s_gpus_do_not_have() -> None:
    """What becomes float64 was brought to the CPU first, or is made there."""
    asks = r"(?<!\.cpu\(\))\.double\(\)|to\(torch\.(float64|double)|device=.*torch\.float64|torch\.float64.*device="
    for path in (ROOT / "stages").rglob("*.py"):
        assert not re.search(asks, path.read_text(encoding="utf-8")), path
