"""Build the report from the experiments: its Markdown and its figures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

from stages.report import paper
from stages.report.answers import MIN_PAIRS, Answers
from stages.report.claims import ALPHA, NEGLIGIBLE, VERDICTS, Claim, Judge
from stages.report.diagnostics import bleu_tables, diagnostics_tables
from stages.report.examples import MARK, QUERIES, example_tables
from stages.report.figures import Picture, rates_figure, scores_figure
from stages.report.markdown import items, link, plain, value
from stages.report.rates import Rates, rates_of
from stages.report.runs import Absent, Collection, Run
from stages.report.scores import leakage_table, parts_tables, score_tables
from stages.report.sections import absent_table, claims_table, entry, parameters, rates_table, settings_table, warnings
from stages.report.settings import Cell, Setting, settings_of

TITLE = "Prompting for a conversation: the report"
INTRODUCTION = """Every number comes from an experiment of this project, as `dvc exp show` has it. The link in its row
leads to the experiment, the commit and the parameters that made it. `dvc exp apply NAME` restores an experiment.
`python -m stages.report` writes this file. "The paper" is Valvoda, Fang and Vandyke, "Prompting for a conversation:
How to control a dialog model?" (2022, arXiv 2209.11068)."""
DEFINITIONS = (
    "BLEU-n, novelty and diversity are fractions from 0 to 1, as in the paper. Novelty is the share of responses that "
    "are not, word for word, a turn of the training dialogues; diversity is the share of distinct responses. Both are "
    "as the paper defines them, and neither notices a response without words: empty is the share of those, which "
    "count as novel.",
    "loops: the share of responses that end in a repeated n-gram; echoes: that repeat their query; unended: that met "
    "the length limit; exact: that are their reference, word for word, from which much of BLEU-4 comes on a corpus "
    "that leaks (the rules are in stages/score/diagnostics.py). distinct-n: different n-grams over n-grams of all "
    "responses; EAD: different words over those expected of as many random ones, which does not favour short "
    "responses; chrF: F-score of character n-grams.",
    "The paper names no implementation of BLEU. *sentence* and *sentence-smoothed* are means over responses, computed "
    "by NLTK; *lower-case* is sacrebleu's with case ignored. The BLEU of the other tables fits the paper's ratios "
    "BLEU-1 : BLEU-2 : BLEU-3 : BLEU-4 at least as well as any of them (the numbers are in stages/score/variants.py).",
    "*unseen* pairs: the test pairs of which neither the query nor the response is, word for word, in the training "
    "regime; *unlike* pairs: those of which neither even resembles one there (the rule is in stages/overlap.py). Two "
    "runs are compared on the pairs that are unseen, or unlike, in both.",
    "retrieval: the response to the most similar training query, by TF-IDF; it shows what copying scores. human: the "
    "references themselves; their BLEU is 1 by definition.",
    "Intervals are the middle 95 % of a bootstrap; p-values are those of sacrebleu's paired bootstrap test (1000 "
    "draws, two-sided, not corrected for the number of tests). Both draw test pairs and see one training run per "
    "configuration: they do not include the differences between seeds.",
    f"A claim that one system scores above another holds if it does with p < {ALPHA}; it does not hold if the other "
    "does. The claim that soft prompts stop improving does not hold if a larger regime is better with "
    f"p < {ALPHA}; it holds if, for each larger regime, the interval of the difference excludes a gain of "
    f"{100 * NEGLIGIBLE:g} % of the score at 30 %. Anything between, as with a small test set, is called not "
    f"contradicted. With fewer than {MIN_PAIRS} pairs a claim is not measured.",
    "The corpus counts as the paper's if the pinned sha256 of its files are DailyDialog's, whatever its name. Models "
    "and methods count as the paper's if they have its names (`gpt2`, `dialogpt`, `fine-tune`, `soft`, `dynamic`); "
    "the parameters of each setting say what these names mean.",
)


@dataclass
class Document:
    """Blocks of Markdown, and the figures in `folder` that they show."""

    folder: str
    blocks: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def add(self, *blocks: str) -> None:
        """Add blocks at the end."""
        self.blocks += [block for block in blocks if block]

    def show(self, name: str, caption: str, svg: str) -> None:
        """Add a figure."""
        self.pictures.append(Picture(name, caption, svg))
        self.add(f"![{plain(caption)}]({self.folder}/{name}.svg)")

    @property
    def markdown(self) -> str:
        """The whole text."""
        return "\n\n".join(self.blocks) + "\n"


def build(collection: Collection, folder: str) -> Document:
    """Build the report of all experiments; `folder` is where its Markdown finds the figures."""
    settings, repeated = settings_of(collection.runs)
    document, answers = Document(folder), Answers()
    rates = {each.title: rates_in(each) for each in settings}
    claims = {}
    for number, each in enumerate(settings, start=1):
        print(f"setting {number}/{len(settings)}: {each.title}, {len(each.runs)} runs", flush=True)
        claims[each.title] = list(Judge(each, answers).claims())
    document.add(f"# {TITLE}", INTRODUCTION)
    document.add(*summary(settings, claims, rates, [*collection.absent, *repeated]))
    for each in settings:
        add_setting(document, each, claims[each.title], rates[each.title], answers)
    document.add("## Experiments")
    for each in settings:
        for _, run in ordered(each):
            document.add(*entry(run, each))
    return document


def rates_in(setting: Setting) -> dict[Cell, Rates]:
    """The learning-rate trials of each run that had any."""
    found = {cell: rates_of(run) for cell, run in ordered(setting)}
    return {cell: each for cell, each in found.items() if each}


def ordered(setting: Setting) -> list[tuple[Cell, Run]]:
    """The runs by model, method and regime."""
    cells = product(setting.models, setting.methods, setting.regimes())
    return [(Cell(*cell), setting.runs[Cell(*cell)]) for cell in cells if Cell(*cell) in setting.runs]


def summary(
    settings: Sequence[Setting],
    claims: dict[str, list[Claim]],
    rates: dict[str, dict[Cell, Rates]],
    absent: Sequence[Absent],
) -> Iterator[str]:
    """What was run, the verdicts, warnings, what is missing from the tables, and definitions."""
    yield "## Summary"
    if not settings:
        yield "No experiment has results yet; run `dvc repro` or `python -m stages.grid`."
    else:
        yield "Numbers of different settings are never compared: each has its own section below."
        yield settings_table(settings)
    measured = {cell for each in settings if each.as_in_paper for cell in compared(each)}
    protocol = ", ".join(f"`{key}={value(each)}`" for key, each in paper.PROTOCOL.items())
    yield (
        f"Of the paper's {len(paper.paper_scores())} configurations, {len(measured)} were measured with its data "
        f"(DailyDialog, stride 2, all training pairs) and its protocol. A protocol counts as the paper's if it has the "
        f"values of App. B, whatever its name: {protocol}."
    )
    for each in settings:
        found = [claim.findings["all"].verdict for claim in claims[each.title]]
        counts = ", ".join(f"{verdict}: {found.count(verdict)}" for verdict in VERDICTS)
        yield f"The paper's claims on all test pairs of {link(each.title)}: {counts}."
    if noted := [f"{plain(title)}: {line}" for title, each in rates.items() for line in warnings(each)]:
        yield "### Warnings: the best learning rate is at an end of the range"
        yield items(noted)
    if absent:
        yield "### Not in the tables"
        yield absent_table(absent)
    yield "### How to read it"
    yield items(DEFINITIONS)


def compared(setting: Setting) -> list[Cell]:
    """The configurations of a setting that the paper has too; the paper always trains word embeddings (Sec. 3)."""
    known = paper.paper_scores()
    return [
        cell
        for cell, run in setting.runs.items()
        if (cell.model, cell.method, cell.regime) in known and run.entry("method").get("train_embeddings", True)
    ]


def add_setting(
    document: Document, setting: Setting, claims: Sequence[Claim], rates: dict[Cell, Rates], answers: Answers
) -> None:
    """The section of a setting."""
    title, slug = setting.title, re.sub(r"[^a-z0-9]+", "-", setting.title.lower()).strip("-")
    document.add(f"## {plain(title)}")
    if not setting.as_in_paper:
        document.add("**This is not the paper's experiment**: its corpus, pairs or protocol differ.")
    document.add("### The paper's claims", claims_table(claims))
    document.add("### Scores of all test pairs", *score_tables(setting))
    papers = " Faint lines: the paper's values." if setting.on_papers_data else ""
    for number, scores, what in (
        (2, ("bleu4", "novelty", "diversity"), "BLEU-4, novelty and diversity"),
        (3, ("bleu1", "bleu2", "bleu3", "bleu4"), "BLEU-1 to BLEU-4"),
    ):
        caption = f"Figure {number} ({title}): {what} of all test pairs against the regime.{papers}"
        name = f"figure-{number}-{slug}"
        document.show(name, caption, scores_figure(setting, scores, name))
    document.add("### What went wrong, and the variety of words", *diagnostics_tables(setting))
    document.add("### Other kinds of BLEU", *bleu_tables(setting))
    document.add("### Leakage", leakage_table(setting))
    document.add("### Scores of the pairs that the training regime does not give away", *parts_tables(setting))
    if rates:
        document.add("### Learning rates", rates_table(setting, rates))
        caption = f"Learning rates ({title}): the best validation BLEU-4 of each trial. Crosses are diverged trials."
        document.show(f"rates-{slug}", caption, rates_figure(rates, f"rates-{slug}"))
    drawing = f"At most {QUERIES} queries, drawn at random. {MARK} marks text that is, word for word, a training turn."
    document.add("### Answers to the same queries", drawing, *example_tables(setting, answers))
    document.add("### Parameters of these runs", parameters(setting))
