"""What each method costs: parameters, bytes, time and memory, as the stages train and greedy-generate measured them."""

from collections.abc import Sequence
from typing import Any

from stages.report.lines import FIRST, LAST, lines_of, mean
from stages.report.markdown import NONE, plain, table
from stages.report.runs import Run
from stages.report.settings import Setting

GIB, MIB = 2**30, 2**20
NOT_MEASURED = "not measured"
# For each column: the file in metrics/cost, its key, what the number is divided by, how it is written.
COLUMNS: dict[str, tuple[str, str, int, str]] = {
    "trained parameters": ("train", "trained_parameters", 1, ",.0f"),
    "MiB on disk": ("train", "bytes", MIB, ",.1f"),
    "training, s": ("train", "seconds", 1, ",.1f"),
    "validation, s": ("train", "validation_seconds", 1, ",.1f"),
    "pairs/s": ("train", "pairs_per_second", 1, ".1f"),
    "peak memory, GiB": ("train", "peak_memory_bytes", GIB, ".2f"),
    "on the GPU": ("train", "peak_gpu_bytes", GIB, ".2f"),
    "decoding, responses/s": ("greedy_generate", "responses_per_second", 1, ".1f"),
    "its peak memory, GiB": ("greedy_generate", "peak_memory_bytes", GIB, ".2f"),
    "its on the GPU": ("greedy_generate", "peak_gpu_bytes", GIB, ".2f"),
}


def cost_of(run: Run, stage: str) -> dict[str, Any] | None:
    """What a stage (`train` or `greedy_generate`) measured about itself; None if that is not available."""
    found: dict[str, Any] | None = run.files.json(f"metrics/cost/{stage}.json")
    return found


def device_of(run: Run) -> str | None:
    """Where a run decoded, as its metrics/scores.json says; None if it does not, or if it is not in DVC's cache."""
    generation = (run.files.json("metrics/scores.json") or {}).get("generation") or {}
    device: str | None = generation.get("device")
    return device


def usual_device(runs: Sequence[Run]) -> str | None:
    """The device that most runs ran on; times are means of those alone, since a GPU and a CPU have no mean."""
    devices = [device for run in runs if (device := device_of(run)) is not None]
    return max(devices, key=devices.count, default=None)


def mean_cost(runs: Sequence[Run], stage: str, key: str) -> float | None:
    """The mean over runs of one number; None if no run has it."""
    return mean([(cost_of(run, stage) or {}).get(key) for run in runs])


def cost_table(setting: Setting) -> str:
    """The means over seeds; `not measured` if no run has the file, a dash if the file has no such number."""
    rows = []
    for line in lines_of(setting, baselines=False):
        device = usual_device(line.runs)
        counted = [run for run in line.runs if device_of(run) == device]
        measured = {stage: any(cost_of(run, stage) for run in counted) for stage in ("train", "greedy_generate")}
        part = f", {len(counted)} of {len(line.runs)} seeds" if len(counted) < len(line.runs) else ""
        cells = [f"{plain(device or NONE)}{part}"]
        for stage, key, unit, form in COLUMNS.values():
            found = mean_cost(counted, stage, key)
            cells.append(f"{found / unit:{form}}" if found is not None else NONE if measured[stage] else NOT_MEASURED)
        stops = sum((cost_of(run, "train") or {}).get("stopped", 0) for run in line.runs)
        rows.append([*line.words, *cells, str(stops) if measured["train"] else NOT_MEASURED, line.link])
    return table([*FIRST, "device", *COLUMNS, "stops", LAST], rows, left=len(FIRST) + 1)
