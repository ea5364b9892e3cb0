"""Trials on a real Ray cluster of three nodes: the same bytes as here, and kills of everything.

A cluster takes minutes, so its tests wait to be asked for:
DIALOG_PROMPTING_CLUSTER_TESTS=1 pytest -n 0 tests/train/test_ray.py
"""

import importlib.util
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from tests.stage_runs import Run, contents, finish, start, wait_for
from tests.train.cluster import Cluster
from tests.training_runs import result, workspace

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed (the extra `ray`; not every platform has a wheel)", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)
TRIALS = 5  # on three GPUs: two of them wait, so that there is work left to kill
LONG = {
    "runtime.device": "auto",
    "method": "fine-tune",
    "protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": TRIALS},
    "protocols.tiny.training.num_train_epochs": 50,
    "protocols.tiny.training.early_stopping_patience": 50,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if os.environ.get("DIALOG_PROMPTING_CLUSTER_TESTS") != "1":
        pytest.skip("minutes: DIALOG_PROMPTING_CLUSTER_TESTS=1")
    # A short name: those of Ray's sockets, which are below it, must not be longer than 107 bytes.
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder))
        try:
            made.start(0, 1, 2)
            yield made
        finally:
            made.kill(0, 1, 2)


def submit(cluster: Cluster, folder: Path) -> Run:
    return start(folder, "train", None, **cluster.variables)


def done_in(kept: Path) -> set[float]:
    """The learning rates of the trials that are over."""
    found = kept.glob("*/result/manifest.json")
    return {json.loads(path.read_bytes())["trial"]["learning_rate"] for path in found}


def placed(printed: str) -> list[tuple[str, str, str]]:
    """Of each trial that a node began to train, or went on with: its number, the node and the GPU."""
    return re.findall(r"trial (\d+): on node (\S+), GPU (\S+)", printed)


def in_the_middle(kept: Path) -> int:
    """How many trials have checkpoints of their third epoch or a later one: only the newest are there."""
    found = [path.parent for path in kept.glob("*/checkpoints/[0-9]*/manifest.json")]
    return len({path.parents[1] for path in found if int(path.name.partition("-")[0]) >= 3})


def at_work(run: Run) -> bool:
    """Whether a trial has begun."""
    return bool(placed(run.log.read_text("utf-8")))


def test_whatever_stops_it_it_ends_with_the_same_bytes_and_repeats_no_trial(cluster: Cluster, tmp_path: Path) -> None:
    plain, kept = workspace(tmp_path / "plain", **LONG), tmp_path / "kept"
    on_ray = {"runtime.engine": "ray", "runtime.address": cluster.address, "runtime.checkpoints": str(kept)}
    folder = workspace(tmp_path / "stopped", **LONG, **on_ray)
    undisturbed, run = start(plain, "train"), submit(cluster, folder)
    wait_for(lambda: in_the_middle(kept) == 3, 200)
    cluster.workers(1)[0].kill()  # a process of a trial,
    cluster.kill(2)  # a node, never the head,
    wait_for(lambda: done_in(kept) or not run.running(), 200)
    run.signal(signal.SIGKILL)  # the driver,
    run.wait()
    first = done_in(kept)
    wait_for(lambda: not cluster.workers())
    run = submit(cluster, folder)
    cluster.start(2)
    wait_for(lambda: at_work(run) or not run.running())
    cluster.kill(0, 1, 2)  # the whole cluster,
    run.signal(signal.SIGKILL)
    _, printed = run.wait()
    assert len(placed(printed)) <= TRIALS - len(first)
    cluster.start(0, 1, 2)
    run = submit(cluster, folder)
    wait_for(lambda: at_work(run) or not run.running())
    run.signal(signal.SIGINT)  # and a Ctrl-C, after which nothing is at work
    code, printed = run.wait()
    assert code == 130, printed
    assert "Traceback" not in printed
    wait_for(lambda: not cluster.workers())
    second = done_in(kept)
    assert len(placed(finish(folder, "train", None, **cluster.variables))) == TRIALS - len(second)
    assert json.loads((folder / "metrics/cost/train.json").read_bytes())["stopped"], "none went on from a checkpoint"
    assert undisturbed.wait()[0] == 0
    assert result(folder) == result(plain)
    for each in (plain, folder):  # and decoding, with what was trained
        printed = finish(each, "greedy-generate", None, **cluster.variables)
    assert re.search(r"greedy-generate: on node 127\.0\.0\.[234], GPU 0", printed)
    assert contents(folder / "data/greedy_generate") == contents(plain / "data/greedy_generate")


def test_what_this_project_starts_by_itself_listens_on_loopback_alone(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "alone", method="zero-shot", **{"runtime.engine": "ray"})
    run = start(folder, "train")
    log = run.log
    wait_for(lambda: not run.running() or "trial 0: on" in log.read_text("utf-8"), 300)
    mine = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    listening = set()
    for process in mine:
        with suppress(psutil.Error):
            found = [each for each in process.net_connections("inet") if each.status == "LISTEN"]
            listening |= {each.laddr.ip.removeprefix("::ffff:") for each in found}
    code, printed = run.wait()
    assert code == 0, printed
    assert listening == {"127.0.0.1"}
    assert not [process for process in mine if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
