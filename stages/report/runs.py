"""Collect what was run: the experiments, the results in commits, and those in the workspace."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from stages.grid.experiments import git
from stages.params.schema import PARAMS_FILE
from stages.plumbing.errors import StageError
from stages.records import Response
from stages.report.results import WORKSPACE, Revision, experiments_of, look_up, problems

ROWS = ("test", "unseen", "human", "retrieval")  # in metrics/scores/
METRICS = ("learning_rates", "curves", "train", "cost/train", "cost/greedy_generate")  # further files of metrics/
SWITCHES = ("dataset", "model", "method", "regime", "protocol", "seed", "drop_overlap")
COMMIT_DIGITS = 10  # hex digits of a commit that the report shows
RESULTS = ("dvc.lock", "metrics/scores")  # a commit that changes neither has no new results
RESPONSES = "data/greedy_generate/responses.jsonl"


def flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table with dotted keys."""
    if not isinstance(table, dict):
        return {prefix: table}
    inner = [flatten(each, f"{prefix}.{key}" if prefix else str(key)) for key, each in table.items()]
    return {key: each for found in inner for key, each in found.items()}


@dataclass(frozen=True, eq=False)
class Run:
    """One configuration that was run: an experiment, the results in a commit, or those in the workspace."""

    name: str  # unique
    commit: str  # hex; empty for the workspace
    baseline: str  # the commit (hex) whose code made it; it ends in `-dirty` if that had changed
    scores: dict[str, Any]  # metrics/scores.json; where DVC's cache lacks it, what Git keeps of it
    params: dict[str, Any]  # all of its params.yaml
    files: dict[str, Any]  # METRICS and RESPONSES (as columns) by path; nothing for what is not available

    def entry(self, switch: str) -> dict[str, Any]:
        """The table entry that a switch chooses, such as the settings of the method for `method`."""
        return self.params[f"{switch}s"].get(self.params[switch]) or {}

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.params["seed"])

    @property
    def responses(self) -> list[Response]:
        """Its responses to the test queries; none if they are not available."""
        return [Response(*each) for each in zip(*self.files.get(RESPONSES, {}).values(), strict=True)]

    def score(self, key: str) -> Any:
        """The value of a dotted key of its scores; None if there is none."""
        return look_up(self.scores, key)

    def metrics(self, name: str) -> Any:
        """The content of one of METRICS; {} if it is not available."""
        return self.files.get(f"metrics/{name}.json") or {}

    @property
    def rates(self) -> list[float]:
        """The learning rates that were tried, in ascending order; none if that is not available."""
        return sorted(each["learning_rate"] for each in self.metrics("learning_rates") if each["learning_rate"])

    @property
    def selects_by(self) -> str:
        """The score that chose the epoch and the trial: `validation_loss` or `bleu4`, as trials name it."""
        by_loss = self.entry("protocol")["training"].get("metric_for_best_model") == "loss"
        return "validation_loss" if by_loss else "bleu4"

    @property
    def range_end(self) -> str | None:
        """The end of the range of rates at which the best trial is: `lowest`, `highest` or None."""
        return self.metrics("train").get("best_at_range_end") if self.rates else None

    @property
    def numbers(self) -> dict[str, Any]:
        """What is known of it beside its scores, by dotted keys: search, cost."""
        train = {**self.metrics("train"), **self.metrics("cost/train"), "rates": len(self.rates)}
        train["learning_rate"] = train.get("learning_rate") or None  # 0 where nothing is trained
        return flatten({"train": train, "decode": self.metrics("cost/greedy_generate")})


Runs = tuple[Run, ...]  # of one configuration, one for each seed, in ascending order of seeds


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

    runs: Runs
    absent: tuple[Absent, ...]


def collect(root: Path) -> Collection:
    """Collect all that was run in the project at `root`."""
    head, experiments = git(root, "rev-parse", "HEAD"), experiments_of(root)
    baselines = dict.fromkeys([head, *(baseline for _, _, baseline in experiments)])
    brought = (git(root, "log", "-1", "--format=%H", commit, "--", *RESULTS) for commit in baselines)
    commits = [(f"commit {commit[:COMMIT_DIGITS]}", commit, commit) for commit in dict.fromkeys(brought) if commit]
    dirty = "-dirty" if git(root, "status", "--porcelain", "--", "stages", "dvc.yaml") else ""
    read = (_read(root, *each) for each in (*experiments, *commits, (WORKSPACE, "", head + dirty)))
    found = with_unique_names([each for each in read if each])
    runs = tuple(each for each in found if isinstance(each, Run))
    return Collection(runs, tuple(each for each in found if isinstance(each, Absent)))


def _read(root: Path, name: str, commit: str, baseline: str) -> Run | Absent | None:
    """The results of one revision, if they can be trusted; None if it has none."""
    revision = Revision(root, commit or None)
    try:
        rows = {row: revision.json(f"metrics/scores/{row}.json") for row in ROWS}
        if None in rows.values():
            return None
        scores = revision.json("metrics/scores.json") or {**rows.pop("test"), **rows}
        params = revision.yaml(PARAMS_FILE)
        files: dict[str, Any] = {path: revision.json(path) for path in (f"metrics/{each}.json" for each in METRICS)}
        responses = revision.records(RESPONSES, Response)
    except StageError as error:
        return Absent(name, commit, "not readable", str(error))
    if missing := [switch for switch in (*SWITCHES, "pairs") if switch not in params]:
        return Absent(name, commit, "not readable", f"its params.yaml has no {', '.join(missing)}")
    if reason := next(problems(revision, params), None):
        return Absent(name, commit, "stale", reason)
    if responses:
        files[RESPONSES] = columns_of(responses)
    return Run(name, commit, baseline, scores, params, files)


def columns_of(responses: Sequence[Response]) -> dict[str, list[Any]]:
    """The fields of responses, each as a list."""
    return {field.name: [getattr(each, field.name) for each in responses] for field in fields(Response)}


def as_allowed_now(run: Run, quotable: Set[str]) -> Run:
    """Whoever takes `quote: true` back from a corpus means its earlier runs too; quotable: those that have it."""
    name = run.params["dataset"]
    entries = {**run.params["datasets"], name: run.entry("dataset") | {"quote": False}}
    return run if name in quotable else replace(run, params={**run.params, "datasets": entries})


def with_unique_names(found: Sequence[Any]) -> list[Any]:
    """Add the commit to names that occur twice: two baselines may have experiments of the same name."""
    often = {name for name, times in Counter(each.name for each in found).items() if times > 1}
    return [
        replace(each, name=f"{each.name} {each.commit[:COMMIT_DIGITS]}") if each.name in often else each
        for each in found
    ]
