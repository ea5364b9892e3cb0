"""The report: the answer on page one, replies side by side, the paper's claims, a section a setting, an appendix."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd

from stages.records import Response
from stages.report import figures, frame
from stages.report.answer import Gap, caveats, gaps_of, reference_of, short_answers
from stages.report.claims import JUDGED, Judge
from stages.report.compare import Answers, NotMeasured
from stages.report.figures import Picture
from stages.report.frame import Column, bleu, counted, lines, mean, show
from stages.report.markdown import NONE, items, number, percent, plain, slug, table
from stages.report.runs import Absent, Collection
from stages.report.settings import Cell, Setting, rates_of_run, settings_of

TITLE = "Prompt it or fine-tune it?"
INTRODUCTION = """What the experiments of this project say, written by `python -m stages.report`. The question and the
methods are those of "Prompting for a conversation: How to control a dialog model?" (Valvoda, Fang and Vandyke 2022,
arXiv 2209.11068); this is an independent implementation, since no code of the paper is public."""
QUERIES = 8
CUT, LOOPS = "(cut)", "(repeats itself)"
GLOSSARY = (
    "**test loss**: the cross-entropy of the reference replies, in nats a token; lower is better. ±: the standard "
    "deviation over seeds, each with its own data. A number has no more digits than its uncertainty allows.",
    "**interval**: the middle 95 % of a bootstrap that draws dialogues, and seeds where there are several.",
    "**BLEU-n**: corpus BLEU by sacrebleu, as a fraction. A BLEU-4 from fewer than "
    f"{frame.LEAST_MATCHES} matching 4-grams is not shown: it would be the constant of a smoothing rule. "
    "**normalised**: with apostrophes and quotes written in one way, so that copied typesetting gains nothing.",
    "**novelty**: the share of replies that are not, word for word, a turn of the training dialogues; **diversity**: "
    "distinct replies over replies; **empty**: replies without a word, which count as novel.",
    "**unseen** pairs: neither query nor reply stands in the training pairs; **unlike** pairs: neither even resembles "
    "one there (near-duplicates; the rule is in stages/overlap.py).",
    "**forgetting** (catastrophic forgetting): how much the loss on prose that the model was not tuned on has risen, "
    "without the prompt but with what was trained.",
    "**lookup**: the reply to the most similar training query, by TF-IDF: what copying scores. **people**: the "
    "references themselves. **shuffled**: these in another order; a score that does not put them last is blind.",
    "**data**: the fraction of the training dialogues, drawn by the seed.",
)
DECISION = (
    Column("trained numbers", counted("parameters", "").cell),
    mean("mib", "MiB on disk", 1),
    mean("loss", "test loss"),
)
COST = (
    counted("parameters", "trained numbers"), mean("seconds", "training, s", 0),
    mean("validation_seconds", "validation, s", 0), mean("pairs_per_second", "pairs/s", 1),
    mean("gib", "peak memory, GiB", 1), mean("answers_per_second", "answers/s", 1),
)  # fmt: skip
LEAK = (
    bleu(), bleu("unseen", "BLEU-4 of unseen"), bleu("unlike", "BLEU-4 of unlike"),
    mean("loss_unseen", "loss of unseen"), mean("loss_unlike", "loss of unlike"),
)  # fmt: skip
OTHERS = tuple(mean(name, digits=3) for name in ("bleu1", "bleu2", "bleu3", "novelty", "diversity", "empty"))
WENT_WRONG = tuple(mean(name) for name in ("loops", "echoes", "unended", "exact", "mean_words"))
VARIETY = (
    *(mean(name) for name in ("distinct1", "distinct2", "ead", "chrf")), mean("normalised", "BLEU-4, normalised", 4),
)  # fmt: skip
SEARCH = (
    mean("learning_rate", "best learning rate", 6), counted("rates", "rates tried"), counted("epoch", "epoch"),
    mean("validation_loss", "validation loss"), mean("forgetting"),
)  # fmt: skip


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown once a reader opens them."""

    title: str
    blocks: list[str]


@dataclass
class Document:
    """Blocks of Markdown, figures and folds, in their order."""

    blocks: list[str | Picture | Fold] = field(default_factory=list)

    def add(self, *blocks: str | Picture | Fold) -> None:
        """Add blocks at the end, without empty ones."""
        self.blocks += [block for block in blocks if block]

    @property
    def pictures(self) -> list[Picture]:
        """Its figures."""
        return [block for block in self.blocks if isinstance(block, Picture)]

    def markdown(self, folder: str) -> str:
        """The whole text; `folder` is where it finds the figures."""
        return "\n\n".join(_as_markdown(block, folder) for block in self.blocks) + "\n"


def _as_markdown(block: str | Picture | Fold, folder: str) -> str:
    if isinstance(block, Picture):
        return f"![{plain(block.caption)}]({folder}/{block.name}.svg)"
    if isinstance(block, Fold):
        inner = "\n\n".join(block.blocks)
        return f"<details>\n<summary>{block.title}</summary>\n\n{inner}\n\n</details>"
    return block


def build(collection: Collection) -> Document:
    """The report of all experiments."""
    settings, repeated = settings_of(collection.runs)
    document, answers = Document(), Answers()
    frames = {each.title: frame.frame_of(each) for each in settings}
    document.add(f"# {TITLE}", INTRODUCTION)
    page_one(document, settings, frames, answers)
    document.add("## Answers to the same queries")
    document.add(*(block for each in settings for block in side_by_side(each, answers)))
    document.add("## Does the paper replicate?", *replication(settings, answers))
    for each in settings:
        print(f"{each.title}: {len(each.runs)} configurations", flush=True)
        section(document, each, frames[each.title])
    document.add("## Glossary", items(GLOSSARY), "## Appendix")
    document.add(*(fold for each in settings for fold in appendix(each, frames[each.title])))
    absent = [*collection.absent, *repeated]
    document.add(Fold(f"Not in the tables: {len(absent)}", [absent_table(absent)]) if absent else "")
    return document


def readme(collection: Collection) -> str:
    """The README's short answer and its table, a setting after another."""
    answers, blocks = Answers(), list[str]()
    for each in settings_of(collection.runs)[0]:
        blocks += [*short_answers(each, answers), decision_table(each, frame.frame_of(each), answers)]
    return "\n\n".join(blocks)


def page_one(
    document: Document, settings: Sequence[Setting], frames: dict[str, pd.DataFrame], answers: Answers
) -> None:
    """The short answer, the forest plot, the decision tables, what to know before using them."""
    document.add("## The short answer")
    if not settings:
        document.add("No experiment has results yet; run `dvc repro` or `python -m stages.grid`.")
        return
    document.add(*(text for each in settings for text in short_answers(each, answers)))
    groups = []
    for each in settings:
        for model, regime, cells in each.groups():
            if len(gaps := gaps_of(each, cells, answers)) > 1:
                title = f"{each.title}: {model}, {percent(regime)}"
                groups.append((title, reference_of(cells).method, [gap for gap in gaps if not gap.why]))
    if groups:
        caption = "How far the test loss of each method is above the reference's, with its 95 % interval"
        document.add(Picture("forest", caption, figures.forest(groups, "forest")))
    for each in settings:
        document.add(f"### {plain(each.title)}", decision_table(each, frames[each.title], answers))
    if known := list(caveats(settings)):
        document.add("### Before you use these numbers", items(known))


def decision_table(setting: Setting, rows: pd.DataFrame, answers: Answers) -> str:
    """A row a method: what it costs, its loss, how far that is from the reference, what it forgot, its BLEU-4."""
    gaps: dict[Cell, Gap] = {}
    references = []
    for _, _, cells in setting.groups():
        gaps |= {gap.cell: gap for gap in gaps_of(setting, cells, answers)}
        references.append(reference_of(cells).method)

    def told(group: pd.DataFrame) -> str:
        first = group.iloc[0]
        gap = gaps.get(Cell(first["model"], first["method"], first["regime"])) if first["row"] == "test" else None
        return NONE if gap is None else "the reference" if not (gap.found or gap.why) else gap.why or gap.told

    against = f"against {' or '.join(dict.fromkeys(references))} (95 %)"
    columns = (*DECISION, Column(against, told), mean("forgetting", "forgets", 3), bleu(), mean("novelty"), frame.SEEDS)
    return show(lines(rows), columns)


def side_by_side(setting: Setting, answers: Answers) -> Iterator[str]:
    """The same queries answered by every method, in the fraction and with the seed that have the most methods."""
    for model in setting.models:
        places: dict[tuple[float, int], dict[str, list[Response]]] = {}
        for cell in setting.cells(model=model):
            for run in setting.runs[cell]:
                if not run.entry("dataset").get("quote"):
                    continue
                try:
                    places.setdefault((cell.regime, -run.seed), {})[cell.method] = answers.of(run)
                except NotMeasured:
                    continue
        if not places:
            corpus = plain(str(setting.any_run.switch("dataset")))
            yield f"The replies to {corpus} are not quoted, or not in DVC's cache."
            continue
        print(f"quoted: {QUERIES} pairs of {setting.any_run.switch('dataset')}, since its entry has `quote: true`")
        place = max(places, key=lambda each: (len(places[each]), each))
        by_method = places[place]
        chosen = drawn(next(iter(by_method.values())), -place[1])
        yield f"### {plain(setting.title)}: {plain(model)}, {percent(place[0])}, seed {-place[1]}"
        for at in chosen:
            first = next(iter(by_method.values()))[at]
            said = [[f"**{plain(first.query)}**", ""], ["people", plain(first.reference)]]
            said += [[plain(method), marked(replies[at])] for method, replies in by_method.items()]
            yield table(said[0], said[1:], left=2)


def drawn(responses: Sequence[Response], seed: int) -> list[int]:
    """The numbers of the responses to show, drawn by the seed: nobody picks them."""

    def lot(number: int) -> str:
        each = responses[number]
        return hashlib.sha256(f"{seed}:{each.dialogue}:{each.position}".encode()).hexdigest()

    return sorted(sorted(range(len(responses)), key=lot)[:QUERIES])


def marked(response: Response) -> str:
    """A reply; one that was cut or ends in a loop says so."""
    words = response.response.split()
    loops = len(words) > 5 and any(words[-size:] == words[-2 * size : -size] for size in range(1, len(words) // 2 + 1))
    marks = [CUT] * bool(response.unended) + [LOOPS] * loops
    return " ".join([plain(response.response) or "(empty)", *(f"*{mark}*" for mark in marks)])


def replication(settings: Sequence[Setting], answers: Answers) -> Iterator[str]:
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


def section(document: Document, setting: Setting, rows: pd.DataFrame) -> None:
    """The section of a setting: by fraction of the data, forgetting against gain, the leak, cost, search."""
    ending, tested = slug(setting.title), rows[rows["row"] == "test"]
    document.add(f"## {plain(setting.title)}")
    document.add("" if setting.as_in_paper else "This is not the paper's experiment: corpus, pairs or protocol differ.")
    if len(setting.regimes) > 1:
        name = f"regimes-{ending}"
        document.add("### Test loss by fraction of the data")
        document.add(Picture(name, "Test loss by fraction of the training dialogues", figures.by_regime(rows, name)))
    if tested["forgetting"].notna().any():
        name, words = f"forgetting-{ending}", ("test loss", "forgetting: loss on other prose, rise in nats")
        document.add("### What tuning gives and what it takes")
        svg = figures.scatter(rows, "loss", "forgetting", words, name)
        document.add(Picture(name, "Forgetting against test loss: the lower left corner is best", svg))
    document.add("### The leak: scores of pairs that training does not give away", show(lines(rows), LEAK))
    if rows["bleu4"].notna().any():
        name = f"leak-{ending}"
        svg = figures.leak(rows, name, setting.on_papers_data)
        document.add(Picture(name, "BLEU-4 of all test pairs and of those unlike training", svg))
    document.add(f"### Cost (on {frame.devices(run for runs in setting.runs.values() for run in runs)})")
    document.add(show(lines(rows, baselines=False), COST))
    document.add("### The search for a learning rate", show(lines(rows, baselines=False), SEARCH))
    document.add(items([*range_ends(setting), *examples_tried(setting)]))
    if (tested["rates"] > 1).any():
        name = f"rates-{ending}"
        document.add(
            Picture(name, "What selected, by learning rate; rings mark the best", figures.rates(setting, name))
        )
    if (tested["epoch"].fillna(0) > 1).any():
        name = f"curves-{ending}"
        document.add(Picture(name, "Validation loss by epoch, of the chosen rate", figures.curves(setting, name)))


def range_ends(setting: Setting) -> list[str]:
    """A line a method whose best rate is at an end of those that were tried."""
    found: dict[str, set[str]] = {}
    for cell, runs in setting.runs.items():
        for run in runs:
            if end := frame.range_end(run):
                found.setdefault(f"{cell.method}, {end}", set()).add(f"{percent(cell.regime)}, seed {run.seed}")
    return [
        f"{plain(method)}: the {end} rate tried is the best one ({'; '.join(sorted(where))}): move its `learning_rate`"
        for (method, end), where in ((key.rsplit(", ", 1), where) for key, where in found.items())
    ]


def examples_tried(setting: Setting) -> list[str]:
    """A line a run of few-shot: the validation loss by the number of examples in the context."""
    found = []
    for cell, runs in setting.runs.items():
        for run in runs:
            tried = [
                (each["examples"], each["validation_loss"]) for each in frame.trials_of(run) if each.get("examples")
            ]
            if tried:
                told = ", ".join(f"{loss:.3f} with {count}" for count, loss in tried)
                found.append(
                    f"{plain(cell.method)}, {percent(cell.regime)}, seed {run.seed}: validation loss {told} examples"
                )
    return found


def appendix(setting: Setting, rows: pd.DataFrame) -> Iterator[Fold]:
    """The other scores, each seed, parameters and runs of a setting."""
    title = plain(setting.title)
    tables = [show(lines(rows), columns) for columns in (OTHERS, WENT_WRONG, VARIETY)]
    yield Fold(f"{title}: other scores", tables)
    seeds = lines(rows[rows["row"] == "test"])
    each = [group.iloc[[place]] for group in seeds for place in range(len(group))]
    yield Fold(f"{title}: each seed", [show(each, (frame.SEEDS, mean("loss", digits=4), bleu(), *OTHERS))])
    yield Fold(f"{title}: parameters", [items(frame.parameters(setting))])
    runs = [
        [
            plain(run.name), f"`{run.commit or 'workspace'}`",
            ", ".join(f"{key.split('.')[-1]}={value}" for key, value in rates_of_run(run).items()),
            number(run.scores.get("loss")), number(run.scores.get("bleu4"), 6),
        ]
        for cell in setting.cells()
        for run in setting.runs[cell]
    ]  # fmt: skip
    yield Fold(
        f"{title}: runs", [table(["experiment", "commit", "learning rates", "test loss", "BLEU-4"], runs, left=3)]
    )


def absent_table(absent: Sequence[Absent]) -> str:
    """The experiments that are not in the tables, and why."""
    return table(
        ["experiment", "state", "why"],
        ([plain(each.name), plain(each.state), plain(each.reason)] for each in absent),
        left=3,
    )
