"""Collect the experiments that `dvc exp show` lists: which have results, and what happened to the others."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.grid.experiments import dvc, git
from stages.report.revision import Revision, problem

ROWS = ("test", "unseen", "human", "retrieval")
SWITCHES = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
COMMIT_DIGITS = 10  # hex digits of a commit that the report shows
NOTHING = "no results"
RESULTS = ("dvc.lock", "metrics/scores")  # a commit that changes neither has no new results

Scores = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One configuration that was run: an experiment, the results in a commit, or those in the workspace."""

    name: str  # unique
    kind: str  # experiment | commit | workspace
    commit: str  # hex; empty for the workspace
    baseline: str  # the commit (hex) that it started from
    params: dict[str, Any]  # all of its params.yaml
    rows: dict[str, Scores]  # metrics/scores/*.json, for each of ROWS
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

    @property
    def scores(self) -> Scores:
        """metrics/scores.json; where DVC's cache lacks it, what Git keeps of it."""
        others = {row: self.rows[row] for row in ROWS[1:]}
        return self.files.json("metrics/scores.json") or {**self.rows["test"], **others}

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
    state: str  # failed | running | queued | stale | ...
    reason: str


@dataclass(frozen=True)
class Collection:
    """Everything in `dvc exp show`: experiments first, then commits, then the workspace."""

    runs: tuple[Run, ...]
    absent: tuple[Absent, ...]


def baselines(root: Path) -> list[str]:
    """HEAD, then every other commit (hex) from which experiments started, newest first."""
    head = git(root, "rev-parse", "HEAD")
    refs = git(root, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    found = {"".join(match.groups()) for ref in refs if (match := re.match(r"refs/exps/(\w{2})/(\w{38})/", ref))}
    others = sorted(found - {head})
    return [head, *git(root, "rev-list", "--no-walk=sorted", *others).splitlines()] if others else [head]


def origins(root: Path, commits: Iterable[str]) -> list[str]:
    """The commits (hex) that introduced the results in `commits`."""
    found = (git(root, "log", "-1", "--format=%H", commit, "--", *RESULTS) for commit in commits)
    return list(dict.fromkeys(commit for commit in found if commit))


def exp_show(root: Path, commits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The entries of `dvc exp show --json` for the workspace and `commits`, with their experiments, by revision."""
    words = [word for commit in commits for word in ("--rev", commit)]
    return {entry["rev"]: entry for entry in json.loads(dvc(root, "exp", "show", "--json", *words))}


def collect(root: Path) -> Collection:
    """Collect all experiments of the project at `root`."""
    started = baselines(root)
    brought = origins(root, started)
    shown = exp_show(root, list(dict.fromkeys([*started, *brought])))
    found = [
        _experiment(root, experiment, baseline)
        for baseline in started
        for experiment in sorted(shown[baseline]["experiments"] or [], key=lambda each: each["name"] or "")
    ]
    others = [_read(root, f"commit {each[:COMMIT_DIGITS]}", "commit", each, each, shown[each]) for each in brought]
    others.append(_read(root, "workspace", "workspace", "", started[0], shown["workspace"]))
    # A commit or workspace without results is not a failed experiment, so it is not listed.
    found = _with_unique_names([*found, *(each for each in others if isinstance(each, Run) or each.state != NOTHING)])
    runs = tuple(each for each in found if isinstance(each, Run))
    return Collection(runs, tuple(each for each in found if isinstance(each, Absent)))


def _experiment(root: Path, experiment: dict[str, Any], baseline: str) -> Run | Absent:
    """A run, or an absent experiment with what DVC says about it."""
    tip = experiment["revs"][0]
    name, state = experiment["name"] or tip["rev"][:COMMIT_DIGITS], (experiment["executor"] or {}).get("state")
    if state in ("queued", "running", "failed"):
        return Absent(name, "", state, "see dvc queue status and dvc queue logs")
    return _read(root, name, "experiment", tip["rev"], baseline, tip)


def _read(root: Path, name: str, kind: str, commit: str, baseline: str, shown: dict[str, Any]) -> Run | Absent:
    """The results of one revision in `dvc exp show`, if they can be trusted."""
    data = shown["data"] or {}
    params = data.get("params", {}).get("params.yaml", {}).get("data", {})
    missing = [switch for switch in (*SWITCHES, "pairs") if switch not in params]
    if shown["error"] or missing:
        reason = (shown["error"] or {}).get("msg") or f"its params.yaml has no {', '.join(missing)}"
        return Absent(name, commit, "not readable", reason)
    revision = Revision(root, commit or None)
    rows = {row: revision.json(f"metrics/scores/{row}.json") for row in ROWS}
    if None in rows.values():
        return Absent(name, commit, NOTHING, "it has no scores")
    if reason := problem(revision, params):
        return Absent(name, commit, "stale", reason)
    return Run(name, kind, commit, baseline, params, rows, revision)


def _with_unique_names(found: list[Run | Absent]) -> list[Run | Absent]:
    """Add the commit to names that occur twice: two baselines may have experiments of the same name."""
    often = {name for name, times in Counter(each.name for each in found).items() if times > 1}
    return [
        replace(each, name=f"{each.name} {each.commit[:COMMIT_DIGITS]}") if each.name in often else each
        for each in found
    ]
