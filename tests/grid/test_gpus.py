"""Jobs of a grid on one machine: each sees a GPU of its own."""

import os
from pathlib import Path

import pytest

from stages.grid.gpus import gpu_of_job, gpus_here


@pytest.fixture
def four_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nfor i in a b c d; do echo GPU-$i; done\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("four_gpus")
def test_no_two_jobs_see_the_same_gpu_while_there_are_enough() -> None:
    seen = [gpu_of_job(number, 4) for number in range(4)]
    assert seen == [{"CUDA_VISIBLE_DEVICES": f"GPU-{each}"} for each in "abcd"]
    assert gpu_of_job(5, 8) == {"CUDA_VISIBLE_DEVICES": "GPU-b"}


@pytest.mark.usefixtures("four_gpus")
def test_one_job_sees_what_it_saw_without_a_grid() -> None:
    assert gpu_of_job(0, 1) == {}


@pytest.mark.usefixtures("four_gpus")
def test_only_gpus_that_the_grid_itself_may_see_are_given_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert [gpu_of_job(number, 3)["CUDA_VISIBLE_DEVICES"] for number in range(3)] == ["2", "3", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_of_job(0, 2) == {}


def test_without_nvidia_s_driver_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_here() == []
