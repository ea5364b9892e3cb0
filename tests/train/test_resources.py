"""What a unit gets of a cluster, and what is refused before Ray would wait for it for ever."""

from typing import Any

import pytest

from stages.params.schema import Runtime
from stages.plumbing.errors import StageError
from stages.train.resources import Share, share_of


def runtime(**changes: Any) -> Runtime:
    plain: dict[str, Any] = {
        "device": "auto", "threads": 0, "decode_rows": 0, "engine": "ray", "address": None, "gpus_per_unit": 1.0,
        "checkpoints": None,
    }  # fmt: skip
    return Runtime(**{**plain, **changes})


def nodes(*resources: dict[str, float], dead: int = 0) -> list[dict[str, Any]]:
    gone = [{"Alive": False, "Resources": {"CPU": 999.0, "GPU": 8.0}}] * dead
    return [*gone, *({"Alive": True, "Resources": each} for each in resources)]


SERVER = {"CPU": 64.0, "GPU": 8.0}
LAPTOP = {"CPU": 8.0}


@pytest.mark.parametrize(
    ("changes", "there", "units", "expected"),
    [
        ({}, [SERVER], 12, Share(1.0, 8)),
        ({}, [SERVER, LAPTOP], 12, Share(1.0, 8)),
        ({"gpus_per_unit": 0.5}, [SERVER], 12, Share(0.5, 4)),
        ({"threads": 2}, [SERVER], 12, Share(1.0, 2)),
        ({"device": "cpu"}, [SERVER], 4, Share(0.0, 16)),
        ({}, [LAPTOP], 12, Share(0.0, 1)),
        ({}, [LAPTOP], 1, Share(0.0, 8)),
        ({}, [LAPTOP, LAPTOP], 4, Share(0.0, 4)),
        ({"threads": 2}, [LAPTOP], 1, Share(0.0, 2)),
    ],
)
def test_a_unit_gets_one_gpu_or_its_part_of_the_threads(
    changes: dict[str, Any], there: list[dict[str, float]], units: int, expected: Share
) -> None:
    assert share_of(runtime(**changes), nodes(*there), units) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "cuda"}, r"runtime\.device: cuda, and none of 1 nodes has 1 GPU"),
        ({"threads": 9}, r"runtime\.threads: 9, and the largest of 1 nodes has 8"),
    ],
)
def test_what_no_node_has_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StageError, match=message):
        share_of(runtime(**changes), nodes(LAPTOP, dead=1), 1)
