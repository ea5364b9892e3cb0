"""Row f of the benchmark: what the engine `ray` costs against `local`, and how it fills few and many slots."""

import multiprocessing
import os
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from stages.bench import sleeping
from stages.bench.data import LENGTHS
from stages.language_model.device import library_versions
from stages.language_model.resources import Share
from stages.params.schema import PARAMS_FILE, Params, parse_params
from stages.plumbing.cluster import ADDRESS, cluster
from stages.plumbing.files import MANIFEST, STATE_VARIABLE, output_folder
from stages.plumbing.yaml import parse_yaml
from stages.records import Pair, write_records
from stages.train.delivery import Order
from stages.train.engine import search
from stages.train.ray_worker import train_unit
from stages.train.unit import Work, read_work

UNITS = 8
PAIRS, VALIDATION_PAIRS = 8, 2  # so that a unit takes seconds: what the engine costs does not depend on it
SLOTS = {8: 10.0, 64: 10.0, 512: 10.0}  # of sleeping units: slots -> seconds of a unit
WAVES = 3
QUEUED = 10_000
STORE = 1_000_000_000  # bytes of the object store


def params_for(engine: str) -> Params:
    """`lora`, whose trials are units of their own, in a protocol for the benchmark."""
    value = parse_yaml(PARAMS_FILE.read_bytes(), PARAMS_FILE)
    training = {
        **value["protocols"]["paper"]["training"], "num_train_epochs": 1, "early_stopping_patience": 1,
        "dtype": "float32",
        "learning_rates": {"low": 1e-4, "high": 1e-3, "trials": UNITS},
    }  # fmt: skip
    value["protocols"]["bench"] = {
        **value["protocols"]["paper"], "lengths": LENGTHS.model_dump(), "decoding_dtype": "float32",
        "training": training,
    }  # fmt: skip
    value["models"][value["model"]]["prompt_template"] = {"separator": "<end-of-text>", "end": "<end-of-text>"}
    value["runtime"] |= {"device": "cpu", "threads": 1, "engine": engine, "address": None, "checkpoints": None}
    return parse_params({**value, "method": "lora", "protocol": "bench", "regime": 100})


@contextmanager
def inputs(model: Path, pairs: list[Pair]) -> Iterator[tuple[Path, Path]]:
    """Folders of a subset, with a few of the pairs, and of the model, as the stages give them."""
    with TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        write_subset(folder / "subset", pairs)
        with output_folder(folder / "model") as made:
            shutil.copytree(model, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
        yield folder / "subset", folder / "model"


def write_subset(folder: Path, pairs: list[Pair]) -> None:
    """A few pairs as the stage subset gives them."""
    parts = {"train": pairs[:PAIRS], "validation": pairs[PAIRS : PAIRS + VALIDATION_PAIRS]}
    with output_folder(folder) as made:
        for name, part in parts.items():
            write_records(made / f"{name}.jsonl", part)


def seconds_of(engine: str, subset: Path, model: Path) -> float:
    """How long a training takes, libraries loaded."""
    work = read_work(subset, model, params_for(engine))
    began = time.monotonic()
    search(work)
    return time.monotonic() - began


def _alone(function: Callable[..., Any], *words: Any) -> Any:
    """What a function gives in a process of its own, whose state and peak of memory are its own too."""
    spawn = multiprocessing.get_context("spawn")
    with TemporaryDirectory(prefix="bench-") as folder, ProcessPoolExecutor(1, spawn) as pool:
        os.environ[STATE_VARIABLE] = folder
        try:
            return pool.submit(function, *words).result()
        finally:
            del os.environ[STATE_VARIABLE]


def real_units(subset: Path, model: Path) -> list[dict[str, Any]]:
    """The time of a training of UNITS units with a thread each: by `local`, and by `ray` on one slot and on two."""
    local = _alone(seconds_of, "local", subset, model)
    lines = [{"engine": "local", "slots": 1, "units": UNITS, "seconds": local, "ideal": local}]
    for slots in (1, 2):
        with cluster(None, num_cpus=slots, object_store_memory=STORE) as ray:
            os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
            try:
                taken = _alone(seconds_of, "ray", subset, model)
            finally:
                del os.environ[ADDRESS]
        lines.append({"engine": "ray", "slots": slots, "units": UNITS, "seconds": taken, "ideal": local / slots})
    return lines


def sleeping_units() -> list[dict[str, Any]]:
    """The time of WAVES sleeping units for each slot; slots are processes up to PROCESSES, else threads."""
    lines = []
    for slots, seconds in SLOTS.items():
        threads = slots > sleeping.PROCESSES
        fill = sleeping.in_threads if threads else sleeping.in_processes
        with cluster(None, num_cpus=slots, object_store_memory=STORE) as ray:
            taken = fill(ray, slots, WAVES, seconds)
        units, ideal = slots * WAVES, seconds * WAVES
        lines.append({"slots": slots, "threads": threads, "units": units, "seconds": taken, "ideal": ideal})
    return lines


def queue(subset: Path, model: Path) -> dict[str, Any]:
    """Hand QUEUED units to Ray as the engine does, and look at the memory of this process and of Ray's own."""
    work: Work = read_work(subset, model, params_for("ray"))
    order = Order(
        work.params, [(0, 1e-4)], "f" * 24, work.data_hash, work.base_hash, work.prompt_template, work.code,
        library_versions(), Share(0.0, 1, 1),
    )  # fmt: skip
    told = pickle.dumps(order)
    with cluster(None, num_cpus=1, object_store_memory=STORE) as ray:
        ray.remote(train_unit)  # as in the engine, whose process has loaded all that a training needs
        here = psutil.Process()  # its peak would be that of the process that started it, if that was higher
        task, before, began = ray.remote(sleeping.sleep), _memory(here), time.monotonic()
        references = [task.remote(3600.0, told) for _ in range(QUEUED)]
        submitted = time.monotonic() - began
        highest = _memory(here)
        began = time.monotonic()
        ray.wait(references, num_returns=1, timeout=0)
        look = time.monotonic() - began
        for _ in range(20):  # until Ray has taken them in
            time.sleep(0.5)
            highest = max(highest, _memory(here))
        servers = sum(map(_memory, ray_servers()))
        return {
            "queued": QUEUED, "order_bytes": len(told), "submit_s": submitted, "look_s": look,
            "driver_before_bytes": before, "driver_peak_bytes": highest, "servers_bytes": servers,
        }  # fmt: skip


def ray_servers() -> list[psutil.Process]:
    """The processes of a head: the control service and the node's own."""
    below = psutil.Process().children(recursive=True)
    return [process for process in below if _name(process) in ("gcs_server", "raylet")]


def _name(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return str(process.name())
    return ""


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def engine_rows(model: Path, pairs: list[Pair]) -> dict[str, dict[str, Any]]:
    """Row f. pairs: more than PAIRS and VALIDATION_PAIRS."""
    os.environ.pop(ADDRESS, None)  # no other cluster than one of its own
    with inputs(model, pairs) as folders:
        real, queued = real_units(*folders), _alone(queue, *folders)
    return {"f": {"real": real, "sleeping": sleeping_units(), "queued": queued}}
