"""A pool of clones in which the configurations of a grid run, several at a time, and where each of them stands.

An experiment is done when its Git ref is there, and has failed when its command ended with another exit code than 0.

Why not `dvc queue`: after a SIGKILL of its workers (DVC 3.67) the tasks that ran say `Running` for ever and are never
taken up again. `dvc exp run --temp`, killed while it starts, leaves the workspace's changes in the stash. Of two `dvc
exp run` in two Git worktrees, which share their refs, one failed. So each job has a clone of its own (clones.py).
"""

import os
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from stages.grid.clones import SECONDS_BETWEEN_LOOKS, at_work, make_clones, start, stop
from stages.grid.configurations import Configuration
from stages.grid.experiments import experiment_ref, finished_experiments, git
from stages.params.schema import Runtime
from stages.plumbing.cluster import ADDRESS, cluster
from stages.plumbing.errors import StageError

LAST_LINES = 3  # of a log, for those who ask where an experiment stands


@dataclass(frozen=True)
class Standing:
    """Where an experiment stands: done, running, failed, stopped (by a kill) or waiting; and its log's last lines."""

    name: str
    state: str
    lines: Sequence[str] = ()


class Pool:
    """The experiments that start from one commit: their logs, and the clones that they run in."""

    def __init__(self, root: Path, state: Path, baseline: str) -> None:
        """root: the project; state: where clones, logs and the state of trainings are; baseline: the commit."""
        self.root, self.state, self.baseline = root, state, baseline
        self.clones, self.logs = state / "grid/clones", state / "grid/logs" / baseline

    def standing(self, names: Iterable[str] | None = None) -> list[Standing]:
        """Where the experiments of these names stand; None: all that a grid was asked for."""
        done, commands = finished_experiments(self.root, self.baseline), [words for _, words in at_work(self.clones)]
        found = []
        for name in sorted(log.stem for log in self.logs.glob("*.log")) if names is None else names:
            log, failed = self.logs / f"{name}.log", self.logs / f"{name}.failed"
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-LAST_LINES:]
            if name in done:
                found.append(Standing(name, "done"))
            elif any(name in words for words in commands):
                found.append(Standing(name, "running", lines))
            elif failed.exists():
                found.append(Standing(name, f"failed with exit code {failed.read_text(encoding='utf-8')}", lines))
            else:
                found.append(Standing(name, "stopped" if lines else "waiting", lines))
        return found

    def run(self, configurations: Sequence[Configuration], jobs: int) -> None:
        """Run what is not done yet, `jobs` at a time.

        Raises:
            StageError: a stage that all share failed, or an experiment did; the others were run all the same.
        """
        done = finished_experiments(self.root, self.baseline)
        waiting = sorted((each for each in configurations if each.name not in done), key=lambda each: each.regime)
        if at_work(self.clones):
            print("stopping what an earlier grid left at work", flush=True)
            stop(self.clones)
        self.logs.mkdir(parents=True, exist_ok=True)
        for each in waiting:
            (self.logs / f"{each.name}.log").touch()
            (self.logs / f"{each.name}.failed").unlink(missing_ok=True)
        try:
            clones = make_clones(self.root, self.clones, min(jobs, len(waiting)), self.baseline)
            self._run_shared_stages(waiting, clones)
            self._work(waiting, clones)
        finally:
            stop(self.clones)
            shutil.rmtree(self.clones, ignore_errors=True)
        found = self.standing(each.name for each in configurations)
        print(summary(found))
        if failed := [each.name for each in found if each.state != "done"]:
            remedy = f"their logs are in {self.logs}; the same command tries them again"
            raise StageError(f"{len(failed)} experiments", f"failed: {', '.join(failed)}", remedy)

    def _start(self, clone: Path, configuration: Configuration, *words: str) -> "subprocess.Popen[bytes]":
        log = self.logs / f"{configuration.name}.log"
        return start(clone, self.state, log, "exp", "run", *configuration.words, *words)

    def _run_shared_stages(self, waiting: Sequence[Configuration], clones: Sequence[Path]) -> None:
        """Run once what waiting configurations share, so that they find it in DVC's cache: no two run it at once."""
        models = {each.model: each for each in reversed(waiting)}
        subsets = {(each.regime, each.settings): each for each in reversed(waiting)}  # a seed is among the settings
        for each in dict.fromkeys([*models.values(), *subsets.values()]):
            print(f"stages that experiments share: {each.model}, {each.regime:g} %", flush=True)
            if self._start(clones[0], each, "subset").wait():
                lines = " ".join(self.standing([each.name])[0].lines)
                raise StageError(f"shared stages of {each.name}", lines, f"see the log in {self.logs}")

    def _work(self, waiting: Sequence[Configuration], clones: Sequence[Path]) -> None:
        """Run the configurations, one in each clone."""
        queue, free = list(waiting), list(clones)
        running: dict[subprocess.Popen[bytes], tuple[Configuration, Path]] = {}
        while queue or running:
            while queue and free:
                each, clone = queue.pop(0), free.pop()
                running[self._start(clone, each, "--name", each.name)] = each, clone
                print(f"started: {each.name}", flush=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for process in [process for process in running if process.poll() is not None]:
                each, clone = running.pop(process)
                free.append(clone)
                if process.returncode:
                    (self.logs / f"{each.name}.failed").write_text(str(process.returncode), encoding="utf-8")
                else:
                    ref = experiment_ref(self.baseline, each.name)
                    git(self.root, "fetch", "--quiet", str(clone), f"+{ref}:{ref}")
                print(table(self.standing([each.name])), flush=True)


def table(found: Sequence[Standing]) -> str:
    """A line for each experiment and, below it, the last lines of the log of one that is not done."""
    return "\n".join("\n    ".join([f"{each.state}: {each.name}", *each.lines]) for each in found)


def summary(found: Sequence[Standing]) -> str:
    """How many experiments there are, and how many of them are done, failed and so on."""
    counts = Counter(each.state.split()[0] for each in found)
    return f"{len(found)} experiments: {', '.join(f'{count} {state}' for state, count in sorted(counts.items()))}"


@contextmanager
def engine(runtime: Runtime) -> Iterator[int]:
    """How many experiments can be at work at once: 1 here; on Ray as many as it has GPUs (or nodes, without GPUs).

    For the length of the block RAY_ADDRESS leads the stages to the cluster, which ends with the grid if the grid has
    started it: so several experiments on one machine ask one Ray for its GPUs, and no two get the same.
    """
    if runtime.engine == "local":
        yield 1
        return
    with cluster(runtime.address) as ray:
        os.environ[ADDRESS] = ray.get_runtime_context().gcs_address
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(each.get("GPU", 0) for each in alive) if runtime.device in ("auto", "cuda") else 0
        yield max(1, int(gpus / runtime.gpus_per_trial) or len(alive))


def pools(root: Path, state: Path) -> list[Pool]:
    """A pool for each commit from which a grid was started here, the latest last."""
    folders = sorted((state / "grid/logs").glob("*/"), key=lambda folder: folder.stat().st_mtime)
    return [Pool(root, state, folder.name) for folder in folders]
