"""The report: the answer on page one, replies side by side, the paper's claims, a section a setting, an appendix."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stages.records import Response
from stages.report import figures
from stages.report.answer import caveats, short_answers
from stages.report.claims import JUDGED, Judge
from stages.report.compare import Answers, NotMeasured, gaps_of, lot, reference_of
from stages.report.markdown import (
    NONE,
    SEEDS,
    Column,
    bleu,
    counted,
    items,
    marks,
    mean,
    number,
    of_run,
    percent,
    plain,
    show,
    slug,
    spread,
    table,
    value,
)
from stages.report.page import TITLE, Document, Fold
from stages.report.runs import Collection, keep
from stages.report.settings import (
    LEAST_MATCHES,
    RATES_PREFIX,
    Cell,
    Setting,
    best_of,
    flatten,
    range_end,
    rates_told,
    settings_of,
    trials_of,
)

INTRODUCTION = """What the experiments of this project say, written by `python -m stages.report`. The question and the
methods are those of "Prompting for a conversation: How to control a dialog model?" (Valvoda, Fang and Vandyke 2022,
arXiv 2209.11068); this is an independent implementation, since no code of the paper is public."""
QUERIES = 8
GLOSSARY = (
    "**test loss**: the cross-entropy of the reference replies, in nats a token; lower is better. ±: the standard "
    "deviation over seeds, each with its own data. A number has no more digits than its uncertainty allows.",
    "**interval**: the middle 95 % of a bootstrap that draws dialogues, and seeds where there are several.",
    "**BLEU-n**: corpus BLEU by sacrebleu, as a fraction. A BLEU-4 from fewer than "
    f"{LEAST_MATCHES} matching 4-grams is not shown: it would be the constant of a smoothing rule. "
    "**normalised**: with apostrophes and quotes written in one way, so that copied typesetting gains nothing.",
    "**novelty**: the share of replies that are not, word for word, a turn of the training dialogues; **diversity**: "
    "distinct replies over replies; **empty**: replies without a word, which count as novel.",
    "**unseen** pairs: neither query nor reply stands in the training pairs; **unlike** pairs: neither even resembles "
    "one there (near-duplicates; the rule is in stages/overlap.py).",
    "**forgetting** (catastrophic forgetting): how much the loss on prose that the model was not tuned on has risen, "
    "without the prompt but with what was trained.",
    "**lookup**: the reply to the most similar training query, by TF-IDF: what copying scores. **people**: the "
    "references themselves. **shuffled**: these in another order; a score that does not put them last is blind.",
    "**relevance**: how much likelier a reply is after its query than without one, by the untouched model, in nats; "
    "**hits**: the share of replies that are likelier after their own query than after others (`relevance.others`).",
    "**data**: the fraction of the training dialogues, drawn by the seed.",
)
MIB, GIB = 2**20, 2**30
DECISION = (
    counted("train.trained_parameters", "trained numbers"), mean("train.bytes", "MiB on disk", 1, MIB),
    mean("loss", "test loss"),
)  # fmt: skip
FURTHER = (mean("forgetting.difference", "forgets"), bleu(), mean("novelty"), SEEDS)
TWINS = {  # names of methods end so
    "": "at the input, E trained",
    "-frozen": "at the input, E frozen",
    "-deep": "at every layer, E trained",
    "-deep-frozen": "at every layer, E frozen",
}
COST = (
    counted("train.trained_parameters", "trained numbers"), mean("train.seconds", "training, s", 0),
    mean("train.validation_seconds", "validation, s", 0), mean("train.pairs_per_second", "pairs/s", 1),
    mean("train.peak_memory_bytes", "peak memory, GiB", 1, GIB), mean("decode.responses_per_second", "answers/s", 1),
)  # fmt: skip
LEAK = (
    bleu(), bleu("unseen.", "BLEU-4 of unseen"), bleu("unlike.", "BLEU-4 of unlike"),
    mean("unseen.loss", "loss of unseen"), mean("unlike.loss", "loss of unlike"),
)  # fmt: skip
PAPERS = ("bleu1", "bleu2", "bleu3", "novelty", "diversity")
FURTHER_SCORES = ("distinct1", "distinct2", "ead", "chrf", "relevance", "hits")
OTHERS = tuple(mean(name) for name in (*PAPERS, "empty"))
WENT_WRONG = tuple(mean(name) for name in ("loops", "echoes", "unended", "exact", "mean_words"))
VARIETY = (*(mean(name) for name in FURTHER_SCORES), mean("normalised", "BLEU-4, normalised", 4))
EACH_SEED = (SEEDS, mean("loss", "test loss", 4), bleu(), *OTHERS)
RUNS = (
    SEEDS, of_run("experiment", lambda run: plain(run.name)),
    of_run("commit", lambda run: f"`{run.commit or 'workspace'}`"),
    of_run("learning rates", rates_told), of_run("BLEU-4", lambda run: number(run.scores.get("bleu4"), 6)),
)  # fmt: skip
SEARCH = (
    mean("search.learning_rate", "best learning rate", 6), counted("search.rates", "rates tried"),
    counted("search.epoch", "epoch"), mean("search.validation_loss", "validation loss"),
    mean("forgetting.difference", "forgetting"),
)  # fmt: skip

Blocks = Iterator[str | figures.Picture | Fold]


def build(collection: Collection) -> Document:
    """The report of all experiments."""
    settings, repeated = settings_of(collection.runs)
    answers, absent = Answers(), [*collection.absent, *repeated]

    def blocks() -> Blocks:
        yield from (f"# {TITLE}", INTRODUCTION)
        yield from page_one(settings, answers)
        yield "## Answers to the same queries"
        for each in settings:
            yield from side_by_side(each, answers)
        yield "## Does the paper replicate?"
        yield from replication(settings, answers)
        for each in settings:
            print(f"{each.title}: {len(each.runs)} configurations", flush=True)
            yield from section(each, answers)
        yield from ("## Glossary", items(GLOSSARY), "## Appendix")
        for each in settings:
            yield from appendix(each)
        if absent:
            rows = [[plain(each.name), plain(each.state), plain(each.reason)] for each in absent]
            yield Fold(f"Not in the tables: {len(absent)}", [table(["experiment", "state", "why"], rows, left=3)])

    return Document([block for block in blocks() if block])


def keep_shown(collection: Collection, folder: Path) -> None:
    """Write into a folder what `build` needs of the runs that it shows."""
    settings, repeated = settings_of(collection.runs)
    groups = {slug(each.title): [run for _, run in each.all_runs] for each in settings}
    size = keep(groups, [*collection.absent, *repeated], folder)
    print(f"{folder}: {sum(map(len, groups.values()))} runs, {size / 1e6:.2f} MB")


def readme(collection: Collection) -> str:
    """The README's short answer and its table, a setting after another."""
    answers, blocks = Answers(), list[str]()
    for each in settings_of(collection.runs)[0]:
        blocks += [*short_answers(each, answers), decision_table(each, answers)]
    return "\n\n".join(blocks)


def page_one(settings: Sequence[Setting], answers: Answers) -> Blocks:
    """The short answer, the forest plot, the decision tables, what to know before using them."""
    yield "## The short answer"
    if not settings:
        yield "No experiment has results yet; run `dvc repro` or `python -m stages.grid`."
        return
    groups: dict[str, Any] = {}
    for each in settings:
        yield from short_answers(each, answers)
        for model, regime, cells in each.groups():
            gaps = [gap for gap in gaps_of(each, cells, answers) if not gap.why]
            if len(gaps) > 1:
                groups[f"{each.title}: {model}, {percent(regime)}"] = reference_of(cells).method, gaps
    if groups:
        yield figures.forest(groups)
    for each in settings:
        yield from (f"### {plain(each.title)}", decision_table(each, answers))
    if known := list(caveats(settings)):
        yield from ("### Before you use these numbers", items(known))


def decision_table(setting: Setting, answers: Answers) -> str:
    """A row a method: what it costs, its loss, how far that is from the reference, what it forgot, its BLEU-4."""
    groups = [cells for _, _, cells in setting.groups()]
    told = {gap.cell: gap.told for cells in groups for gap in gaps_of(setting, cells, answers)}
    references = dict.fromkeys(reference_of(cells).method for cells in groups)

    def against(group: pd.DataFrame) -> str:
        first = group.iloc[0]
        return told.get(Cell(first["model"], first["method"], first["regime"]), NONE)

    column = Column(f"against {' or '.join(references)} (95 %)", against)
    return show(setting.frame, (*DECISION, column, *FURTHER))


def side_by_side(setting: Setting, answers: Answers) -> Blocks:
    """The same queries answered by every method, in the fraction and with the seed that have the most methods."""
    corpus = str(setting.any_run.switch("dataset"))
    for model in setting.models:
        places: dict[tuple[float, int], dict[str, list[Response]]] = {}
        for cell, run in setting.all_runs:
            try:
                if cell.model == model and run.entry("dataset").get("quote"):
                    places.setdefault((cell.regime, -run.seed), {})[cell.method] = answers.of(run)
            except NotMeasured:
                continue
        if not places:
            yield f"The replies to {plain(corpus)} are not quoted, or not in DVC's cache."
            continue
        print(f"quoted: {QUERIES} pairs of {corpus}, since its entry has `quote: true`")
        place = max(places, key=lambda each: (len(places[each]), each))
        by_method, seed = places[place], -place[1]
        yield f"### {plain(setting.title)}: {plain(model)}, {percent(place[0])}, seed {seed}"
        asked = next(iter(by_method.values()))
        drawn = sorted(range(len(asked)), key=lambda at: lot(asked[at], seed))[:QUERIES]
        for at in sorted(drawn):
            rows = [[plain(method), marked(replies[at])] for method, replies in by_method.items()]
            header = [f"**{plain(asked[at].query)}**", ""]
            yield table(header, [["people", plain(asked[at].reference)], *rows], left=2)


def marked(response: Response) -> str:
    """A reply; one that was cut or ends in a loop says so."""
    found = marks(response.response, response.unended)
    return " ".join([plain(response.response) or "(empty)", *(f"*{mark}*" for mark in found)])


def replication(settings: Sequence[Setting], answers: Answers) -> Blocks:
    """The claims of the paper, a table a setting."""
    yield (
        "BLEU-4 of the paper and of this project are comparable between methods, not with each other: the paper names "
        "no implementation. What each verdict means stands in stages/report/claims.py."
    )
    for setting in settings:
        rows = []
        for claim in Judge(setting, answers).claims():
            found = [f"**{verdict}**: {plain(why)}" for verdict, why in (claim.verdicts[part] for part in JUDGED)]
            rows.append([plain(claim.text), plain(claim.model), claim.paper, *found])
        yield f"### {plain(setting.title)}: the claims"
        yield table(["claim", "model", "the paper", "here, all pairs", "here, pairs unlike training"], rows, left=5)


def section(setting: Setting, answers: Answers) -> Blocks:
    """The section of a setting: by fraction of the data, forgetting against gain, the leak, cost, search."""
    ending, rows = slug(setting.title), setting.frame
    tested = rows[rows["row"] == "test"]
    yield f"## {plain(setting.title)}"
    yield "" if setting.as_in_paper else "This is not the paper's experiment: corpus, pairs or protocol differ."
    if tested["regime"].nunique() > 1 and measured(tested, "loss"):
        yield from ("### Test loss by fraction of the data", figures.by_regime(tested, ending))
    if measured(tested, "loss", "forgetting.difference"):
        yield "### What tuning gives and what it takes"
        picture = f"forgetting-{ending}", "Forgetting against test loss: the lower left corner is best"
        axes = "test loss", "forgetting: loss on other prose, rise in nats"
        yield figures.against(tested, picture, "loss", "forgetting.difference", axes)
    yield from ("### The leak: scores of pairs that training does not give away", show(rows, LEAK))
    if measured(rows, "bleu4"):
        yield figures.leak(rows, ending, setting.on_papers_data)
    yield from conditioning(setting, answers)
    devices = {run.score("generation.device") or "not recorded" for run in tested["run"]}
    yield from (f"### Cost (on {', '.join(sorted(devices))})", show(tested, COST))
    if measured(tested, "loss", "train.seconds"):
        picture = f"cost-{ending}", "Test loss against the time of training: the lower left corner is best"
        yield figures.against(tested, picture, "train.seconds", "loss", ("training, s", "test loss"))
    yield from ("### The search for a learning rate", show(tested, SEARCH))
    yield items(search_notes(setting))
    if tested["search.rates"].max() > 1:
        yield figures.rates(setting, ending)
    chosen = [best_of(run) for _, run in setting.all_runs]
    if any(each.get("validation_loss") and each["epoch"] > 1 for each in chosen):
        yield figures.by_epoch(setting, ending)


def measured(frame: pd.DataFrame, *names: str) -> bool:
    """Whether some run has all of these numbers."""
    return {*names} <= {*frame.columns} and len(frame.dropna(subset=[*names])) > 0


def conditioning(setting: Setting, answers: Answers) -> Blocks:
    """What a prompt gains by being made from the query, at the input or every layer, with E trained or frozen."""
    rows = []
    for model, regime, cells in setting.groups():
        named = {cell.method: cell for cell in cells}
        for ending, what in TWINS.items():
            twins = [named[method] for name in ("soft", "dynamic") if (method := f"{name}{ending}") in named]
            if len(twins) == 2:
                *_, gap = gaps_of(setting, twins, answers)
                losses = (spread(run.scores.get("loss") for run in setting.runs[cell]) for cell in twins)
                rows.append([f"{plain(model)}, {percent(regime)}", what, *losses, gap.told])
    if rows:
        yield "### What a prompt gains by depending on the query"
        yield table(["", "prompt", "test loss of soft", "of dynamic", "dynamic against soft (95 %)"], rows, left=2)


def search_notes(setting: Setting) -> Iterator[str]:
    """A line a method whose best rate is at an end; of few-shot, the validation loss by the number of examples."""
    ends: dict[str, list[str]] = {}
    for cell, run in setting.all_runs:
        where = f"{percent(cell.regime)}, seed {run.seed}"
        if end := range_end(run):
            ends.setdefault(f"{plain(cell.method)}: the {end} rate tried is the best one", []).append(where)
        tried = [
            f"{each['validation_loss']:.3f} with {each['examples']}" for each in trials_of(run) if "examples" in each
        ]
        if tried:
            yield f"{plain(cell.method)}, {where}: validation loss {', '.join(tried)} examples"
    for what, places in ends.items():
        yield f"{what} ({'; '.join(dict.fromkeys(places))}): move its `learning_rate`"


def appendix(setting: Setting) -> Iterator[Fold]:
    """The other scores, each seed, parameters and runs of a setting."""
    title, rows = plain(setting.title), setting.frame
    tables = [show(rows, columns) for columns in (OTHERS, WENT_WRONG, VARIETY)]
    yield Fold(f"{title}: other scores", [*tables, items(blind_scores(rows))])
    tested = rows[rows["row"] == "test"]
    yield Fold(f"{title}: each seed", [show(tested, EACH_SEED, by=["seed"]), show(tested, RUNS, by=["seed"])])
    yield Fold(f"{title}: parameters", [items(parameters(setting))])


def blind_scores(rows: pd.DataFrame) -> Iterator[str]:
    """Which scores do not put shuffled replies last, a line a model and fraction of the data."""
    for title, group in figures.panels_of(rows).items():
        known = [name for name in (*PAPERS, "bleu4", *FURTHER_SCORES) if name in group]
        means = group.groupby("method")[known].mean().astype(float)
        if "shuffled" in means.index:
            worse = means.drop("shuffled") <= means.loc["shuffled"]
            if blind := [str(name) for name in worse.columns[worse.any()]]:
                yield f"{title}: blind, since they do not put shuffled replies last: {', '.join(blind)}"


def parameters(setting: Setting) -> list[str]:
    """The content of every entry of params.yaml that the runs of a setting chose, one line an entry, without rates."""
    chosen: dict[tuple[str, str], Any] = {("dataset", ""): setting.any_run, ("protocol", ""): setting.any_run}
    for cell, (run, *_) in setting.runs.items():
        chosen |= {("model", cell.model): run, ("method", cell.method): run}
    entries = (flatten(run.entry(kind), f"{kind}s.{run.switch(kind)}") for (kind, _), run in chosen.items())
    return [
        ", ".join(f"`{key}={value(each)}`" for key, each in entry.items() if RATES_PREFIX not in key)
        for entry in entries
    ]
