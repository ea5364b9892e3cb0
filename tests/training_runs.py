"""The real `python -m stages.train` on a tiny model and a dozen dialogues, run, killed and compared."""

import hashlib
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.core.files import output_folder
from stages.core.records import Dialogue, Pair, write_records
from tests.tiny import ROOT, tiny_dialogues, tiny_model

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["stages.train"])
WORDS = (
    "--subset data/subset --model data/download/model --trained data/train --curves metrics/curves.json "
    "--learning-rates metrics/learning_rates.json --summary metrics/train.json"
)
PROTOCOL = {
    "data": {"train_dialogues": None, "validation_pairs": None, "test_pairs": None},
    "lengths": {"query_tokens": 24, "response_tokens": 12},
    "decoding_precision": "float32",
    "training": {
        "learning_rates": {"low": 0.001, "high": 0.01, "trials": 3},
        "batch_size": 4,
        "max_epochs": 4,
        "patience": 2,
        "weight_decay": 0.01,
        "warmup_steps": 2,
        "gradient_clip": 1.0,
        "dropout": 0.1,
        "precision": "float32",
    },
}


def write_subset(folder: Path, dialogues: int = 16) -> None:
    with output_folder(folder) as made:
        for seed, split in enumerate(("train", "validation", "test")):
            turns = tiny_dialogues(dialogues if split == "train" else 6, seed)
            pairs = [
                Pair(f"{split}-{number}", position, own[position], own[position + 1])
                for number, own in enumerate(turns)
                for position in range(0, len(own) - 1, 2)
            ]
            write_records(made / f"{split}.jsonl", pairs)
        write_records(
            made / "turns.jsonl", [Dialogue(f"train-{n}", t) for n, t in enumerate(tiny_dialogues(dialogues))]
        )


def workspace(folder: Path, **changes: Any) -> Path:
    """A folder with params.yaml, data/subset and data/download/model, ready to train; `changes` as dotted keys."""
    folder.mkdir(parents=True, exist_ok=True)
    params = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["protocols"]["tiny"] = PROTOCOL
    params |= {"protocol": "tiny", "runtime": {"device": "cpu", "threads": 1, "decode_rows": 0}}
    for key, value in changes.items():
        place = params
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        place[last] = value
    YAML().dump(params, folder / "params.yaml")
    write_subset(folder / "data/subset")
    with output_folder(folder / "data/download/model") as model:
        tiny_model(model)
    return folder


class Run:
    """A stage that was started, in a process group of its own."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        self.process = SERVER.Process(target=_run, args=(str(folder), str(self.log), {**os.environ, **variables}))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """To the process group, as a terminal's Ctrl-C or `kill -9 -- -PID`."""
        os.killpg(self.pid, number)

    def running(self) -> bool:
        return self.process.is_alive()

    def wait(self) -> tuple[int, str]:
        """Exit code (negative: the signal) and everything that it printed."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode, self.log.read_text()


def _run(folder: str, log: str, variables: dict[str, str]) -> None:
    """`python -m stages.train` in a fork of a process that has the libraries loaded: seconds less for each run."""
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the fork server ignores it
    sys.argv = ["stages.train", *WORDS.split()]
    runpy.run_module("stages.train", run_name="__main__")


def start(folder: Path, **variables: str) -> Run:
    run = Run(folder, variables)
    while not run.log.exists():  # from here on it has a process group of its own
        time.sleep(0.005)
    return run


def finish(folder: Path, **variables: str) -> str:
    """Run to the end; what it printed."""
    code, printed = start(folder, **variables).wait()
    assert code == 0, printed
    return printed


def kill_when(folder: Path, ready: Callable[[Path], bool], number: int = signal.SIGKILL) -> tuple[int, str]:
    """Start, send a signal to the process group as soon as `ready`, and return the exit code and what it printed."""
    run = start(folder)
    while run.running() and not ready(folder):
        time.sleep(0.002)
    assert run.running(), f"ended before it could be killed: {run.wait()[1]}"
    run.signal(number)
    return run.wait()


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob(".state/train/*/checkpoints/[0-9]*"))


def result(folder: Path) -> dict[str, str]:
    """sha256 of every artifact of the stage."""
    paths = [*(folder / "data/train").rglob("*"), *(folder / "metrics").rglob("*")]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file()
    }
