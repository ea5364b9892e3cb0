"""Trials on a real Ray cluster of three nodes: the same bytes as here, a GPU for each trial, and kills of everything.

A cluster takes minutes, so its tests wait to be asked for:
DIALOG_PROMPTING_CLUSTER_TESTS=1 pytest -n 0 tests/train/test_ray.py
"""

import importlib.util
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest

from stages.plumbing.cluster import explained
from tests.stage_runs import Run, contents, fails, finish, refusal, start
from tests.tiny import command, tiny_project
from tests.train.cluster import Cluster, wait_for
from tests.training_runs import result, workspace, write_subset

if importlib.util.find_spec("ray") is None:
    pytest.skip("Ray is not installed (the extra `ray`; not every platform has a wheel)", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)
SHORT = {
    "runtime.device": "auto",
    "protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": 2},
    "protocols.tiny.training.num_train_epochs": 2,
}
TRIALS = 5  # on three GPUs: two of them wait, so that there is work left to kill
LONG = {**SHORT, "method": "fine-tune"} | {
    "protocols.tiny.training.learning_rates": {"low": 0.001, "high": 0.01, "trials": TRIALS},
    "protocols.tiny.training.num_train_epochs": 50,
    "protocols.tiny.training.early_stopping_patience": 50,
}
ALL = os.environ.get("DIALOG_PROMPTING_CLUSTER_TESTS") == "1"
GRID = [
    (method, dialogues, seed) for method in ("fine-tune", "soft", "dynamic") for dialogues in (8, 16) for seed in (0, 1)
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if not ALL:
        pytest.skip("minutes: DIALOG_PROMPTING_CLUSTER_TESTS=1")
    # A short name: those of Ray's sockets, which are below it, must not be longer than 107 bytes.
    with TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder))
        try:
            made.start(0, 1, 2)
            yield made
        finally:
            made.kill(0, 1, 2)


def on_ray(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    return {**changes, "runtime.engine": "ray", "runtime.address": cluster.address}


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


def test_the_grid_gives_the_bytes_that_it_gives_here_and_each_trial_has_a_gpu_of_its_own(
    cluster: Cluster, tmp_path: Path
) -> None:
    runs = {}
    for method, dialogues, seed in GRID:
        name, changes = f"{method}-{dialogues}-{seed}", {**SHORT, "method": method, "seed": seed}
        here, there = tmp_path / "here" / name, tmp_path / "there" / name
        workspace(here, **changes)
        workspace(there, **on_ray(cluster, **changes))
        for folder in (here, there):
            write_subset(folder / "data/subset", dialogues)
        runs[here, there] = submit(cluster, there)
    for here, _ in runs:
        finish(here, "train")
    trials = []
    for (here, there), run in runs.items():
        code, printed = run.wait()
        assert code == 0, printed
        assert result(there) == result(here)
        trials += placed(printed)
    here, there = next(iter(runs))  # and decoding, with what was trained
    answers = [start(folder, "greedy-generate", None, **cluster.variables) for folder in (here, there)]
    for run in answers:
        code, printed = run.wait()
        assert code == 0, printed
    assert re.search(r"greedy-generate: on node 127\.0\.0\.[234], GPU 0", printed)
    assert contents(there / "data/greedy_generate") == contents(here / "data/greedy_generate")
    assert len(trials) == 2 * len(GRID)
    assert {gpu for _, _, gpu in trials} == {"0"}
    assert {node for _, node, _ in trials} == {"127.0.0.2", "127.0.0.3", "127.0.0.4"}


def test_whatever_stops_it_it_ends_with_the_same_bytes_and_trains_no_finished_trial_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    plain, kept = workspace(tmp_path / "plain", **LONG), tmp_path / "kept"
    folder = workspace(tmp_path / "stopped", **on_ray(cluster, **LONG, **{"runtime.checkpoints": str(kept)}))
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
    code, printed = submit(cluster, folder).wait()
    assert code == 0, printed
    assert len(placed(printed)) == TRIALS - len(second)
    assert json.loads((folder / "metrics/cost/train.json").read_bytes())["stopped"], "none went on from a checkpoint"
    assert undisturbed.wait()[0] == 0
    assert result(folder) == result(plain)


def test_a_grid_runs_its_experiments_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    project = tiny_project(tmp_path / "project")
    words = ["--models", "tiny-gpt2", "--methods", "soft", "dynamic", "--regimes", "100", "-S", "runtime.engine=ray"]
    words += ["-S", f"runtime.address={cluster.address}", "-S", "runtime.device=auto", "-S", "runtime.threads=0"]
    done = command(project, "python", "-m", "stages.grid", *words, fails=False, **cluster.variables)
    assert "2 experiments: 2 done" in done.stdout
    logs = [*(project / ".state/grid/logs").glob("*/*.log")]
    assert len(logs) == 2
    for log in logs:
        printed = log.read_text("utf-8")
        assert re.search(r"trial 1: on node \S+, GPU 0", printed)
        assert re.search(r"greedy-generate: on node \S+, GPU 0", printed)


def test_what_this_project_starts_by_itself_listens_on_loopback_alone(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "alone", **{**SHORT, "runtime.engine": "ray", "runtime.device": "cpu"})
    run = start(folder, "train")
    log = run.log
    wait_for(lambda: not run.running() or "trial 0: on" in log.read_text("utf-8"), 300)
    mine = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    listening = {
        each.laddr.ip.removeprefix("::ffff:")
        for process in mine
        for each in connections(process)
        if each.status == "LISTEN"
    }

    code, printed = run.wait()
    assert code == 0, printed
    assert listening == {"127.0.0.1"}
    assert not [process for process in mine if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def connections(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections("inet"))
    except psutil.Error:
        return []


def without_ray() -> None:
    import sys

    sys.modules["ray"] = None  # type: ignore[assignment]


def test_without_ray_the_engine_is_refused_and_the_local_one_never_asks_for_it(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "none", **{**SHORT, "runtime.engine": "ray"})
    assert "runtime.engine: Ray is not installed in" in fails(folder, "train", without_ray)
    local = workspace(tmp_path / "local", **SHORT)
    code, printed = start(local, "train", without_ray).wait()
    assert code == 0, printed


REFUSED: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({"runtime.address": "127.0.0.2:9"}, {}, "no node of a cluster at 127.0.0.2:9 runs on this machine"),
    ({"runtime.threads": 64}, {}, "runtime: a task needs 1 GPU and 64 CPUs, and none of 3 nodes has them"),
    ({"runtime.device": "cuda"}, {}, "runtime.device: cuda, which this machine does not have"),
    # Ray tries for half a minute.
    *[({}, {"RAY_AUTH_TOKEN_PATH": os.devnull, "RAY_AUTH_TOKEN": "0" * 64}, "no cluster that lets us in at")] * ALL,
]


def test_what_the_cluster_cannot_do_and_whom_it_does_not_let_in_is_one_line(cluster: Cluster, tmp_path: Path) -> None:
    runs = []
    for number, (changes, variables, message) in enumerate(REFUSED):
        folder = workspace(tmp_path / str(number), **{**on_ray(cluster, **SHORT), **changes})
        runs.append((start(folder, "train", None, **{**cluster.variables, **variables}), message))
    for line, message in [(refusal(run, "train"), message) for run, message in runs]:
        assert message in line


def test_another_version_there_is_told() -> None:
    error = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7\n")
    key, found, remedy = explained("head:6379", error)
    assert (key, "Ray: 2.50.0" in found, "\n" in found) == ("params.yaml: runtime.address", True, False)
    assert "same versions" in remedy
