"""A pool of clones in which the configurations of a grid run, several at a time, and where each of them stands.

A clone of the repository shares its Git objects and DVC's cache with the project, and nothing else: no lock, no
workspace and no half-made experiment of one can be seen from another. An experiment becomes one of the project's when
it is whole, by one `git fetch` of its ref. It is done when that ref is there, and has failed when its command ended
with another exit code than 0.

Why not `dvc queue`: after a SIGKILL of its workers (DVC 3.67) the tasks that ran say `Running` for ever and are never
taken up again. `dvc exp run --temp`, killed while it starts, leaves the workspace's changes in the stash. Of two `dvc
exp run` in two Git worktrees, which share their refs, one failed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from stages.grid.configurations import Configuration
from stages.grid.experiments import DVC, dvc, experiment_ref, finished_experiments, git
from stages.params.schema import Runtime
from stages.plumbing.cluster import ADDRESS, cluster
from stages.plumbing.errors import StageError
from stages.plumbing.files import STATE_VARIABLE

LAST_LINES = 3  # of a log, for those who ask where an experiment stands
SECONDS_TO_SAVE = 120.0  # for a stage that was asked to stop
SECONDS_BETWEEN_LOOKS = 0.5
LOCAL = Path(".dvc") / "config.local"  # the user's remotes and their passwords
Standing = dict[str, list[str]]  # name of an experiment -> its state, and the last lines of its log if it is not done


def at_work(folder: Path) -> list[tuple[psutil.Process, list[str]]]:
    """Processes of DVC and of stages whose working directory is below `folder`, and the words of their commands."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            known = any("dvc" in word or "stages." in word for word in words)
            if known and process.cwd().startswith(f"{folder}{os.sep}"):
                found.append((process, words))
    return found


def stop(folder: Path) -> None:
    """Ask the stages that run below `folder` to save and stop; returns when they, and their DVC, have ended.

    DVC gets no signal of its own while a stage works below it: it ends with its stage.
    """
    asked: set[psutil.Process] = set()
    deadline = time.monotonic() + SECONDS_TO_SAVE
    while left := at_work(folder):
        for process, _ in left:
            with suppress(psutil.Error):
                for each in set(process.children(recursive=True) or [process]) - asked:
                    asked.add(each)
                    each.terminate()
                if time.monotonic() > deadline:
                    process.kill()
        time.sleep(SECONDS_BETWEEN_LOOKS)


class Pool:
    """The experiments that start from one commit: their logs, and the clones that they run in."""

    def __init__(self, root: Path, state: Path, baseline: str) -> None:
        """root: the project; state: where clones, logs and the state of trainings are; baseline: the commit."""
        self.root, self.state, self.baseline = root, state, baseline
        self.clones, self.logs = state / "grid/clones", state / "grid/logs" / baseline
        self.own = self.clones / baseline  # an earlier grid may have left others, at work

    def standing(self, names: Iterable[str] | None = None) -> Standing:
        """Where the experiments of these names stand; None: all that a grid was asked for.

        They are done, running, failed, stopped (by a kill) or waiting.
        """
        done, commands = finished_experiments(self.root, self.baseline), [words for _, words in at_work(self.own)]
        found: Standing = {}
        for name in sorted(log.stem for log in self.logs.glob("*.log")) if names is None else names:
            log, failed = self.logs / f"{name}.log", self.logs / f"{name}.failed"
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-LAST_LINES:]
            if name in done:
                found[name] = ["done"]
            elif any(name in words for words in commands):
                found[name] = ["running", *lines]
            elif failed.exists():
                found[name] = [f"failed with exit code {failed.read_text(encoding='utf-8')}", *lines]
            else:
                found[name] = ["stopped" if "Running stage 'train'" in text else "waiting", *lines]
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
            clones = self._make_clones(min(jobs, len(waiting)))
            self._run_shared_stages(waiting, clones)
            self._work(waiting, clones)
        finally:
            stop(self.clones)
            shutil.rmtree(self.clones, ignore_errors=True)
        found = self.standing(each.name for each in configurations)
        print(summary(found))
        if failed := [name for name, (state, *_) in found.items() if state != "done"]:
            remedy = f"their logs are in {self.logs}; the same command tries them again"
            raise StageError(f"{len(failed)} experiments", f"failed: {', '.join(failed)}", remedy)

    def _make_clones(self, count: int) -> list[Path]:
        """Make clones at the commit; what an earlier run left is removed."""
        shutil.rmtree(self.clones, ignore_errors=True)
        clones, cache = [self.own / str(number) for number in range(count)], dvc(self.root, "cache", "dir")
        for clone in clones:
            git(self.root, "clone", "--quiet", "--shared", "--no-checkout", str(self.root), str(clone))
            git(clone, "checkout", "--quiet", "--detach", self.baseline)
            if (self.root / LOCAL).is_file():
                shutil.copy(self.root / LOCAL, clone / LOCAL)
            dvc(clone, "config", "--local", "cache.dir", cache)
            # A base model is hundreds of megabytes: the clones get links to the one in the cache, not copies.
            dvc(clone, "config", "--local", "cache.type", "reflink,hardlink,copy")
        return clones

    def _start(self, clone: Path, configuration: Configuration, *words: str) -> "subprocess.Popen[bytes]":
        """Start a configuration in a clone, as it was cloned; all that it prints is added to its log.

        All clones share the state of trainings: one that was stopped in a clone goes on in another.
        """
        git(clone, "reset", "--quiet", "--hard")
        git(clone, "clean", "--quiet", "--force", "-d")
        options = [word for override in configuration.overrides for word in ("-S", override)]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        with (self.logs / f"{configuration.name}.log").open("ab") as log:
            return subprocess.Popen(
                [*DVC, "exp", "run", *options, *words], cwd=clone,
                env={**os.environ, "PATH": path, STATE_VARIABLE: str(self.state)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _run_shared_stages(self, waiting: Sequence[Configuration], clones: Sequence[Path]) -> None:
        """Run once what waiting configurations share, so that they find it in DVC's cache: no two run it at once."""
        models = {each.model: each for each in reversed(waiting)}
        subsets = {(each.regime, each.settings): each for each in reversed(waiting)}  # a seed is among the settings
        for each in dict.fromkeys([*models.values(), *subsets.values()]):
            print(f"stages that experiments share: {each.model}, {each.regime:g} %", flush=True)
            if code := self._start(clones[0], each, "subset").wait():
                (self.logs / f"{each.name}.failed").write_text(str(code), encoding="utf-8")
                _, *lines = self.standing([each.name])[each.name]
                raise StageError(f"shared stages of {each.name}", " ".join(lines), f"see the log in {self.logs}")

    def _work(self, waiting: Sequence[Configuration], clones: Sequence[Path]) -> None:
        """Run the configurations, one in each clone."""
        queue, free = list(waiting), list(clones)
        running: dict[subprocess.Popen[bytes], tuple[Configuration, Path]] = {}
        while queue or running:
            while queue and free:
                each, clone = queue.pop(0), free.pop()
                running[self._start(clone, each, "--name", each.name)] = each, clone
                print(f"started: {each.name}, its log is in {self.logs}", flush=True)
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


def table(found: Standing) -> str:
    """A line for each experiment and, below it, the last lines of its log."""
    return "\n".join("\n    ".join([f"{state}: {name}", *lines]) for name, (state, *lines) in found.items())


def summary(found: Standing) -> str:
    """How many experiments there are, and how many of them are done, failed and so on."""
    counts = Counter(state.split()[0] for state, *_ in found.values())
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
