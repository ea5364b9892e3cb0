"""Runs the configurations of a grid, several at a time, and knows where each stands.

What is scheduled here is commands of DVC, which run on this machine alone; where trials are trained, and what happens
when a machine dies, is the engine's business (stages/train).

Why not `dvc queue`: measured with DVC 3.67. After a SIGKILL of its workers the tasks that ran say `Running` for ever,
`dvc queue start` never takes them up again and `dvc queue remove` refuses them; two workers that start together run
the stages that their tasks share twice. `dvc exp run --temp` stashes the workspace's changes while it starts: killed
just then (24 times), it left them in the stash and the index locked, and the next one failed. Of two `dvc exp run` in
two Git worktrees, which share their refs, one failed. So each job here has a clone of its own (clones.py).
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from stages.grid.clones import Clone, make_clones
from stages.grid.configurations import Configuration
from stages.grid.experiments import finished_experiments
from stages.grid.jobs import Job, error_in, lines_of, size_of, units_at_work
from stages.grid.processes import stages_at_work_in, stop
from stages.grid.status import Status
from stages.plumbing.errors import StageError
from stages.plumbing.progress import duration

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 60.0


class Grid:
    """The configurations, where they stand and the means to go on."""

    def __init__(
        self, root: Path, state: Path, baseline: str, configurations: list[Configuration], jobs: int | None = None
    ) -> None:
        """jobs: experiments at a time; None, where none is run: as many as the grid runs that was asked for them."""
        self.root, self.state, self.baseline, self.jobs = root, state, baseline, jobs
        self.folder = state / "grid"
        self.configurations = sorted(configurations, key=lambda each: each.regime)
        self.status = Status(self.folder / "status.json")
        self.running: list[Job] = []

    @property
    def clones_folder(self) -> Path:
        """Where the clones are."""
        return self.folder / "clones"

    def done(self) -> set[str]:
        """Names of the configurations whose experiment is there."""
        return {each.name for each in self.configurations} & set(finished_experiments(self.root, self.baseline))

    def log(self, configuration: Configuration) -> Path:
        """All that an experiment printed."""
        return self.folder / "logs" / f"{configuration.name}.log"

    def state_of(self, configuration: Configuration, done: set[str]) -> str:
        """Where a configuration stands: done, failed, running, stopped (a kill) or waiting."""
        entry = self.status.of(configuration)
        if configuration.name in done:
            return "done"
        if entry.baseline != self.baseline or entry.state == "done":
            return "waiting"
        at_work = any(job.configuration == configuration for job in self.running)
        if entry.state == "running" and not at_work and not stages_at_work_in(self.clones_folder):
            return "stopped"
        return entry.state

    def summary(self) -> str:
        """One line: how many are done, how much is left."""
        done = self.done()
        states = [self.state_of(each, done) for each in self.configurations]
        unfinished = [each for each in self.configurations if each.name not in done]
        left = self.status.seconds_left(unfinished, self.jobs or self.status.at_once(unfinished))
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states)))
        time_left = "known when the first one has ended" if left is None else f"about {duration(left)}"
        return f"{len(states)} experiments: {counts}; time left: {time_left if unfinished else 'none'}"

    def table(self) -> str:
        """A line for each configuration, with its units on a cluster below it, then the summary."""
        done, width = self.done(), max(len(each.name) for each in self.configurations)
        lines = []
        for each in self.configurations:
            state, entry = self.state_of(each, done), self.status.of(each)
            printed = lines_of(self.log(each)) if state == "running" else []
            note = entry.note if state == "failed" else "".join(printed[-1:])
            spent = duration(entry.seconds) if entry.seconds else "-"
            lines.append(f"{state:8} {each.name:{width}} {spent:>9}  {note}".rstrip())
            lines += [f"{'':9}{unit}" for unit in units_at_work(printed)]
        return "\n".join([*lines, self.summary()])

    def run(self) -> None:
        """Run what is not done yet.

        Raises:
            StageError: a stage that all share failed, or an experiment did; the others were run all the same.
        """
        done = self.done()
        waiting = [each for each in self.configurations if each.name not in done]
        if leftovers := stages_at_work_in(self.clones_folder):
            print(f"stopping what an earlier grid left at work: {len(leftovers)} processes", flush=True)
            stop(leftovers)
        if not waiting:
            print(self.summary())
            return
        self.status.note(*waiting, state="waiting", baseline=self.baseline, note="", at_once=self.jobs or 1)
        try:
            count = min(self.jobs or 1, len(waiting))
            clones = make_clones(self.root, self.clones_folder, count, self.baseline, self.state)
            self.prepare(waiting, clones)
            failed = self.work(waiting, clones)
        finally:
            stop([psutil.Process(job.process.pid) for job in self.running if job.process.poll() is None])
            shutil.rmtree(self.clones_folder, ignore_errors=True)
        print(self.summary())
        if failed:
            raise StageError(
                f"{len(failed)} experiments",
                f"failed: {', '.join(each.name for each in failed)}",
                f"their logs are in {self.folder / 'logs'}; the same command tries them again",
            )

    def prepare(self, waiting: Sequence[Configuration], clones: Sequence[Clone]) -> None:
        """Run once what waiting configurations share, so that they find it in DVC's cache: no two run it at once."""
        first = waiting[0]
        shared = [replace(first, model=model) for model in dict.fromkeys(each.model for each in waiting)]
        subsets = dict.fromkeys((each.regime, each.settings) for each in waiting)  # a seed is among the settings
        shared += [
            replace(first, regime=regime, settings=settings)
            for regime, settings in subsets
            if (regime, settings) != (first.regime, first.settings)
        ]
        log = self.folder / "logs" / "shared-stages.log"
        for number, each in enumerate(shared, start=1):
            print(f"shared stages {number}/{len(shared)}: {each.model}, {each.regime:g} %", flush=True)
            job = Job(
                clones[0], each, clones[0].start_shared_stages(each, log), log, size_of(log), time.monotonic(), 0.0
            )
            self.running.append(job)
            code = job.process.wait()
            self.running.remove(job)
            if code:
                raise StageError(f"shared stages of {each.name}", error_in(log, job.log_start), f"see {log}")

    def work(self, waiting: Sequence[Configuration], clones: Sequence[Clone]) -> list[Configuration]:
        """Run the configurations, one in each clone; returns those that failed."""
        queue, free, failed = list(waiting), list(clones), []
        spoke = time.monotonic()
        while queue or self.running:
            while queue and free:
                self.running.append(self.start(free.pop(), queue.pop(0)))
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for job in [job for job in self.running if job.process.poll() is not None]:
                self.running.remove(job)
                free.append(job.clone)
                if not self.finish(job):
                    failed.append(job.configuration)
            if time.monotonic() - spoke > SECONDS_BETWEEN_LINES:
                spoke = time.monotonic()
                self.note_time()
                print(self.summary(), flush=True)
        return failed

    def start(self, clone: Clone, configuration: Configuration) -> Job:
        """Start a configuration in a free clone."""
        log = self.log(configuration)
        before, start = self.status.of(configuration).seconds, size_of(log)
        process = clone.start_experiment(configuration, log)
        self.status.note(configuration, state="running")
        print(f"started {configuration.name}", flush=True)
        return Job(clone, configuration, process, log, start, time.monotonic(), before)

    def finish(self, job: Job) -> bool:
        """Keep the experiment of a job that has ended; False if it failed."""
        each = job.configuration
        if job.process.returncode:
            note = error_in(job.log, job.log_start)
            self.status.note(each, state="failed", seconds=job.seconds, note=note)
            print(f"failed  {each.name}: {note}", flush=True)
            return False
        job.clone.publish(each)
        # What came from the cache says nothing about the time that the others will take.
        trained = b"Running stage 'train'" in job.log.read_bytes()[job.log_start :]
        self.status.note(each, state="done", seconds=job.seconds if trained else job.seconds_before)
        print(f"done    {each.name} in {duration(job.seconds)}; {self.summary()}", flush=True)
        return True

    def note_time(self) -> None:
        """Write down the time that the running jobs have taken so far: a kill loses no more than a minute of it."""
        for job in self.running:
            self.status.note(job.configuration, seconds=job.seconds)


def status(root: Path, state: Path, jobs: int | None) -> str:
    """Where all stands that grids were asked for, a table for each commit that they started from."""
    entries = Status(state / "grid" / "status.json").entries.values()
    started = {
        each.baseline: [other.configuration for other in entries if other.baseline == each.baseline] for each in entries
    }
    tables = {baseline: Grid(root, state, baseline, found, jobs).table() for baseline, found in started.items()}
    return "\n\n".join(f"from commit {baseline[:10]}\n{table}" for baseline, table in tables.items())
