"""Which runs can be compared: those with the same data, pairs and protocol, whatever their model, method and seed.

Which learning rates were tried is not part of that: each run has its best one. The content of the entries in
params.yaml counts, not their names: `-S protocols.paper.training.dropout=0` makes another protocol. If one name has
several contents, the values that differ are added to the name.
"""

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from stages.grid.configurations import MODELS
from stages.report.markdown import value
from stages.report.runs import Absent, Run, Runs

STYLES = {  # colour (Okabe and Ito's, for the colour-blind) and marker of each method; also the order in tables
    "fine-tune": ("#D55E00", "s"),
    "lora": ("#56B4E9", "P"),
    "prefix": ("#000000", "h"),
    "dynamic-prefix": ("#882255", "d"),
    "dynamic": ("#009E73", "^"),
    "soft": ("#0072B2", "o"),
    "dynamic-frozen": ("#009E73", "*"),
    "soft-frozen": ("#0072B2", "X"),
    "embeddings": ("#E69F00", "v"),
    "few-shot": ("#999933", "<"),
    "zero-shot": ("#CC79A7", "D"),
}
OTHER_STYLES = (("#666666", "p"), ("#AA4499", ">"), ("#44AA99", "8"))
RATES_PREFIX = "training.learning_rates."
KINDS = ("experiment", "commit", "workspace")
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


def paper_scores() -> dict[tuple[str, str, float], dict[str, float]]:
    """The paper's Tables 1 and 2: six scores by model, method and regime (percent), from paper.csv in this folder."""
    with Path(__file__).with_name("paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [(row.pop("model"), row.pop("method"), float(row.pop("regime"))) for row in rows]
    return {key: {name: float(each) for name, each in row.items()} for key, row in zip(keys, rows, strict=True)}


@dataclass(frozen=True)
class Cell:
    """A configuration within a setting; the names of model and method include what is needed to tell them apart."""

    model: str
    method: str
    regime: float


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in model, method, regime, seed and learning rates: one of each configuration and seed."""

    title: str
    runs: dict[Cell, Runs]

    @property
    def any_run(self) -> Run:
        """One of the runs: they agree in everything that defines the setting."""
        return next(iter(self.runs.values()))[0]

    @property
    def models(self) -> list[str]:
        """The models, the paper's first."""
        return in_order({cell.model for cell in self.runs}, MODELS)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of STYLES."""
        return in_order({cell.method for cell in self.runs}, tuple(STYLES))

    @property
    def regimes(self) -> list[float]:
        """The regimes, in ascending order."""
        return sorted({cell.regime for cell in self.runs})

    def cells(self, regime: float | None = None, model: str | None = None) -> list[Cell]:
        """The configurations by model, regime and method, all of them or those of a regime or a model."""
        models, regimes = [model] if model else self.models, [regime] if regime else self.regimes
        cells = (Cell(name, method, at) for name, at, method in product(models, regimes, self.methods))
        return [cell for cell in cells if cell in self.runs]

    def groups(self) -> list[tuple[str, float, list[Cell]]]:
        """The cells of each model in each regime: what a difference between methods is about."""
        return [
            (model, regime, cells)
            for model in self.models
            for regime in self.regimes
            if (cells := self.cells(regime, model))
        ]

    def at(self, regime: float) -> Runs:
        """A run of each seed in a regime, of any method: what people and the lookup score is the same in all."""
        found = {run.seed: run for cell in self.cells(regime) for run in self.runs[cell]}
        return tuple(found[seed] for seed in sorted(found))

    @property
    def on_papers_data(self) -> bool:
        """Whether the corpus is the paper's, by the sha256 of its training file."""
        pins = flatten(self.any_run.entry("dataset").get("files", {}))
        return bool(PAPERS_CORPUS & set(map(str, pins.values())))

    @property
    def as_in_paper(self) -> bool:
        """Whether this is the paper's experiment: its corpus, all its pairs, the values of its App. B."""
        run = self.any_run
        whole = pairs_of(run) == {"stride": 2} and not run.switch("drop_overlap")
        return self.on_papers_data and whole and PAPERS_PROTOCOL.items() <= flatten(run.entry("protocol")).items()


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method."""
    others, styles = iter(OTHER_STYLES * len(methods)), dict[str, tuple[str, str]]()
    for method in methods:
        known = STYLES.get(method.split(" ")[0])
        styles[method] = known if known and known not in styles.values() else next(others)
    return styles


def in_order(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Names in the order of the known ones (or those that begin with them), then the others in alphabetical order."""
    places = {name: known.index(word) if (word := name.split(" ")[0]) in known else len(known) for name in names}
    return sorted(places, key=lambda name: (places[name], name))


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
        keys = dict.fromkeys(key for peer in peers for key in peer)
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
    words = [str(run.switch("dataset")), f"protocol {run.switch('protocol')}"]
    words += [f"{key} {pairs[key]}" for key, usual in (("stride", 2), ("history", 1)) if pairs.get(key, usual) != usual]
    words += ["without overlap"] * bool(run.switch("drop_overlap"))
    protocol = flatten(run.entry("protocol"))
    return ", ".join(words), {
        "dataset": run.entry("dataset"),
        "pairs": pairs,
        "protocol": {key: each for key, each in protocol.items() if not key.startswith(RATES_PREFIX)},
    }


def settings_of(runs: Sequence[Run]) -> tuple[list[Setting], list[Absent]]:
    """The settings, the paper's first, and the runs that repeat another one.

    Of several runs of a configuration with one seed, that with the most learning rates counts, and of these the first:
    experiments come before commits and those before the workspace; runs that started from HEAD come before others.
    """
    titles = labels([setting_of(run) for run in runs])
    models = labels([(run.switch("model"), run.entry("model")) for run in runs])
    methods = labels([(run.switch("method"), _without_rate(run.entry("method"))) for run in runs])
    tables: dict[str, dict[Cell, dict[int, list[Run]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run, title, model, method in zip(runs, titles, models, methods, strict=True):
        tables[title][Cell(model, method, float(run.switch("regime")))][run.seed].append(run)
    settings, repeated = [], []
    for title, cells in tables.items():
        chosen: dict[Cell, Runs] = {}
        for cell, seeds in cells.items():
            ordered = [sorted(seeds[seed], key=_rank) for seed in sorted(seeds)]
            chosen[cell] = tuple(first for first, *_ in ordered)
            repeated += [_repeat(first, other) for first, *others in ordered for other in others]
        settings.append(Setting(title, chosen))
    settings.sort(key=lambda each: (not each.as_in_paper, not each.on_papers_data, each.title))
    return settings, repeated


def _without_rate(method: dict[str, Any]) -> dict[str, Any]:
    """A method's settings but for the place where its learning rates are searched."""
    return {key: each for key, each in method.items() if key != "learning_rate"}


def rates_of_run(run: Run) -> dict[str, Any]:
    """The learning rates that a run was to try, with the keys of params.yaml."""
    rates = flatten(run.entry("protocol")["training"]["learning_rates"], RATES_PREFIX.rstrip("."))
    own = run.entry("method").get("learning_rate")
    return rates | ({"learning_rate": own} if rates.get(f"{RATES_PREFIX}spread") is not None else {})


def _rank(run: Run) -> tuple[int, int]:
    return -rates_of_run(run).get(f"{RATES_PREFIX}trials", 0), KINDS.index(run.kind)


def _repeat(first: Run, other: Run) -> Absent:
    if rates_of_run(other) != rates_of_run(first):
        tried = ", ".join(f"{key}={each}" for key, each in rates_of_run(other).items())
        return Absent(other.name, other.commit, "other learning rates", f"{first.name} counts; this one tried {tried}")
    same = all(other.rows[row] == first.rows[row] for row in other.rows)
    state = "the same" if same else "other scores"
    return Absent(other.name, other.commit, state, f"the parameters of {first.name}, which counts")
