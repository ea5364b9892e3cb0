"""What a unit gets of a cluster, and what is refused before Ray would wait for it for ever."""

from typing import Any

import pytest

from stages.language_model.resources import Share, share_of
from stages.params.schema import Runtime
from stages.plumbing.errors import StageError


def runtime(**changes: Any) -> Runtime:
    plain: dict[str, Any] = {
        "device": "auto", "threads": 0, "generation_batch_size": 0, "engine": "ray", "address": None,
        "gpus_per_unit": 1.0, "checkpoints": None,
    }  # fmt: skip
    return Runtime(**{**plain, **changes})


def nodes(*resources: dict[str, float], dead: int = 0) -> list[dict[str, Any]]:
    gone = [{"Alive": False, "Resources": {"CPU": 999.0, "GPU": 8.0}}] * dead
    return [*gone, *({"Alive": True, "Resources": each} for each in resources)]


SERVER = {"CPU": 64.0, "GPU": 8.0}
NARROW = {"CPU": 8.0, "GPU": 8.0}  # a CPU for each of its GPUs
WIDE = {"CPU": 64.0, "GPU": 1.0}
NO_CPUS = {"GPU": 8.0}  # ray start --num-cpus=0
LAPTOP = {"CPU": 8.0}
BIG = {"CPU": 64.0}


@pytest.mark.parametrize(
    ("changes", "there", "units", "expected"),
    [
        ({}, [SERVER], 12, Share(1.0, 8, 8)),
        ({}, [SERVER, LAPTOP], 12, Share(1.0, 8, 8)),
        ({"gpus_per_unit": 0.5}, [SERVER], 12, Share(0.5, 4, 4)),
        ({"threads": 2}, [SERVER], 12, Share(1.0, 2, 2)),
        ({"device": "cpu"}, [SERVER], 4, Share(0.0, 16, 16)),
        ({}, [NARROW, WIDE], 12, Share(1.0, 1, 1)),
        ({"gpus_per_unit": 0.5}, [NARROW], 16, Share(0.5, 0.5, 1)),
        ({"gpus_per_unit": 0.1}, [{"CPU": 1.0, "GPU": 1.0}], 10, Share(0.1, 0.1, 1)),
        ({"gpus_per_unit": 0.3}, [{"CPU": 1.0, "GPU": 1.0}], 3, Share(0.3, 0.3333, 1)),
        ({}, [NO_CPUS, LAPTOP], 12, Share(1.0, 0.0, 1)),
        ({"threads": 16}, [NARROW, WIDE], 12, Share(1.0, 16, 16)),
        ({}, [LAPTOP], 12, Share(0.0, 1, 1)),
        ({}, [LAPTOP], 1, Share(0.0, 8, 8)),
        ({}, [LAPTOP, LAPTOP], 4, Share(0.0, 4, 4)),
        ({"threads": 2}, [LAPTOP], 1, Share(0.0, 2, 2)),
        ({}, [BIG, LAPTOP, LAPTOP, LAPTOP], 4, Share(0.0, 16, 16)),
        ({}, [BIG, LAPTOP, LAPTOP, LAPTOP], 11, Share(0.0, 8, 8)),
        ({}, [BIG, {}], 2, Share(0.0, 32, 32)),
    ],
)
def test_a_unit_gets_one_gpu_or_its_part_of_the_threads(
    changes: dict[str, Any], there: list[dict[str, float]], units: int, expected: Share
) -> None:
    share = share_of(runtime(**changes), nodes(*there), units)
    assert share == expected
    assert any(share.gpus <= node.get("GPU", 0) and share.cpus <= node.get("CPU", 0) for node in there)


@pytest.mark.parametrize(
    ("changes", "there", "message"),
    [
        ({"device": "cuda"}, [LAPTOP], r"runtime\.device: cuda, and none of 1 nodes has 1 GPU"),
        ({"threads": 9}, [LAPTOP], r"runtime\.threads: 9, and the largest of 1 nodes has 8"),
        # The threads of one node and the GPU of another are no unit's.
        ({"threads": 16}, [NARROW, BIG], r"runtime\.threads: 16, and the largest of 1 nodes with a GPU has 8"),
        ({"threads": 1}, [NO_CPUS, BIG], r"runtime\.threads: 1, and the largest of 1 nodes with a GPU has 0"),
        ({}, [{}], r"runtime\.address: none of the cluster's 1 nodes has a CPU or a GPU"),
    ],
)
def test_what_no_node_has_is_refused(changes: dict[str, Any], there: list[dict[str, float]], message: str) -> None:
    with pytest.raises(StageError, match=message):
        share_of(runtime(**changes), nodes(*there, dead=1), 1)


def test_a_share_of_a_gpu_is_a_share_of_its_memory_and_a_whole_one_is_not_limited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[float] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.set_per_process_memory_fraction", limits.append)
    assert [Share(gpus, 1, 3).taken(runtime()).threads for gpus in (0.0, 0.5, 1.0)] == [3, 3, 3]
    assert limits == [0.5]
