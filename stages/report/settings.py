"""Which runs can be compared: those with the same data, pairs and protocol, whatever their model, method and seed.

Relevance must have been measured with as many queries and others, and forgetting on the same text.

Which learning rates were tried is not part of that: each run has its best one. The content of the entries in
params.yaml counts, not their names: `-S protocols.paper.training.dropout=0` makes another protocol. If one name has
several contents, the values that differ are added to the name.

All numbers of such runs stand in one frame: a row is a run, or what people, the lookup or shuffled responses score
beside it; a column is one number.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import cycle, groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from stages.grid.configurations import MODELS
from stages.report.markdown import percent, value
from stages.report.runs import Absent, Run, Runs

STYLES = {  # colour (Okabe and Ito's, for the colour-blind) and marker of each method; also the order in tables
    "fine-tune": ("#D55E00", "s"),
    "lora": ("#56B4E9", "P"),
    "prefix": ("#000000", "h"),
    "dynamic": ("#009E73", "^"),
    "soft": ("#0072B2", "o"),
    "dynamic-frozen": ("#009E73", "*"),
    "soft-frozen": ("#0072B2", "X"),
    "dynamic-deep": ("#009E73", "1"),
    "soft-deep": ("#0072B2", "2"),
    "dynamic-deep-frozen": ("#009E73", "3"),
    "soft-deep-frozen": ("#0072B2", "4"),
    "prompt-tuning": ("#56B4E9", "H"),
    "embeddings": ("#E69F00", "v"),
    "few-shot": ("#999933", "<"),
    "zero-shot": ("#CC79A7", "D"),
}
OTHER_STYLES = (("#666666", "p"), ("#AA4499", ">"), ("#44AA99", "8"))
RATES_PREFIX = "training.learning_rates."
# DailyDialog: the sha256 of its text files, and of the archive of the training set that params.yaml pins.
PAPERS_CORPUS = {
    "3db42eef11758c62908fe3183ae93e7ac5c6da5f27771f340543d184973cee9e",
    "c5179ab5a9a86a77b9d29114087c6b82cc4cb366abea25a43a0c24be761133f7",
}
PAPERS_PROTOCOL = {  # App. B; keys as in an entry of `protocols` in params.yaml
    "data.train_dialogues": None,
    "data.validation_pairs": None,
    "data.test_pairs": None,
    f"{RATES_PREFIX}low": 3e-6,
    f"{RATES_PREFIX}high": 9e-3,
    f"{RATES_PREFIX}trials": 12,
    "training.batch_size": 8,
    "training.num_train_epochs": 300,
    "training.early_stopping_patience": 100,
}
BASELINES = {"human": "people", "retrieval": "lookup", "shuffled": "shuffled"}
LEAST_MATCHES = 10  # matching 4-grams; with fewer BLEU-4 says more about its smoothing than about the answers


class Cell(NamedTuple):
    """A configuration within a setting; the names of model and method include what is needed to tell them apart."""

    model: str
    method: str
    regime: float


def paper_scores() -> dict[Any, dict[str, float]]:
    """The paper's Tables 1 and 2, from paper.csv in this folder: for each (model, method, regime) its six scores."""
    table = pd.read_csv(Path(__file__).with_name("paper.csv"), index_col=["model", "method", "regime"])
    return dict(table.to_dict("index"))


@dataclass(frozen=True, eq=False)
class Setting:
    """Runs that differ only in model, method, regime, seed and learning rates: one of each configuration and seed."""

    title: str
    runs: dict[Cell, Runs]  # by model, regime and method, in the order of the tables

    @property
    def all_runs(self) -> list[tuple[Cell, Run]]:
        """Every run with its configuration."""
        return [(cell, run) for cell, runs in self.runs.items() for run in runs]

    @property
    def any_run(self) -> Run:
        """One of the runs: they agree in everything that defines the setting."""
        return self.all_runs[0][1]

    @property
    def groups(self) -> list[tuple[str, float, tuple[Cell, ...]]]:
        """The cells of each model in each regime, the paper's models first: what differences are within."""
        found = groupby(self.runs, key=lambda cell: (cell.model, cell.regime))
        return [(model, regime, tuple(cells)) for (model, regime), cells in found]

    @property
    def largest(self) -> list[tuple[str, float, tuple[Cell, ...]]]:
        """Of each model the group with the most data."""
        return list({model: (model, *rest) for model, *rest in self.groups}.values())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a run; below each group what people, the lookup and shuffled responses score."""
        rows: list[dict[str, Any]] = []
        for model, regime, cells in self.groups:
            where = {"model": model, "regime": regime, "data": self.data(regime)}
            runs = [(cell.method, run) for cell in cells for run in self.runs[cell]]
            for method, run in runs:
                here = {**where, "method": method, "row": "test", "seed": run.seed, "run": run}
                rows.append({**numbers_of(run.scores), **run_numbers(run), **here})
            seeds = sorted({run.seed: run for _, run in runs}.items())  # what people score is the same for all methods
            for row, name in BASELINES.items():
                for seed, run in seeds:
                    if scores := run.scores.get(row):
                        here = {**where, "method": name, "row": row, "seed": seed, "run": run}
                        rows.append({**numbers_of(scores), **here})
        return pd.DataFrame(rows)

    def search(self, file: str, *columns: str) -> pd.DataFrame:
        """Columns of a file of metrics/ from all runs: its rows that have them all, and of which run they are."""
        rows = [
            {"model": cell.model, "method": cell.method, "data": self.data(cell.regime), "run": run}
            | {column: row.get(column) for column in columns}
            for cell, run in self.all_runs
            for row in run.metrics(file)
        ]
        return pd.DataFrame(rows).dropna()

    def data(self, regime: float) -> str:
        """How much a regime trains on: `30 %, 12491 pairs`.

        Where the protocol takes a few dialogues, they are what the regime is of: `70 dialogues, 434 pairs`.
        With several seeds it is `431 to 440 pairs`.
        """
        few = self.any_run.entry("protocol")["data"]["train_dialogues"]
        told = [percent(regime) if few is None else f"{math.ceil(few * Fraction(str(regime)) / 100)} dialogues"]
        found = [run.scores.get("training_pairs") for cell, run in self.all_runs if cell.regime == regime]
        if known := [each for each in found if each]:
            told.append(f"{' to '.join(map(str, sorted({min(known), max(known)})))} pairs")
        return ", ".join(told)

    @property
    def on_papers_data(self) -> bool:
        """Whether the corpus is the paper's, by the sha256 of its training file."""
        pins = flatten(self.any_run.entry("dataset").get("files", {}))
        return bool(PAPERS_CORPUS & set(map(str, pins.values())))

    @property
    def as_in_paper(self) -> bool:
        """Whether this is the paper's experiment: its corpus, all its pairs, the values of its App. B."""
        run = self.any_run
        whole = pairs_of(run) == {"stride": 2} and not run.params["drop_overlap"]
        return self.on_papers_data and whole and PAPERS_PROTOCOL.items() <= flatten(run.entry("protocol")).items()


def place(name: str, known: Sequence[str]) -> tuple[int, str]:
    """Where a name stands in a table: in the order of the known ones (or those that begin with them), then others."""
    word = name.split(" ")[0]
    return known.index(word) if word in known else len(known), name


def method_styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method."""
    others, styles = cycle(OTHER_STYLES), dict[str, tuple[str, str]]()
    for method in methods:
        known = STYLES.get(method.split(" ")[0])
        styles[method] = known if known and known not in styles.values() else next(others)
    return styles


def flatten(table: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table with dotted keys."""
    if not isinstance(table, dict):
        return {prefix: table}
    inner = [flatten(each, f"{prefix}.{key}" if prefix else str(key)) for key, each in table.items()]
    return {key: each for found in inner for key, each in found.items()}


def labels(entries: Sequence[tuple[str, Any]]) -> list[str]:
    """A label for each (name, content): the name and, if needed, the values that tell it from others of that name.

    >>> labels([("soft", {"rows": 1}), ("soft", {"rows": 2}), ("dynamic", {})])
    ['soft (rows=1)', 'soft (rows=2)', 'dynamic']
    """
    flat = [(name, flatten(content)) for name, content in entries]
    made = []
    for name, values in flat:
        peers = [other for other_name, other in flat if other_name == name]
        keys = sorted({key for peer in peers for key in peer})
        differing = [key for key in keys if len({repr(peer.get(key)) for peer in peers}) > 1]
        told = ", ".join(f"{key}={value(values.get(key))}" for key in differing)
        made.append(f"{name} ({told})" if told else name)
    return made


def pairs_of(run: Run) -> dict[str, Any]:
    """How a run made pairs of dialogues; the keys about earlier turns only where the query has some."""
    pairs = dict(run.params["pairs"])
    return {"stride": pairs["stride"]} if pairs["history"] == 1 else pairs


def setting_of(run: Run) -> tuple[str, Any]:
    """What the runs of one table must share: a name for it, and its content."""
    pairs = pairs_of(run)
    words = [str(run.params["dataset"]), f"protocol {run.params['protocol']}"]
    words += [f"{key} {pairs[key]}" for key, usual in (("stride", 2), ("history", 1)) if pairs.get(key, usual) != usual]
    words += ["without overlap"] * bool(run.params["drop_overlap"])
    protocol = flatten(run.entry("protocol"))
    forgetting = run.params.get("forgetting") or run.score("forgetting") or {}  # the latter of runs kept earlier
    return ", ".join(words), {
        "dataset": run.entry("dataset"),
        "pairs": pairs,
        "protocol": {key: each for key, each in protocol.items() if not key.startswith(RATES_PREFIX)},
        "relevance": run.params.get("relevance") or run.score("generation.relevance"),
        "forgetting": Path(forgetting.get("text", "")).name,
    }


def method_of(run: Run) -> tuple[str, Any]:
    """A method and its settings but for the place where its learning rates are searched."""
    return run.params["method"], {key: each for key, each in run.entry("method").items() if key != "learning_rate"}


def configuration_of(run: Run) -> str:
    """All that tells a run from others but for its learning rates, as text: a second such run repeats the first."""
    told = [
        setting_of(run),
        run.params["model"],
        run.entry("model"),
        method_of(run),
        float(run.params["regime"]),
        run.seed,
    ]
    return json.dumps(told, sort_keys=True)


def settings_of(runs: Sequence[Run]) -> tuple[list[Setting], list[Absent]]:
    """The settings, the paper's first, and the runs that repeat another one.

    Of several runs of a configuration with one seed, that with the most learning rates counts, and of these the first.
    """
    titles, methods = labels(list(map(setting_of, runs))), labels(list(map(method_of, runs)))
    models = labels([(run.params["model"], run.entry("model")) for run in runs])
    cells = map(Cell, models, methods, (float(run.params["regime"]) for run in runs))

    def order(each: tuple[str, Cell, Run]) -> tuple[Any, ...]:
        _, cell, run = each
        return place(cell.model, MODELS), cell.regime, place(cell.method, [*STYLES]), run.seed, -len(rates_of(run))

    found: dict[str, dict[Cell, dict[int, Run]]] = {}
    repeated = []
    for title, cell, run in sorted(zip(titles, cells, runs, strict=True), key=order):
        first = found.setdefault(title, {}).setdefault(cell, {}).setdefault(run.seed, run)
        if first is not run:
            state = "the same parameters" if rates_of(run) == rates_of(first) else "other learning rates"
            repeated.append(Absent(run.name, run.commit, state, f"{first.name} counts"))
    settings = [
        Setting(title, {cell: tuple(seeds.values()) for cell, seeds in cells.items()}) for title, cells in found.items()
    ]
    settings.sort(key=lambda each: (not each.as_in_paper, not each.on_papers_data, each.title))
    return settings, repeated


def trials_of(run: Run) -> list[dict[str, Any]]:
    """The trials of a run in ascending order of learning rate, or of examples; none if they are not available."""
    trials = run.metrics("learning_rates") or []
    return sorted(trials, key=lambda each: each["learning_rate"] or each.get("examples", 0))


def rates_of(run: Run) -> list[float]:
    """The learning rates that a run tried."""
    return [each["learning_rate"] for each in trials_of(run) if each["learning_rate"]]


def selects_by(run: Run) -> str:
    """The score that chose the epoch and the trial: `validation_loss` or `bleu4`, as trials name it."""
    by_loss = run.entry("protocol")["training"].get("metric_for_best_model") == "loss"
    return "validation_loss" if by_loss else "bleu4"


def best_of(run: Run) -> dict[str, Any]:
    """The trial that training kept, the first of equal ones; {} if no trial has the score."""
    name = selects_by(run)
    scored = [each for each in trials_of(run) if each.get(name) is not None]
    best = min if name == "validation_loss" else max
    return best(scored, key=lambda each: each[name], default={})


def range_end(run: Run) -> str | None:
    """The end of the range of rates at which the best trial is: `lowest`, `highest` or None."""
    rates, best = rates_of(run), best_of(run).get("learning_rate")
    if len(rates) < 2 or best not in (rates[0], rates[-1]):
        return None
    return "lowest" if best == rates[0] else "highest"


def numbers_of(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of a row of responses by dotted keys: `bleu4`, `unseen.bleu4`, ..."""
    found: dict[str, Any] = {"loss": None, "forgetting.difference": None, **flatten(scores)}
    for part in ("", "unseen.", "unlike."):
        known = found.get(f"{part}matches")
        found[f"{part}matches"] = matches = None if known is None else int(known[-1])
        few = matches is not None and matches < LEAST_MATCHES
        found[f"{part}bleu4"] = None if few else found.get(f"{part}bleu4")
    return found


def run_numbers(run: Run) -> dict[str, Any]:
    """What is known of a run beside its scores: cost, search."""
    train = {**run.metrics("train"), **run.metrics("cost/train")}
    best, name = best_of(run), selects_by(run)
    tried = [each for each in trials_of(run) if each["learning_rate"] and each.get(name) is not None]
    search = {**best, "learning_rate": best.get("learning_rate") or None, "rates": len(tried)}
    return flatten({"train": train, "decode": run.metrics("cost/greedy_generate"), "search": search})
