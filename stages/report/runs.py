"""The experiments that there are, as `dvc exp show` shows them: which have results, and what became of the others."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.grid.experiments import dvc, git
from stages.grid.status import Status
from stages.report.revision import Revision
from stages.report.stale import problem

ROWS = ("test", "unseen", "human", "retrieval")
SWITCHES = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
SHORT = 10  # hex digits of a commit that the report shows
NOTHING = "no results"
RESULTS = ("dvc.lock", "metrics/scores")  # a commit that changes neither brings no results of its own

Row = dict[str, float]


@dataclass(frozen=True)
class Run:
    """One configuration that was run: an experiment, the results in a commit, or those in the workspace."""

    name: str  # heading of its entry: no two runs have the same
    kind: str  # experiment | commit | workspace
    commit: str  # hex; empty for the workspace
    baseline: str  # the commit (hex) that it started from
    params: dict[str, Any]  # the whole of its params.yaml
    rows: dict[str, Row]  # metrics/scores/*.json: the six scores and the number of pairs of each of ROWS
    data: str  # DVC's hash of its subset: the same for the same training and test pairs
    files: Revision

    def switch(self, name: str) -> Any:
        """The value of one of SWITCHES."""
        return self.params[name]

    def entry(self, switch: str) -> Any:
        """The entry of a table that a switch chooses: of `method` the settings of the method."""
        return self.params[f"{switch}s"].get(self.params[switch])

    @property
    def regime(self) -> float:
        """Percent of the training dialogues."""
        return float(self.params["regime"])


@dataclass(frozen=True)
class Absent:
    """An experiment without results in the tables, and why."""

    name: str
    commit: str
    state: str  # failed | running | queued | unfinished | stale | ...
    reason: str


@dataclass(frozen=True)
class Collection:
    """What `dvc exp show` has, experiments first, then commits, then the workspace."""

    runs: tuple[Run, ...]
    absent: tuple[Absent, ...]


def baselines(root: Path) -> list[str]:
    """HEAD and, newest first, every other commit (hex) that experiments started from."""
    head = git(root, "rev-parse", "HEAD")
    refs = git(root, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    found = {"".join(match.groups()) for ref in refs if (match := re.match(r"refs/exps/(\w{2})/(\w{38})/", ref))}
    others = sorted(found - {head})
    return [head, *git(root, "rev-list", "--no-walk=sorted", *others).splitlines()] if others else [head]


def origins(root: Path, commits: Iterable[str]) -> list[str]:
    """The commits (hex) that brought the results which are in `commits`."""
    found = (git(root, "log", "-1", "--format=%H", commit, "--", *RESULTS) for commit in commits)
    return list(dict.fromkeys(commit for commit in found if commit))


def exp_show(root: Path, commits: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What `dvc exp show --json` has of the workspace and of `commits`: revision -> entry, experiments included."""
    words = [word for commit in commits for word in ("--rev", commit)]
    return {entry["rev"]: entry for entry in json.loads(dvc(root, "exp", "show", "--json", *words))}


def collect(root: Path, state: Path) -> Collection:
    """Every experiment of the project at `root`; `state` is where a grid notes what it does (.state)."""
    started = baselines(root)
    brought = origins(root, started)
    shown = exp_show(root, list(dict.fromkeys([*started, *brought])))
    found = [
        _experiment(root, experiment, baseline)
        for baseline in started
        for experiment in sorted(shown[baseline]["experiments"] or [], key=lambda each: each["name"] or "")
    ]
    others = [_read(root, f"commit {each[:SHORT]}", "commit", each, each, shown[each]) for each in brought]
    others.append(_read(root, "workspace", "workspace", "", started[0], shown["workspace"]))
    # A commit or a workspace in which nothing was run is no experiment that went wrong.
    found += [each for each in others if isinstance(each, Run) or each.state != NOTHING]
    found = _with_names_of_their_own(found)
    runs = tuple(each for each in found if isinstance(each, Run))
    absent = [each for each in found if isinstance(each, Absent)]
    return Collection(runs, (*absent, *_unfinished(state, {each.name for each in found})))


def _experiment(root: Path, experiment: dict[str, Any], baseline: str) -> Run | Absent:
    """A run, or what DVC says of an experiment that is not one (yet)."""
    tip = experiment["revs"][0]
    name, state = experiment["name"] or tip["rev"][:SHORT], (experiment["executor"] or {}).get("state")
    if state in ("queued", "running", "failed"):
        return Absent(name, "", state, "dvc queue status and dvc queue logs tell more")
    return _read(root, name, "experiment", tip["rev"], baseline, tip)


def _read(root: Path, name: str, kind: str, commit: str, baseline: str, shown: dict[str, Any]) -> Run | Absent:
    """What `dvc exp show` has of one revision, if its results can be trusted."""
    data = shown["data"] or {}
    params = data.get("params", {}).get("params.yaml", {}).get("data", {})
    rows = {row: data.get("metrics", {}).get(f"metrics/scores/{row}.json", {}).get("data") for row in ROWS}
    lacking = [switch for switch in (*SWITCHES, "pairs") if switch not in params]
    if shown["error"] or lacking:
        reason = (shown["error"] or {}).get("msg") or f"its params.yaml has no {', '.join(lacking)}"
        return Absent(name, commit, "not readable", reason)
    if None in rows.values():
        return Absent(name, commit, NOTHING, "it has no scores")
    revision = Revision(root, commit or None)
    if reason := problem(revision, params):
        return Absent(name, commit, "stale", reason)
    return Run(name, kind, commit, baseline, params, rows, data["outs"]["data/subset"]["hash"], revision)


def _with_names_of_their_own(found: list[Run | Absent]) -> list[Run | Absent]:
    """Two baselines may have experiments of the same name: those get their commit behind it."""
    often = {name for name, count in Counter(each.name for each in found).items() if count > 1}
    return [replace(each, name=f"{each.name} {each.commit[:SHORT]}") if each.name in often else each for each in found]


def _unfinished(state: Path, known: set[str]) -> list[Absent]:
    """The configurations of a grid that have no experiment yet."""
    entries = Status(state / "grid" / "status.json").entries
    return [
        Absent(name, "", entry.state, entry.note or "python -m stages.grid --status tells more")
        for name, entry in sorted(entries.items())
        if entry.state != "done" and name not in known
    ]
