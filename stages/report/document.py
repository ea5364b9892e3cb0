"""The report: the answer on page one, replies side by side, the paper's claims, a section a setting, an appendix."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from stages.records import Response
from stages.report import figures, markdown
from stages.report.claims import NOT_TESTED, PARTS, caveats, claims_of, judge, of_paper, seeds, short_answers
from stages.report.compare import gaps_of, lot
from stages.report.markdown import NONE, SEEDS, Column, items, marks, plain, show, slug, spread, table, value
from stages.report.page import TITLE, Document, fold
from stages.report.runs import COMMIT_DIGITS, Collection, flatten
from stages.report.settings import LEAST_MATCHES, RATES_PREFIX, Cell, Setting, settings_of

INTRODUCTION = """What the experiments of this project say, written by `python -m stages.report`. The question and the
methods are those of "Prompting for a conversation: How to control a dialog model?" (Valvoda, Fang and Vandyke 2022,
arXiv 2209.11068); this is an independent implementation, since no code of the paper is public."""
QUERIES, OPEN = 8, 3  # drawn; and of these, shown unfolded
CAVEATS = 4  # at most
GLOSSARY = (
    "**test loss**: the cross-entropy of the reference replies, in nats a token; lower is better. ±: the standard "
    "deviation over seeds, each with its own data. A number has no more digits than its uncertainty allows.",
    "**interval**: the middle 95 % of a bootstrap that draws dialogues, and seeds where there are several.",
    "**BLEU-n**: corpus BLEU by sacrebleu, as a fraction. A BLEU-4 from fewer than "
    f"{LEAST_MATCHES} matching 4-grams is not shown: it would be the constant of a smoothing rule.",
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
    "**data**: the fraction of the training dialogues, or how many dialogues, drawn by the seed.",
)
TWINS = {  # names of methods end so
    "": "at the input, E trained",
    "-frozen": "at the input, E frozen",
    "-deep": "at every layer, E trained",
    "-deep-frozen": "at every layer, E frozen",
}
RUNS = (
    SEEDS,
    Column("experiment", lambda rows: plain(rows["run"].iloc[0].name)),
    Column("commit", lambda rows: f"`{rows['run'].iloc[0].commit[:COMMIT_DIGITS] or 'workspace'}`"),
    Column("learning rates", lambda rows: ", ".join(f"{rate:.3g}" for rate in rows["run"].iloc[0].rates) or NONE),
)

Blocks = Iterator[str | figures.Picture]


def build(collection: Collection) -> Document:
    """The report of all experiments."""
    return [block for block in _blocks(collection) if block]


def _blocks(collection: Collection) -> Blocks:
    settings, repeated = settings_of(collection.runs)
    yield from (f"# {TITLE}", INTRODUCTION)
    yield from page_one(settings)
    yield "## Answers to the same queries"
    for each in settings:
        yield from side_by_side(each)
    yield "## Does the paper replicate?"
    yield from replication(settings)
    for each in settings:
        print(f"{each.title}: {len(each.runs)} configurations", flush=True)
        yield from section(each)
    yield from ("## Glossary", items(GLOSSARY), "## Appendix", commits(settings))
    for each in settings:
        yield from appendix(each)
    if absent := [*collection.absent, *repeated]:
        rows = [[plain(each.name), plain(each.state), plain(each.reason)] for each in absent]
        yield from fold(f"Not in the tables: {len(absent)}", [table(["experiment", "state", "why"], rows, left=3)])


def readme(collection: Collection) -> str:
    """The README's short answer and its table, a setting after another, but none with a single method beside others."""
    settings, _ = settings_of(collection.runs)
    shown = [each for each in settings if len(each.runs) > 1] or settings
    answers = [block for each in shown for block in (*short_answers(each), decision_table(each))]
    return "\n\n".join([*answers, items(list(caveats(shown))[:CAVEATS])])


def page_one(settings: Sequence[Setting]) -> Blocks:
    """The short answer, the forest plot, the decision tables, what to know before using them."""
    yield "## The short answer"
    if not settings:
        yield "No experiment has results yet; run `dvc repro` or `python -m stages.grid`."
        return
    groups = {}
    for each in settings:
        yield from short_answers(each)
        for model, regime, cells in each.groups:
            gaps = [gap for gap in gaps_of(each, cells) if gap.known]
            if len(gaps) > 1:
                groups[f"{each.title}: {model}, {each.data(regime)}"] = gaps
    if groups:
        yield figures.forest(groups)
    for each in settings:
        yield from (f"### {plain(each.title)}", decision_table(each))
    if known := list(caveats(settings))[:CAVEATS]:
        yield from ("### Before you use these numbers", items(known))


def decision_table(setting: Setting) -> str:
    """A row a method, the best first: its cost, its loss, how far that is from the reference, what it forgot."""
    known_first = [
        sorted(gaps_of(setting, cells), key=lambda gap: (not gap.known, gap.value)) for *_, cells in setting.groups
    ]
    gaps = [gap for group in known_first for gap in group]
    told = {gap.cell: gap.told for gap in gaps}
    references = dict.fromkeys(gap.cell.method for gap in gaps if gap.is_reference)
    ranks: dict[tuple[Any, ...], int] = {}
    for gap in gaps:  # people and the lookup come behind the last method
        ranks[gap.cell] = ranks[gap.cell[::2]] = len(ranks)
    cells = [Cell(*each) for each in setting.frame[["model", "method", "regime"]].itertuples(index=False)]
    rank = [ranks.get(cell, ranks[cell[::2]]) for cell in cells]

    def against(rows: pd.DataFrame) -> str:
        return told.get(Cell(*rows[["model", "method", "regime"]].iloc[0]), NONE)

    column = Column(f"against {' or '.join(references)} (95 %)", against)
    rows = setting.frame.iloc[sorted(range(len(rank)), key=rank.__getitem__)]
    return show(rows, (*markdown.DECISION, column, *markdown.FURTHER))


def side_by_side(setting: Setting) -> Blocks:
    """The same queries answered by every method, in the largest regime, with the seed that most have."""
    corpus = str(setting.any_run.params["dataset"])
    for model, regime, cells in setting.largest:
        runs = [(cell.method, run) for cell in cells for run in setting.runs[cell]]
        [(seed, _)] = Counter(sorted(run.seed for _, run in runs)).most_common(1)
        allowed = [(method, run) for method, run in runs if run.seed == seed and run.entry("dataset").get("quote")]
        known = {method: said for method, run in allowed if (said := run.responses)}
        if known:
            print(f"quoted: {QUERIES} pairs of {corpus}, since its entry has `quote: true`")
            yield f"### {plain(setting.title)}: {plain(model)}, {setting.data(regime)}, seed {seed}"
            first, *more = quoted(known, seed)
            yield first
            if more:
                yield from fold("More of these queries", more)
        else:
            yield f"The replies to {plain(corpus)} are not quoted, or not in DVC's cache."


def quoted(by_method: dict[str, list[Response]], seed: int) -> Iterator[str]:
    """A table and, for a fold, a second one: a drawn query, what people said, what each method said."""
    asked = next(iter(by_method.values()))
    queries = [each.query for each in asked]
    same = {method: said for method, said in by_method.items() if [each.query for each in said] == queries}
    drawn = sorted(range(len(asked)), key=lambda at: lot(asked[at], seed))[:QUERIES]
    for some in filter(None, (drawn[:OPEN], drawn[OPEN:])):
        rows = []
        for at in some:
            rows += [["**query**", f"**{plain(asked[at].query)}**"], ["people", plain(asked[at].reference)]]
            rows += [[plain(method), marked(replies[at])] for method, replies in same.items()]
        yield table(["method", "reply"], rows, left=2)


def marked(response: Response) -> str:
    """A reply; one that was cut or ends in a loop says so."""
    found = marks(response.response, response.unended)
    return " ".join([plain(response.response) or "(empty)", *(f"*{mark}*" for mark in found)])


def replication(settings: Sequence[Setting]) -> Blocks:
    """The claims of the paper, a table a setting; those that no run tests are folded."""
    yield (
        "BLEU-4 of the paper and of this project are comparable between methods, not with each other: the paper names "
        "no implementation. What each verdict means stands in stages/report/claims.py."
    )
    for setting in settings:
        rows, untested = [], []
        for claim in claims_of(setting):
            found = [judge(claim, setting, part) for part in PARTS]
            told = [f"**{verdict}**: {plain(why)}" for verdict, why in found]
            model = claim.first.model if claim.first.model == claim.second.model else "both"
            if {verdict for verdict, _ in found} == {NOT_TESTED}:
                paper = of_paper(claim, setting)
                untested.append(f"{plain(claim.text)} ({plain(model)}; the paper: {paper}): {plain(found[0][1])}")
            else:
                rows.append([plain(claim.text), plain(model), of_paper(claim, setting), *told])
        yield f"### {plain(setting.title)}: {len(rows)} of {len(rows) + len(untested)} claims could be tested"
        if rows:
            yield table(["claim", "model", "the paper", "here, all pairs", "here, pairs unlike training"], rows, left=5)
        if untested:
            yield from fold("Not tested, and why", [items(untested)])


def section(setting: Setting) -> Blocks:
    """The section of a setting: by fraction of the data, forgetting against gain, the leak, cost, search."""
    ending, rows = slug(setting.title), setting.frame
    tested = rows[rows["row"] == "test"]
    yield f"## {plain(setting.title)}"
    yield "" if setting.as_in_paper else "This is not the paper's experiment: corpus, pairs or protocol differ."
    if len(known := tested.dropna(subset=["loss"])) and tested["regime"].nunique() > 1:
        picture = f"regimes-{ending}", "Test loss by fraction of the training dialogues"
        yield from ("### Test loss by fraction of the data", figures.lines(known, "regime", "loss", picture))
    if len(both := tested.dropna(subset=["loss", "forgetting.difference"])):
        picture = f"forgetting-{ending}", "Forgetting against test loss: the lower left corner is best"
        yield from ("### What tuning gives and what it takes", figures.forgetting(both, picture))
    yield from ("### The leak: scores of pairs that training does not give away", show(rows, markdown.LEAK))
    yield from conditioning(setting)
    facts = [(run.score("generation.device"), run.numbers.get("train.precision")) for run in tested["run"]]
    devices = {
        f"{device or 'a device not recorded'}, trained in {precision or 'a precision not recorded'}"
        for device, precision in facts
    }
    yield from (f"### Cost (on {'; '.join(sorted(devices))})", show(tested, markdown.COST))
    yield from search(setting, ending)


def search(setting: Setting, ending: str) -> Blocks:
    """The chosen learning rates, what selected by rate, and by epoch where a later one was chosen."""
    tested = setting.frame[setting.frame["row"] == "test"]
    yield from ("### The search for a learning rate", show(tested, markdown.SEARCH), items(search_notes(setting)))
    if tested["train.rates"].max() > 1:
        score = setting.any_run.selects_by
        tried = setting.search("learning_rates", "learning_rate", score)
        picture = f"rates-{ending}", "What selected, by learning rate"
        yield figures.lines(tried[tried["learning_rate"] > 0], "learning_rate", score, picture)
    if any(run.metrics("train").get("epoch", 0) > 1 for run in tested["run"]):
        after = setting.search("curves", "learning_rate", "epoch", "validation_loss")
        chosen = after["learning_rate"] == after["run"].map(lambda run: run.numbers["train.learning_rate"])
        picture = f"curves-{ending}", "Validation loss by epoch, of the chosen rate"
        yield figures.lines(after[chosen], "epoch", "validation_loss", picture)


def conditioning(setting: Setting) -> Blocks:
    """What a prompt gains by being made from the query, at the input or every layer, with E trained or frozen."""
    rows = []
    for model, regime, cells in setting.groups:
        names = [cell.method.split(" ")[0] for cell in cells]
        named = {name: cell for name, cell in zip(names, cells, strict=True) if names.count(name) == 1}  # of one kind
        for ending, what in TWINS.items():
            twins = tuple(named[name] for name in (f"soft{ending}", f"dynamic{ending}") if name in named)
            if len(twins) == 2:
                losses = [spread(run.scores.get("loss") for run in setting.runs[cell]) for cell in twins]
                place = f"{plain(model)}, {setting.data(regime)}"
                rows.append([place, what, *losses, gaps_of(setting, twins)[-1].told])
    if rows:
        yield "### What a prompt gains by depending on the query"
        yield table(["", "prompt", "test loss of soft", "of dynamic", "dynamic against soft (95 %)"], rows, left=2)


def search_notes(setting: Setting) -> Iterator[str]:
    """The validation loss of few-shot by the number of examples; a line a method whose best rate is at an end."""
    where = ["method", "model", "data"]
    for names, rows in setting.search("learning_rates", "examples", "validation_loss").groupby(where, sort=False):
        losses = rows.groupby("examples")["validation_loss"]
        told = ", ".join(f"{spread(each)} with {examples:.0f}" for examples, each in losses)
        yield f"{', '.join(map(plain, names))}: validation loss {told} examples"
    ended = [(cell.method, cell.model, setting.data(cell.regime), run.range_end) for cell, run in setting.all_runs]
    for (*names, end), count in Counter(each for each in ended if each[-1]).items():
        what = f"{', '.join(map(plain, names))}: the {end} rate tried is the best one"
        yield f"{what} ({seeds(count)}): move its `learning_rate`, or widen the range"


def commits(settings: Sequence[Setting]) -> str:
    """Which commits' code made the runs, if several did."""
    made = Counter(run.baseline[:COMMIT_DIGITS] + run.baseline[40:] for each in settings for _, run in each.all_runs)
    told = ", ".join(f"`{commit}` {count}" for commit, count in sorted(made.items()))
    return f"The runs were made by the code of {len(made)} commits: {told}." if len(made) > 1 else ""


def appendix(setting: Setting) -> Blocks:
    """The other scores, each seed, parameters and runs of a setting."""
    title, rows = setting.title, setting.frame
    shown = [show(rows, columns) for columns in (markdown.OTHERS, markdown.WENT_WRONG, markdown.VARIETY)]
    yield from fold(f"{title}: other scores", [*shown, items(blind_scores(rows))])
    tested = rows[rows["row"] == "test"]
    each_seed = [show(tested, columns, by=["seed"]) for columns in (markdown.EACH_SEED, RUNS)]
    yield from fold(f"{title}: each seed", each_seed)
    yield from fold(f"{title}: parameters", [items(parameters(setting))])


def blind_scores(rows: pd.DataFrame) -> Iterator[str]:
    """Which scores do not put shuffled replies last, a line a model and fraction of the data."""
    for title, group in figures.panels_of(rows).items():
        known = [name for name in (*markdown.PAPERS, "bleu4", *markdown.FURTHER_SCORES) if name in group]
        means = group.groupby("method")[known].mean().astype(float)
        if "shuffled" in means.index:
            worse = means.drop("shuffled") <= means.loc["shuffled"]
            if blind := [str(name) for name in worse.columns[worse.any()]]:
                yield f"{title}: blind, since they do not put shuffled replies last: {', '.join(blind)}"


def parameters(setting: Setting) -> list[str]:
    """The content of every entry of params.yaml that the runs of a setting chose, one line an entry, without rates."""
    chosen = [(kind, setting.any_run) for kind in ("dataset", "protocol")]
    chosen += [(kind, run) for run, *_ in setting.runs.values() for kind in ("model", "method")]
    entries = (flatten(run.entry(kind), f"{kind}s.{run.params[kind]}") for kind, run in chosen)
    told = ([f"`{key}={value(each)}`" for key, each in entry.items() if RATES_PREFIX not in key] for entry in entries)
    return list(dict.fromkeys(", ".join(each) for each in told))
