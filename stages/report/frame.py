"""All numbers of the runs as one tidy table, and tables of the report as lists of its columns.

A row of the frame is one run, or what people, the lookup or shuffled responses score beside it; a column is one number.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pandas as pd

from stages.report.markdown import NONE, SPACE, count, percent, plain, spread, table
from stages.report.runs import Run
from stages.report.settings import RATES_PREFIX, Setting, flatten

BASELINES = {"human": "people", "retrieval": "lookup", "shuffled": "shuffled"}
PARTS = ("all", "unseen", "unlike")
SCORES = ("loss", "bleu1", "bleu2", "bleu3", "bleu4", "novelty", "diversity", "empty")
FURTHER = ("loops", "echoes", "unended", "exact", "distinct1", "distinct2", "ead", "chrf", "mean_words", "pairs")
MIB, GIB = 2**20, 2**30
LEAST_MATCHES = 10  # matching 4-grams; with fewer BLEU-4 says more about its smoothing than about the answers


def dig(content: Any, *keys: str) -> Any:
    """The value below some keys of nested tables; None where one is missing."""
    return reduce(lambda inner, key: inner.get(key) if isinstance(inner, dict) else None, keys, content)


def matches_of(scores: dict[str, Any]) -> int | None:
    """How many 4-grams of the responses stand in their references; None if that was not counted."""
    found = scores.get("matches")
    return None if found is None else int(found[-1])


def numbers_of(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of a row of responses, with those of its parts: `bleu4`, `bleu4_unseen`, ..."""
    found: dict[str, Any] = {name: scores.get(name) for name in (*SCORES, *FURTHER)}
    for part in PARTS:
        own = scores if part == "all" else scores.get(part) or {}
        ending = "" if part == "all" else f"_{part}"
        found |= {f"{name}{ending}": own.get(name) for name in SCORES}
        found[f"matches{ending}"] = matches = matches_of(own)
        if matches is not None and matches < LEAST_MATCHES:
            found[f"bleu4{ending}"] = None
    return found


def trials_of(run: Run) -> list[dict[str, Any]]:
    """The trials of a run in ascending order of learning rate, or of examples; none if they are not available."""
    return sorted(
        run.metrics("learning_rates") or [], key=lambda each: each["learning_rate"] or each.get("examples", 0)
    )


def by_loss(run: Run) -> bool:
    """Whether the validation loss chose the epoch and the trial, and not BLEU-4."""
    return bool(dig(run.entry("protocol"), "training", "metric_for_best_model") == "loss")


def best_of(run: Run, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The trial that training kept, by the score that its protocol selects by; the lowest of equal ones."""

    def quality(trial: dict[str, Any]) -> float:
        found = trial.get("validation_loss" if by_loss(run) else "bleu4")
        return -math.inf if found is None else -float(found) if by_loss(run) else float(found)

    return max(trials, key=quality) if trials else {}


def range_end(run: Run) -> str | None:
    """The end of the range of rates at which the best trial is: `lowest`, `highest` or None."""
    trials = trials_of(run)
    if len(trials) < 2:
        return None
    place = trials.index(best_of(run, trials))
    return {0: "lowest", len(trials) - 1: "highest"}.get(place)


def run_numbers(run: Run) -> dict[str, Any]:
    """What is known of a run beside its scores: cost, forgetting, search."""
    train, decode, trials = run.metrics("cost/train"), run.metrics("cost/greedy_generate"), trials_of(run)
    forgotten, best = run.scores.get("forgetting") or {}, best_of(run, trials)
    return {
        "parameters": train.get("trained_parameters", run.metrics("train").get("trained_parameters")),
        "mib": None if train.get("bytes") is None else train["bytes"] / MIB,
        "seconds": train.get("seconds"),
        "validation_seconds": train.get("validation_seconds"),
        "pairs_per_second": train.get("pairs_per_second"),
        "gib": None if train.get("peak_memory_bytes") is None else train["peak_memory_bytes"] / GIB,
        "answers_per_second": decode.get("responses_per_second"),
        "device": dig(run.scores, "generation", "device"),
        "forgetting": forgotten.get("difference"),
        "training_pairs": run.scores.get("training_pairs"),
        "validation_loss": best.get("validation_loss"),
        "learning_rate": best.get("learning_rate") or None,
        "epoch": best.get("epoch"),
        "rates": len(trials),
    }


def frame_of(setting: Setting) -> pd.DataFrame:
    """The runs of a setting; below each regime what people, the lookup and shuffled responses score."""
    rows: list[dict[str, Any]] = []
    for model, regime, cells in setting.groups():
        for cell in cells:
            where = {"model": model, "regime": regime, "method": cell.method, "row": "test"}
            for run in setting.runs[cell]:
                rows.append({**where, "seed": run.seed, "run": run, **numbers_of(run.scores), **run_numbers(run)})
        rows += [
            {"model": model, "regime": regime, "method": name, "row": row, "seed": run.seed, "run": run, **numbers}
            for row, name in BASELINES.items()
            for run in setting.at(regime)
            if (numbers := numbers_of(run.scores.get(row) or {}))["pairs"]
        ]
    for each in rows:
        normalised = dig(each["run"].scores, "bleu_variants", "normalised", each["row"], "bleu4")
        each["normalised"] = None if each["bleu4"] is None else normalised
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Column:
    """A column of a table: its title, and the cell of a configuration, from its rows in the frame (a row a seed)."""

    title: str
    cell: Callable[[pd.DataFrame], str]


def mean(name: str, title: str = "", digits: int = 3) -> Column:
    """The mean over seeds with its deviation."""
    return Column(title or name, lambda rows: spread(rows[name].tolist() if name in rows else [], digits))


def bleu(part: str = "all", title: str = "") -> Column:
    """BLEU-4, or why there is none: too few 4-grams of the responses stand in their references."""
    ending = "" if part == "all" else f"_{part}"

    def cell(rows: pd.DataFrame) -> str:
        scores, matches = rows[f"bleu4{ending}"].dropna().tolist(), rows[f"matches{ending}"].dropna().tolist()
        if len(scores) == len(rows):
            return spread(scores, 4)
        few = ", ".join(f"{each:.0f}" for each in matches)
        return f"{NONE} ({few}{SPACE}matching 4-grams)" if few else NONE

    return Column(title or "BLEU-4", cell)


def counted(name: str, title: str) -> Column:
    """A large number that the seeds share."""
    return Column(title, lambda rows: count(rows[name].max()) if name in rows else NONE)


WHICH = (
    Column("model", lambda rows: plain(rows["model"].iloc[0])),
    Column("data", lambda rows: percent(rows["regime"].iloc[0])),
)
METHOD = Column("method", lambda rows: plain(rows["method"].iloc[0]))
SEEDS = Column("seeds", lambda rows: ", ".join(map(str, rows["seed"])))


def lines(frame: pd.DataFrame, baselines: bool = True) -> list[pd.DataFrame]:
    """The rows of the frame of each configuration, in their order."""
    chosen = frame if baselines else frame[frame["row"] == "test"]
    return [rows for _, rows in chosen.groupby(["model", "regime", "row", "method"], sort=False)]


def show(groups: Iterable[pd.DataFrame], columns: Sequence[Column]) -> str:
    """A table: a row a configuration. Model and fraction of the data are columns only where they differ."""
    groups = list(groups)
    differing = [each for each in WHICH if len({each.cell(rows) for rows in groups}) > 1]
    head = [*differing, METHOD]
    cells = ([column.cell(rows) for column in (*head, *columns)] for rows in groups)
    return table([column.title for column in (*head, *columns)], cells, left=len(head))


def devices(runs: Iterable[Run]) -> str:
    """Where the runs ran."""
    found = {str(dig(run.scores, "generation", "device") or "not recorded") for run in runs}
    return ", ".join(sorted(found))


def parameters(setting: Setting) -> list[str]:
    """The content of every entry of params.yaml that the runs of a setting chose, one line an entry, without rates."""
    chosen: dict[tuple[str, str], Run] = {("dataset", ""): setting.any_run, ("protocol", ""): setting.any_run}
    for cell, (run, *_) in setting.runs.items():
        chosen |= {("model", cell.model): run, ("method", cell.method): run}
    entries = [(f"{kind}s.{run.switch(kind)}", run.entry(kind)) for (kind, _), run in chosen.items()]
    kept = [
        {key: each for key, each in flatten(entry, name).items() if RATES_PREFIX not in key} for name, entry in entries
    ]
    return [", ".join(f"`{key}={each}`" for key, each in table.items()) for table in kept]
