"""Build the report from the experiments: its Markdown and its figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stages.report import paper
from stages.report.answers import MIN_PAIRS, Answers
from stages.report.claims import ALPHA, NEGLIGIBLE, VERDICTS, Claim, Judge
from stages.report.cost import cost_table
from stages.report.diagnostics import bleu_tables, diagnostics_tables, forgetting_table
from stages.report.examples import MARK, QUERIES, example_tables
from stages.report.figures import Picture, rates_figure, scores_figure
from stages.report.losses import losses_table
from stages.report.markdown import items, link, plain, slug, value
from stages.report.pareto import explanation, marks_of, pareto_figure
from stages.report.prompt_table import prompt_tables
from stages.report.rates import Rates, rates_of
from stages.report.runs import Absent, Collection
from stages.report.scores import leakage_table, parts_tables, score_tables
from stages.report.sections import (
    absent_table,
    claims_table,
    entry,
    parameters,
    rates_table,
    rates_taken,
    settings_table,
    warnings,
)  # fmt: skip
from stages.report.settings import Cell, Setting, settings_of

TITLE = "Prompting for a conversation: the report"
INTRODUCTION = """Every number comes from an experiment of this project, as `dvc exp show` has it. The link in its row
leads to the experiment, the commit and the parameters that made it. `dvc exp apply NAME` restores an experiment in the
Git repository in which it was run. A clone of that has no experiments, unless somebody shared them (`dvc exp pull`):
there, make them again. `python -m stages.report` writes this file. "The paper" is Valvoda, Fang and Vandyke, "Prompting
for a conversation: How to control a dialog model?" (2022, arXiv 2209.11068)."""
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
    "by NLTK (with its smoothing method 7 equal texts score above 1); *lower-case* is sacrebleu's with case ignored. "
    "The BLEU of the other tables fits the paper's ratios BLEU-1 : BLEU-2 : BLEU-3 : BLEU-4 at least as well as any of "
    "them (the numbers are in stages/score/variants.py).",
    "*unseen* pairs: the test pairs of which neither the query nor the response is, word for word, in the training "
    "regime; *unlike* pairs: those of which neither even resembles one there (the rule is in stages/overlap.py). Two "
    "runs are compared on the pairs that are unseen, or unlike, in both.",
    "retrieval: the response to the most similar training query, by TF-IDF; it shows what copying scores. human: the "
    "references themselves; their BLEU is 1 by definition.",
    "A configuration that was run with several seeds has its mean ± the standard deviation over seeds (n - 1); "
    "its first table has each seed too. Where a protocol draws training dialogues or pairs, the seed draws them.",
    "The interval beside a score is the middle 95 % of a bootstrap that draws the test pairs of one run. p-values are "
    "two-sided and not corrected for the number of tests. With one seed they are those of sacrebleu's paired bootstrap "
    "test (1000 draws of the test pairs): they are about that training run, not about the method, and the verdict says "
    "one seed. With several seeds that both systems have, seeds and test pairs are drawn; seeds as Student's t with "
    "n - 1 degrees of freedom, because a few seeds drawn with replacement vary too little (stages/report/seeds.py).",
    f"A claim that one system scores above another holds if it does with p < {ALPHA}; it does not hold if the other "
    "does. The claim that soft prompts stop improving does not hold if a larger regime is better with "
    f"p < {ALPHA}; it holds if, for each larger regime, the interval of the difference excludes a gain of "
    f"{100 * NEGLIGIBLE:g} % of the score at 30 %. Anything between, as with a small test set, is called not "
    f"contradicted. With fewer than {MIN_PAIRS} pairs a claim is not measured.",
    "The corpus counts as the paper's if the pinned sha256 of its files are DailyDialog's, whatever its name. Models "
    "and methods count as the paper's if they have its names (`gpt2`, `dialogpt`, `fine-tune`, `soft`, `dynamic`); "
    "the parameters of each setting say what these names mean.",
)
COST = """Means over seeds, of all learning rates together. Training is the time in training steps, and pairs are
counted once for each trial and epoch. Peaks are those of the process. Stops: how often a training went on from a
checkpoint, all seeds together. Times compare only on the same machine with the same work beside them. If seeds ran on
different devices, only those on the most frequent one count."""
FORGETTING = """The loss per token on text that the model was not tuned on (`forgetting.text` in params.yaml), without
the prompt but with what was trained, minus that of the untouched model. Where the difference is positive, tuning cost
something that the model could do. The interval is of a bootstrap over blocks of the text."""


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
        print(f"setting {number}/{len(settings)}: {each.title}, {len(each.runs)} configurations", flush=True)
        claims[each.title] = list(Judge(each, answers).claims())
    document.add(f"# {TITLE}", INTRODUCTION)
    document.add(*summary(settings, claims, rates, [*collection.absent, *repeated]))
    for each in settings:
        add_setting(document, each, claims[each.title], rates[each.title], answers)
    document.add("## Experiments")
    for each in settings:
        for cell in each.cells():
            for run in each.runs[cell]:
                document.add(*entry(run, each))
    return document


def rates_in(setting: Setting) -> list[tuple[Cell, Rates]]:
    """The learning-rate trials of each run that had any."""
    return [(cell, found) for cell in setting.cells() for run in setting.runs[cell] if (found := rates_of(run))]


def summary(
    settings: Sequence[Setting],
    claims: dict[str, list[Claim]],
    rates: dict[str, list[tuple[Cell, Rates]]],
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
    if taken := [line for each in settings for line in rates_taken(each)]:
        yield "### Warnings: only one learning rate was tried"
        yield items(taken)
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
        for cell, (run, *_) in setting.runs.items()
        if (cell.model, cell.method, cell.regime) in known and run.entry("method").get("train_embeddings", True)
    ]


def add_setting(
    document: Document, setting: Setting, claims: Sequence[Claim], rates: list[tuple[Cell, Rates]], answers: Answers
) -> None:
    """The section of a setting."""
    title, ending = setting.title, slug(setting.title)
    document.add(f"## {plain(title)}")
    if not setting.as_in_paper:
        document.add("**This is not the paper's experiment**: its corpus, pairs or protocol differ.")
    document.add("### The paper's claims", claims_table(claims))
    document.add("### Scores of all test pairs", *score_tables(setting))
    document.add("### The loss of the test references", *losses_table(setting, answers))
    papers = " Faint lines: the paper's values." if setting.on_papers_data else ""
    for number, scores, what in (
        (2, ("bleu4", "novelty", "diversity"), "BLEU-4, novelty and diversity"),
        (3, ("bleu1", "bleu2", "bleu3", "bleu4"), "BLEU-1 to BLEU-4"),
    ):
        caption = f"Figure {number} ({title}): {what} of all test pairs against the regime.{papers}"
        name = f"figure-{number}-{ending}"
        document.show(name, caption, scores_figure(setting, scores, name))
    if parts := list(prompt_tables(setting, answers)):
        document.add("### What the prompt adds, and what training the word embeddings E adds", *parts)
    document.add("### What each method costs", COST, cost_table(setting))
    regime, marks = marks_of(setting)
    if marks:
        caption = f"Cost and quality ({title}, {regime:g} % of the training dialogues). {explanation(marks)}"
        document.show(f"cost-{ending}", caption, pareto_figure(marks, f"cost-{ending}"))
    document.add("### What tuning destroys", FORGETTING, *forgetting_table(setting))
    document.add("### What went wrong, and the variety of words", *diagnostics_tables(setting))
    document.add("### Other kinds of BLEU", *bleu_tables(setting))
    document.add("### Leakage", leakage_table(setting))
    document.add("### Scores of the pairs that the training regime does not give away", *parts_tables(setting))
    if rates:
        document.add("### Learning rates", rates_table(rates))
        caption = f"Learning rates ({title}): the best validation BLEU-4 of each trial. Crosses are diverged trials."
        document.show(f"rates-{ending}", caption, rates_figure(rates, f"rates-{ending}"))
    drawing = f"At most {QUERIES} queries, drawn at random. {MARK} marks text that is, word for word, a training turn."
    document.add("### Answers to the same queries", drawing, *example_tables(setting, answers))
    document.add("### Parameters of these runs", parameters(setting))
