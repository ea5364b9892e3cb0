"""Group the runs that can be in one table: those with the same data, protocol and pairs, whatever their seed.

Which learning rates were tried is not part of that, unless they are those of App. B: each run has its best one.

The content of the entries in params.yaml counts, not their names: `-S protocols.paper.training.dropout=0` makes another
protocol. If one name has several contents, the values that differ are added to the name.

The order of the methods in tables and their colours in figures are here too.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from stages.report import paper
from stages.report.markdown import slug, value
from stages.report.runs import Absent, Run, Runs

STYLES = {  # colour and marker of each method in figures; this is also the order in tables, the paper's first
    "fine-tune": ("#D55E00", "s"),
    "soft": ("#0072B2", "o"),
    "dynamic": ("#009E73", "^"),
    "lora": ("#56B4E9", "P"),
    "soft-frozen": ("#0072B2", "X"),
    "dynamic-frozen": ("#009E73", "*"),
    "embeddings": ("#E69F00", "v"),
    "zero-shot": ("#CC79A7", "D"),
}
METHODS = tuple(STYLES)
RATES_PREFIX = "training.learning_rates."
RATES = tuple(key for key in paper.PROTOCOL if key.startswith(RATES_PREFIX))
KINDS = ("experiment", "commit", "workspace")


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
        return in_order({cell.model for cell in self.runs}, paper.MODELS)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the paper's tables."""
        return in_order({cell.method for cell in self.runs}, METHODS)

    def regimes(self, **wanted: str) -> list[float]:
        """The regimes, in ascending order, of the runs with the given `model` and `method` (of all, if not given)."""
        return sorted({cell.regime for cell in self.runs if all(getattr(cell, at) == wanted[at] for at in wanted)})

    def cells(self) -> list[Cell]:
        """The configurations by model, method and regime."""
        cells = (Cell(*each) for each in product(self.models, self.methods, self.regimes()))
        return [cell for cell in cells if cell in self.runs]

    def at(self, regime: float) -> Runs:
        """A run of each seed in a regime, of any method: what people and the lookup score is the same in all."""
        found = {run.switch("seed"): run for cell in self.cells() if cell.regime == regime for run in self.runs[cell]}
        return tuple(found[seed] for seed in sorted(found))

    @property
    def on_papers_data(self) -> bool:
        """Whether to show the paper's numbers next to ours: the corpus is the same, by the sha256 of its files."""
        entry, keys = flatten(self.any_run.entry("dataset")), ("sha256", "member_sha256")
        return all(known & {entry.get(f"files.{part}.{key}") for key in keys} for part, known in paper.CORPUS.items())

    @property
    def as_in_paper(self) -> bool:
        """Whether this is the paper's experiment: its corpus, all its pairs, the values of its App. B."""
        run = self.any_run
        whole = pairs_of(run) == {"stride": 2} and not run.switch("drop_overlap")
        return self.on_papers_data and whole and paper.PROTOCOL.items() <= flatten(run.entry("protocol")).items()


def in_order(names: set[str], known: Sequence[str]) -> list[str]:
    """Names in the order of the known ones (or those that begin with them), then the others in alphabetical order."""
    first = [word.split(" ")[0] for word in known]
    places = {name: first.index(word) if (word := name.split(" ")[0]) in first else len(first) for name in names}
    return sorted(names, key=lambda name: (places[name], name))


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one table with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    inner = [flatten(each, f"{prefix}.{key}" if prefix else str(key)) for key, each in value.items()]
    return {key: each for table in inner for key, each in table.items()}


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
        made.append(
            f"{name} ({', '.join(f'{key}={value(values.get(key))}' for key in differing)})" if differing else name
        )
    return made


def pairs_of(run: Run) -> dict[str, Any]:
    """How a run made pairs of dialogues; the keys about earlier turns only where the query has some."""
    pairs = dict(run.params["pairs"])
    if pairs.get("history", 1) == 1:  # runs before there was a history have no key for it
        return {"stride": pairs["stride"]}
    return pairs


def _numbered(titles: Sequence[str]) -> list[str]:
    """Titles that differ in signs only get a number: links to sections and names of figures have no signs."""
    alike: dict[str, list[str]] = defaultdict(list)
    for title in dict.fromkeys(titles):
        alike[slug(title)].append(title)
    places = [(title, alike[slug(title)].index(title) + 1) for title in titles]
    return [title if place == 1 else f"{title}, {place}" for title, place in places]


def setting_of(run: Run) -> tuple[str, Any]:
    """What the runs of one table must share: a name for it, and its content."""
    pairs = pairs_of(run)
    words = [run.switch("dataset"), f"protocol {run.switch('protocol')}"]
    words += [f"stride {pairs['stride']}"] * (pairs["stride"] != 2)
    if "history" in pairs:
        words.append(f"history {pairs['history']}")
    words += ["without overlap"] * bool(run.switch("drop_overlap"))
    protocol = flatten(run.entry("protocol"))
    papers = all(protocol.get(key) == paper.PROTOCOL[key] for key in RATES)
    return ", ".join(words), {
        "dataset": run.entry("dataset"),
        "pairs": pairs,
        "protocol": {key: each for key, each in protocol.items() if not key.startswith(RATES_PREFIX)},
        "learning_rates": "of App. B" if papers else "others",
    }


def settings_of(runs: Sequence[Run]) -> tuple[list[Setting], list[Absent]]:
    """The settings, the paper's first, and the runs that repeat another one.

    Of several runs of a configuration with one seed, that with the most learning rates counts, and of these the first:
    experiments come before commits and those before the workspace; runs that started from HEAD come before others. If
    another one has other scores, its entry says so.
    """
    titles = _numbered(labels([setting_of(run) for run in runs]))
    models = labels([(run.switch("model"), run.entry("model")) for run in runs])
    methods = labels([(run.switch("method"), _without_rate(run.entry("method"))) for run in runs])
    tables: dict[str, dict[Cell, dict[int, list[Run]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for run, title, model, method in zip(runs, titles, models, methods, strict=True):
        tables[title][Cell(model, method, run.regime)][run.switch("seed")].append(run)
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
    """The learning rates that a run was to try, with the keys of params.yaml; none for a method that trains nothing."""
    if run.entry("method").get("kind") == "zero-shot":
        return {}
    rates = flatten(run.entry("protocol")["training"]["learning_rates"], RATES_PREFIX.rstrip("."))
    own = run.entry("method").get("learning_rate")
    return rates | ({"learning_rate": own} if rates.get(f"{RATES_PREFIX}spread") is not None else {})


def _rank(run: Run) -> tuple[int, int]:
    return -rates_of_run(run).get(f"{RATES_PREFIX}trials", 0), KINDS.index(run.kind)


def _shared(first: Run, second: Run, row: str) -> set[str]:
    """The columns that both have: an older run may have others."""
    return first.rows[row].keys() & second.rows[row].keys()


def _repeat(first: Run, other: Run) -> Absent:
    if rates_of_run(other) != rates_of_run(first):
        tried = ", ".join(f"{key}={each}" for key, each in rates_of_run(other).items())
        reason = f"{first.name} is in the tables; this one tried {tried}; BLEU-4 {other.rows['test'].get('bleu4')}"
        return Absent(other.name, other.commit, "other learning rates", reason)
    if all(other.rows[row][key] == first.rows[row][key] for row in other.rows for key in _shared(first, other, row)):
        return Absent(other.name, other.commit, "the same", f"the parameters and scores of {first.name}")
    reason = f"the parameters of {first.name}, which is in the tables; BLEU-4 {other.rows['test'].get('bleu4')}"
    return Absent(other.name, other.commit, "other scores", reason)
