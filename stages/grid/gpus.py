"""The GPUs of this machine: which job of a grid sees which."""

import os
import shutil
import subprocess

VISIBLE = "CUDA_VISIBLE_DEVICES"


def gpus_here() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name: what it names already, else every GPU that NVIDIA's driver knows, by UUID."""
    if VISIBLE in os.environ:
        return [each.strip() for each in os.environ[VISIBLE].split(",") if each.strip()]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else []


def gpu_of_job(number: int, jobs: int) -> dict[str, str]:
    """The environment of job `number` of `jobs`: one GPU of its own, as long as there are enough, else a shared one.

    A single job sees them all, as without a grid.
    """
    gpus = gpus_here() if jobs > 1 else []
    return {VISIBLE: gpus[number % len(gpus)]} if gpus else {}
