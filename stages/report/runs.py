"""Collect what was run: the experiments, the results in commits, and those in the workspace."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.grid.experiments import git, params_of
from stages.params.schema import PARAMS_FILE
from stages.plumbing.errors import StageError
from stages.plumbing.yaml import parse_yaml
from stages.report.results import WORKSPACE, Revision, look_up, problem

ROWS = ("test", "unseen", "human", "retrieval")  # in metrics/scores/
SWITCHES = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
COMMIT_DIGITS = 10  # hex digits of a commit that the report shows
RESULTS = ("dvc.lock", "metrics/scores")  # a commit that changes neither has no new results
RESPONSES = "data/greedy_generate/responses.jsonl"


@dataclass(frozen=True, eq=False)
class Run:
    """One configuration that was run: an experiment, the results in a commit, or those in the workspace."""

    name: str  # unique
    commit: str  # hex; empty for the workspace
    baseline: str  # the commit (hex) whose code made it; it ends in `-dirty` if that had changed
    params: dict[str, Any]  # all of its params.yaml
    scores: dict[str, Any]  # metrics/scores.json; where DVC's cache lacks it, what Git keeps of it
    files: Revision

    def switch(self, name: str) -> Any:
        """The value of one of SWITCHES."""
        return self.params[name]

    def entry(self, switch: str) -> dict[str, Any]:
        """The table entry that a switch chooses, such as the settings of the method for `method`."""
        return self.params[f"{switch}s"].get(self.params[switch]) or {}

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.params["seed"])

    def score(self, key: str) -> Any:
        """The value of a dotted key of its scores; None if there is none."""
        return look_up(self.scores, key)

    def metrics(self, name: str) -> Any:
        """The content of another file of metrics/; {} if it is not available."""
        return self.files.json(f"metrics/{name}.json") or {}


Runs = tuple[Run, ...]  # of one configuration, one for each seed, in ascending order of seeds


def same_seeds(first: Runs, second: Runs) -> list[tuple[Run, Run]]:
    """The runs of two configurations, seed by seed: those of the seeds that both have."""
    of_second = {run.seed: run for run in second}
    return [(run, of_second[run.seed]) for run in first if run.seed in of_second]


@dataclass(frozen=True)
class Absent:
    """An experiment that is not in the tables, and why."""

    name: str
    commit: str
    state: str  # stale | not readable | ...
    reason: str


@dataclass(frozen=True)
class Collection:
    """Everything that was run: experiments first, the newest first of all, then commits, then the workspace."""

    runs: tuple[Run, ...]
    absent: tuple[Absent, ...]


def collect(root: Path) -> Collection:
    """Collect all that was run in the project at `root`."""
    head, experiments = git(root, "rev-parse", "HEAD"), list(_experiments(root))
    baselines = dict.fromkeys([head, *(baseline for _, _, baseline in experiments)])
    brought = (git(root, "log", "-1", "--format=%H", commit, "--", *RESULTS) for commit in baselines)
    commits = [(f"commit {commit[:COMMIT_DIGITS]}", commit, commit) for commit in dict.fromkeys(brought) if commit]
    dirty = "-dirty" if git(root, "status", "--porcelain", "--", "stages", "dvc.yaml") else ""
    read = (_read(root, *each) for each in (*experiments, *commits, (WORKSPACE, "", head + dirty)))
    found = with_unique_names([each for each in read if each])
    runs = tuple(each for each in found if isinstance(each, Run))
    return Collection(runs, tuple(each for each in found if isinstance(each, Absent)))


def _experiments(root: Path) -> Iterator[tuple[str, str, str]]:
    """The name of each experiment, its commit and the one that it started from, the newest first."""
    wanted = "--sort=refname", "--sort=-creatordate", "--format=%(objectname) %(refname)", "refs/exps"
    for line in git(root, "for-each-ref", *wanted).splitlines():
        if match := re.fullmatch(r"(\w+) refs/exps/(\w{2})/(\w{38})/(.+)", line):
            commit, first, rest, name = match.groups()
            yield name, commit, first + rest


def _read(root: Path, name: str, commit: str, baseline: str) -> Run | Absent | None:
    """The results of one revision, if they can be trusted; None if it has none."""
    revision = Revision(root, commit or None)
    rows = {row: revision.json(f"metrics/scores/{row}.json") for row in ROWS}
    if None in rows.values():
        return None
    try:
        params = params_of(root, commit) if commit else parse_yaml((root / PARAMS_FILE).read_bytes(), PARAMS_FILE)
    except StageError as error:
        return Absent(name, commit, "not readable", str(error))
    if missing := [switch for switch in (*SWITCHES, "pairs") if switch not in params]:
        return Absent(name, commit, "not readable", f"its params.yaml has no {', '.join(missing)}")
    if reason := problem(revision, params):
        return Absent(name, commit, "stale", reason)
    scores = revision.json("metrics/scores.json") or {**rows.pop("test"), **rows}
    return Run(name, commit, baseline, params, scores, revision)


def with_unique_names(found: Sequence[Any]) -> list[Any]:
    """Add the commit to names that occur twice: two baselines may have experiments of the same name."""
    often = {name for name, times in Counter(each.name for each in found).items() if times > 1}
    return [
        replace(each, name=f"{each.name} {each.commit[:COMMIT_DIGITS]}") if each.name in often else each
        for each in found
    ]
