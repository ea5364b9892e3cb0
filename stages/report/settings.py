"""Which runs can be compared: those with the same data, pairs and protocol, whatever their model, method and seed.

Relevance must have been measured with as many queries and others, and forgetting on as many tokens of the same text.
Which learning rates were tried does not count: each run has its best one. Nor do a corpus's `quote` and `license`, nor
the names of entries in params.yaml, but their content: `-S protocols.paper.training.dropout=0` makes another protocol.
If one name has several contents, the values that differ are added to it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle, groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from stages.grid.configurations import MODELS
from stages.report.markdown import percent, value
from stages.report.runs import Absent, Run, Runs, flatten

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
TRAINING_PREFIX = "protocol.training."  # goes without saying in a title
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
        """Of each model the group with the most data, of those with several methods if there are any."""
        return list({group[0]: group for group in sorted(self.groups, key=lambda group: len(group[2]) > 1)}.values())

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row a run; below each group what people, the lookup and shuffled responses score."""
        rows: list[dict[str, Any]] = []
        for model, regime, cells in self.groups:
            where = {"model": model, "regime": regime, "data": self.data(regime)}
            runs = [(cell.method, run) for cell in cells for run in self.runs[cell]]
            for method, run in runs:
                scores = numbers_of(run.scores) | run.numbers
                rows.append(scores | where | {"method": method, "row": "test", "seed": run.seed, "run": run})
            by_seed = sorted({run.seed: run for _, run in runs}.items())  # the same for all methods
            for (row, name), (seed, run) in product(BASELINES.items(), by_seed):
                if found := run.scores.get(row):
                    rows.append(numbers_of(found) | where | {"method": name, "row": row, "seed": seed, "run": run})
        return pd.DataFrame(rows)

    def search(self, file: str, *columns: str) -> pd.DataFrame:
        """Columns of a file of metrics/ from all runs: its rows that have them all, and of which run they are."""
        rows = [
            {"model": cell.model, "method": cell.method, "data": self.data(cell.regime), "run": run}
            | {column: row.get(column) for column in columns}
            for cell, run in self.all_runs
            for row in run.metrics(file)
        ]
        return pd.DataFrame(rows, columns=["model", "method", "data", "run", *columns]).dropna()

    def data(self, regime: float) -> str:
        """How much a regime trains on: `30 %, 3335 dialogues, 12491 pairs`.

        Where the protocol takes a few dialogues, they are what the regime is of: `70 dialogues, 434 pairs`.
        With several seeds it is `431 to 440 pairs`.
        """
        whole = self.any_run.entry("protocol")["data"]["train_dialogues"]
        few = whole and math.ceil(whole * regime / 100)
        runs = [run for cell, run in self.all_runs if cell.regime == regime]
        there = {run.score("subset.train.dialogues") for run in runs} - {None}  # a small corpus has fewer than it takes
        told = [percent(regime)] * (few is None) + [f"{max(there, default=few)} dialogues"] * bool(there or few)
        pairs = [run.scores.get("training_pairs") for run in runs]
        if known := sorted({each for each in pairs if each}):
            told.append(f"{' to '.join(map(str, dict.fromkeys([known[0], known[-1]])))} pairs")
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
        pairs = run.params["pairs"]
        whole = pairs["stride"] == 2 and pairs["history"] == 1 and not run.params["drop_overlap"]
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


def labels(entries: Sequence[tuple[str, Any]]) -> list[str]:
    """A label for each (name, content): the name, or `soft (rows=1)` with what tells it from others of that name."""
    flat = [(name, flatten(content)) for name, content in entries]
    made = []
    for name, values in flat:
        peers = [other for other_name, other in flat if other_name == name]
        keys = sorted({key for peer in peers for key in peer})
        differing = [key for key in keys if len({repr(peer.get(key)) for peer in peers}) > 1]
        told = ", ".join(f"{key.removeprefix(TRAINING_PREFIX)}={value(values.get(key))}" for key in differing)
        made.append(f"{name} ({told})" if told else name)
    return made


def identity(entry: dict[str, Any]) -> dict[str, Any]:
    """What makes an entry of params.yaml another one: not a folder, in which files may be moved; their hashes stay."""
    known = {key: each for key, each in flatten(entry).items() if not str(each).startswith("file:")}
    return {key: each for key, each in known.items() if key not in ("quote", "license", "learning_rate")}


def setting_of(run: Run) -> tuple[str, Any]:
    """What the runs of one table must share: a name for it, and its content."""
    pairs = run.params["pairs"]
    words = [str(run.params["dataset"]), f"protocol {run.params['protocol']}"]
    words += [f"{key} {pairs[key]}" for key, usual in (("stride", 2), ("history", 1)) if pairs[key] != usual]
    words += ["without overlap"] * bool(run.params["drop_overlap"])
    protocol = flatten(run.entry("protocol"))
    earlier = {"text": run.score("forgetting.text") or "", "tokens": 4096}  # of runs kept without that parameter
    forgetting: dict[str, Any] = run.params.get("forgetting") or earlier
    return ", ".join(words), {
        "dataset": identity(run.entry("dataset")),
        "pairs": {key: each for key, each in pairs.items() if key != "joined_by" or pairs["history"] > 1},
        "protocol": {key: each for key, each in protocol.items() if not key.startswith(RATES_PREFIX)},
        "relevance": run.params.get("relevance") or run.score("generation.relevance"),
        "forgetting": {**forgetting, "text": Path(forgetting["text"]).name},
    }


def settings_of(runs: Sequence[Run]) -> tuple[list[Setting], list[Absent]]:
    """The settings, the paper's first, then those with the most runs, and the runs that repeat another one.

    Of several runs of a configuration with one seed, that with the most learning rates counts, of these one with its
    responses (a clone without DVC's cache has none), and of these the first.
    """
    titles = labels(list(map(setting_of, runs)))
    models, methods = (
        labels([(run.params[switch], identity(run.entry(switch))) for run in runs]) for switch in ("model", "method")
    )
    cells = map(Cell, models, methods, (float(run.params["regime"]) for run in runs))

    def order(each: tuple[str, Cell, Run]) -> tuple[Any, ...]:
        _, cell, run = each
        known = place(cell.model, MODELS), cell.regime, place(cell.method, [*STYLES])
        return *known, run.seed, -len(run.rates), not run.responses

    found: dict[str, dict[Cell, dict[int, Run]]] = {}
    repeated = []
    for title, cell, run in sorted(zip(titles, cells, runs, strict=True), key=order):
        first = found.setdefault(title, {}).setdefault(cell, {}).setdefault(run.seed, run)
        if first is not run:
            state = "the same parameters" if run.rates == first.rates else "other learning rates"
            repeated.append(Absent(run.name, run.commit, state, f"{first.name} counts"))
    settings = [
        Setting(title, {cell: tuple(seeds.values()) for cell, seeds in cells.items()}) for title, cells in found.items()
    ]
    settings.sort(key=lambda each: (not each.as_in_paper, -len(each.all_runs), each.title))
    return settings, repeated


def numbers_of(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores of a row of responses by dotted keys: `bleu4`, `unseen.bleu4`, ..."""
    found: dict[str, Any] = {"loss": None, "forgetting.difference": None, **flatten(scores)}
    for part in ("", "unseen.", "unlike."):
        known = found.get(f"{part}matches")
        found[f"{part}matches"] = matches = None if known is None else int(known[-1])
        found[f"{part}bleu4"] = found.get(f"{part}bleu4") if (matches or 0) >= LEAST_MATCHES else None
    return found
