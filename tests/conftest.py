"""Settings for every test: one thread, no connection to other machines, none of the user's own settings."""

import gc
import os
from pathlib import Path

from tests.scratch import RUN

# This must come before torch and huggingface_hub are imported, because they read their variables at import.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HOME=RUN.name,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TRANSFORMERS_VERBOSITY="error",
    DVC_NO_ANALYTICS="1",
    DVC_SITE_CACHE_DIR=f"{RUN.name}/dvc",
    DVC_GLOBAL_CONFIG_DIR=f"{RUN.name}/dvc-config",
    DVC_SYSTEM_CONFIG_DIR=f"{RUN.name}/dvc-config",
    GIT_CONFIG_GLOBAL=os.devnull,
    GIT_CONFIG_NOSYSTEM="1",
    RAY_worker_niceness="0",  # Ray's own default leaves its workers what other tests do not want: next to nothing
)
for _name in ("DIALOG_PROMPTING_STATE", "DIALOG_PROMPTING_DEBUG", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_DISABLE_XET"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402

gc.disable()  # until all is imported
# The test files that take longest, the longest first, so that all workers end at about the same time.
LONGEST = (
    "faults/test_dvc.py", "grid/test_grid.py", "export/test_export.py", "faults/test_starved.py",
    "language_model/test_families.py", "chat/test_web.py", "faults/test_killed.py", "faults/test_whole_pipeline.py",
    "report/test_report.py", "train/test_train.py", "test_sharing.py", "train/test_ray_search.py",
    "methods/test_decoding.py", "train/test_trial.py", "test_overlap.py", "train/test_ray.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; --no-loadscope-reorder in pyproject.toml keeps it so in parallel."""
    here = Path(__file__).parent
    place = {here / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later collection of garbage, which takes 0.2 s with it."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: one more than there are cores, since tests of the pipeline often wait for other processes."""
    return (os.cpu_count() or 1) + 1


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    RUN.cleanup()


@pytest.fixture
def hub_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests with their own hub server on loopback: huggingface_hub may connect, here and in subprocesses."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
