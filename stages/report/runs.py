"""Collect the experiments that `dvc exp show` lists: which have results, and what happened to the others.

`keep` writes what the report shows of them into files that Git can hold, and `kept` reads these.
"""

import hashlib
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from stages.grid.experiments import dvc, git
from stages.params.validation import redact
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes, write_json
from stages.records import Response
from stages.report.results import Record, Revision, look_up, problem

ROWS = ("test", "unseen", "human", "retrieval")  # in metrics/scores/
SWITCHES = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
CHOICES = ("dataset", "model", "method", "protocol")  # each names an entry of a table
COMMIT_DIGITS = 10  # hex digits of a commit that the report shows
NOTHING = "no results"
RESULTS = ("dvc.lock", "metrics/scores")  # a commit that changes neither has no new results
RESPONSES = "data/greedy_generate/responses.jsonl"
KEPT, ABSENT = ".json.xz", "absent.json"  # files of kept runs, and of those that are not in the tables
METRICS = ("learning_rates", "curves", "train", "cost/train", "cost/greedy_generate")  # files of metrics/

Scores = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One configuration that was run: an experiment, the results in a commit, or those in the workspace."""

    name: str  # unique
    commit: str  # hex; empty for the workspace
    params: dict[str, Any]  # all of its params.yaml
    scores: Scores  # metrics/scores.json; where DVC's cache lacks it, what Git keeps of it
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
        _experiment(root, experiment)
        for baseline in started
        for experiment in sorted(shown[baseline]["experiments"] or [], key=lambda each: each["name"] or "")
    ]
    others = [_read(root, f"commit {each[:COMMIT_DIGITS]}", each, shown[each]) for each in brought]
    others.append(_read(root, "workspace", "", shown["workspace"]))
    # A commit or workspace without results is not a failed experiment, so it is not listed.
    found = _with_unique_names([*found, *(each for each in others if isinstance(each, Run) or each.state != NOTHING)])
    runs = tuple(each for each in found if isinstance(each, Run))
    return Collection(runs, tuple(each for each in found if isinstance(each, Absent)))


def _experiment(root: Path, experiment: dict[str, Any]) -> Run | Absent:
    """A run, or an absent experiment with what DVC says about it."""
    tip = experiment["revs"][0]
    name, state = experiment["name"] or tip["rev"][:COMMIT_DIGITS], (experiment["executor"] or {}).get("state")
    if state in ("queued", "running", "failed"):
        return Absent(name, "", state, "see dvc queue status and dvc queue logs")
    return _read(root, name, tip["rev"], tip)


def _read(root: Path, name: str, commit: str, shown: dict[str, Any]) -> Run | Absent:
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
    scores = revision.json("metrics/scores.json") or {**rows.pop("test"), **rows}
    return Run(name, commit, params, scores, revision)


def _with_unique_names(found: list[Run | Absent]) -> list[Run | Absent]:
    """Add the commit to names that occur twice: two baselines may have experiments of the same name."""
    often = {name for name, times in Counter(each.name for each in found).items() if times > 1}
    return [
        replace(each, name=f"{each.name} {each.commit[:COMMIT_DIGITS]}") if each.name in often else each
        for each in found
    ]


class KeptFiles(Revision):
    """The files of a run that was kept: the content of JSON files, and the columns of records."""

    def __init__(self, commit: str, files: dict[str, Any]) -> None:
        super().__init__(Path(), commit)
        self._parsed = files

    def read(self, path: str) -> bytes | None:
        """No other file was kept."""
        return None

    def records(self, path: str, kind: type[Record]) -> list[Record] | None:
        """The records of a file; None if they were not kept."""
        columns = self._parsed.get(path)
        return columns and [kind(*each) for each in zip(*columns.values(), strict=True)]


def keep(groups: Mapping[str, Iterable[Run]], absent: Iterable[Absent], folder: Path) -> int:
    """Write runs for `kept`, those of a group into one file of its name; return how many bytes they take.

    Equal texts within a file take no room. Where the corpus may not be quoted, of the responses only a hash is written;
    of parameters no folder and no secret.
    """
    write_json(folder / ABSENT, [asdict(each) for each in absent])
    paths = {folder / f"{name}{KEPT}": runs for name, runs in groups.items()}
    for path, runs in paths.items():
        write_bytes(path, lzma.compress(json.dumps([_as_kept(run) for run in runs]).encode(), preset=9))
    for path in set(folder.glob(f"*{KEPT}")) - paths.keys():
        path.unlink()
    return sum(path.stat().st_size for path in folder.iterdir())


def _as_kept(run: Run) -> dict[str, Any]:
    chosen = {f"{switch}s": {run.params[switch]: run.entry(switch)} for switch in CHOICES}
    params = {name: run.params[name] for name in (*SWITCHES, "pairs")} | chosen
    files = {f"metrics/{name}.json": run.files.json(f"metrics/{name}.json") for name in METRICS}
    if run.entry("dataset").get("quote") and (responses := run.files.records(RESPONSES, Response)):
        names = [field.name for field in fields(Response)]
        files[RESPONSES] = {name: [getattr(each, name) for each in responses] for name in names}
    sha256 = hashlib.sha256(run.files.read(RESPONSES) or b"").hexdigest()  # for whoever has the responses
    facts = {"name": run.name, "commit": run.commit, "params": _public(params), "scores": run.scores}
    return {"facts": facts, "responses_sha256": sha256, "files": files}


def _public(value: Any) -> Any:
    """Parameters without what nobody else should see."""
    if isinstance(value, dict):
        return {key: _public(each) for key, each in value.items()}
    return redact(value) if isinstance(value, str) else value


def kept(folder: Path) -> Collection:
    """The runs that `keep` wrote into a folder.

    Raises:
        StageError: there are none, or a file is damaged.
    """
    if not (folder / ABSENT).exists():
        raise StageError(folder, "no runs that --keep wrote", "name the folder that it wrote")
    found = []
    for path in sorted(folder.glob(f"*{KEPT}")):
        try:
            found += json.loads(lzma.decompress(path.read_bytes()))
        except (lzma.LZMAError, ValueError) as error:
            raise StageError(path, f"damaged ({error})", "take it from Git again") from None
    runs = tuple(Run(**each["facts"], files=KeptFiles(each["facts"]["commit"], each["files"])) for each in found)
    return Collection(runs, tuple(Absent(**each) for each in json.loads((folder / ABSENT).read_bytes())))
