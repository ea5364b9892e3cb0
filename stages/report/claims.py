"""Check the paper's claims (Sec. 5), one by one, against the measurements.

A claim that one system scores above another holds if it does, and if chance makes such a difference in less than 5 % of
the draws of a paired bootstrap. It does not hold if, by the same measure, the other system is better. A claim that a
system stops improving does not hold if a larger regime is better by that measure. It holds if the bootstrap excludes
that any larger regime is better by more than `NEGLIGIBLE`. Seeing no difference is not enough, because few test pairs
never show one: then the claim is not contradicted. With several seeds the bootstrap draws seeds and test pairs
(stages/report/seeds.py). With one seed it draws test pairs alone: the verdict is about that training run and says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from stages.report import paper
from stages.report.answers import PARTS, Answers, Comparison, NotMeasured, check_pairs
from stages.report.markdown import SPACE, number, percent
from stages.report.runs import Row, Run, Runs
from stages.report.settings import Cell, Setting

ALPHA = 0.05
WHOLE, TURNING_POINT = 100.0, 30.0  # percent: the regimes that the claims are about
HIGH = 0.90
# Share of the BLEU-4 at 30 % of the data. In the paper soft prompts gain at most 3.6 %, dynamic prompts 45 and 49 %.
NEGLIGIBLE = 0.06
HOLDS, OPEN, FAILS, NOT_MEASURED = VERDICTS = ("holds", "not contradicted", "does not hold", "not measured")
PAPER = paper.paper_scores()


@dataclass(frozen=True)
class Finding:
    """The verdict on a claim for one part of the test pairs, and the numbers behind it."""

    verdict: str
    numbers: str


@dataclass(frozen=True)
class Claim:
    """A claim about a model, with a finding for each of `PARTS`, and the paper's numbers."""

    text: str
    model: str
    findings: dict[str, Finding]
    papers_numbers: str


def findings(judge: Callable[[str], Finding]) -> dict[str, Finding]:
    """The verdict on each part; if something is missing, the reason."""
    found = {}
    for part in PARTS:
        try:
            found[part] = judge(part)
        except NotMeasured as reason:
            found[part] = Finding(NOT_MEASURED, str(reason))
    return found


def show(comparison: Comparison) -> str:
    """Both scores, the p-value, and from how many seeds they are."""
    p = f"p{SPACE}={SPACE}{comparison.p:.3f}"
    chance = ", within chance" if comparison.p >= ALPHA else ""
    return f"{comparison.first:.4f} against {comparison.second:.4f}, {p}{chance}, {counted(comparison.seeds)}"


def counted(seeds: int) -> str:
    """The number of seeds in words."""
    return f"one{SPACE}seed" if seeds == 1 else f"{seeds}{SPACE}seeds"


def above(comparison: Comparison) -> bool:
    """Whether the first system is better by more than chance."""
    return comparison.first > comparison.second and comparison.p < ALPHA


def ordered(comparison: Comparison) -> Finding:
    """Judge whether the first system is above the second; a difference within chance shows neither."""
    higher = HOLDS if comparison.first > comparison.second else FAILS
    return Finding(OPEN if comparison.p >= ALPHA else higher, show(comparison))


class Judge:
    """Judges the claims on the runs of one setting."""

    def __init__(self, setting: Setting, answers: Answers) -> None:
        self.setting, self.answers = setting, answers

    def runs(self, model: str, method: str, regime: float) -> Runs:
        """The runs of a configuration.

        Raises:
            NotMeasured: there is no such run.
        """
        try:
            return self.setting.runs[Cell(model, method, regime)]
        except KeyError:
            raise NotMeasured(f"no run of {model}, {method}, {percent(regime)}") from None

    def named(self, method: str) -> list[str]:
        """The setting's methods of that name; if it has none, the name itself."""
        return [each for each in self.setting.methods if each.split(" ")[0] == method] or [method]

    def claims(self) -> Iterator[Claim]:
        """All claims about all models."""
        for model in self.setting.models:
            for better, worse in (("dynamic", "fine-tune"), ("fine-tune", "soft")):
                for pair in product(self.named(better), self.named(worse)):
                    yield self.ordering(model, *pair)
            yield from (self.stops(model, method) for method in self.named("soft"))
            yield from (self.varied(model, method) for method in self.named("dynamic"))
        for method in self.named("dynamic"):
            yield self.models_ordering(method)

    def ordering(self, model: str, better: str, worse: str) -> Claim:
        """The claim that one method scores above another when both are trained on all dialogues."""

        def judge(part: str) -> Finding:
            first, second = (self.runs(model, method, WHOLE) for method in (better, worse))
            return ordered(self.answers.compare(first, second, part))

        numbers = self.papers(*((model, method, WHOLE) for method in (better, worse)))
        return Claim(f"BLEU-4 at 100 %: {better} > {worse}", model, findings(judge), numbers)

    def stops(self, model: str, method: str) -> Claim:
        """The claim that a method is no better with more than 30 % of the dialogues."""

        def judge(part: str) -> Finding:
            start = self.runs(model, method, TURNING_POINT)
            self.runs(model, method, WHOLE)  # without this run there is too little to judge
            larger = [each for each in self.setting.regimes(model=model, method=method) if each > TURNING_POINT]
            runs = {regime: self.runs(model, method, regime) for regime in larger}
            found = {regime: self.answers.compare(each, start, part) for regime, each in runs.items()}
            gains = {regime: self.answers.gain(each, start, part) for regime, each in runs.items()}
            small = all(high < NEGLIGIBLE * found[at].second for at, (_, high) in gains.items())
            verdict = FAILS if any(map(above, found.values())) else HOLDS if small else OPEN
            shown = (
                f"{percent(at)}: {show(found[at])}, gain {low:+.4f} to {high:+.4f}" for at, (low, high) in gains.items()
            )
            return Finding(verdict, "; ".join(shown))

        numbers = self.papers(*((model, method, regime) for regime in (WHOLE, TURNING_POINT)))
        text = f"{method} stops improving above 30 %: BLEU-4 not above that at 30 %"
        return Claim(text, model, findings(judge), numbers and f"{numbers} (100 % against 30 %)")

    def varied(self, model: str, method: str) -> Claim:
        """The claim that novelty and diversity stay above 0.90 in every regime, with every seed."""
        regimes = self.setting.regimes(model=model, method=method)

        def judge(part: str) -> Finding:
            runs = [self.runs(model, method, regime) for regime in regimes]
            rows = [part_row(run, part) for each in runs for run in each]
            if not rows:
                raise NotMeasured(f"no run of {model}, {method}")
            seeds = counted(min(map(len, runs)))
            shown = f"{lowest(rows)}, at {', '.join(f'{regime:g}' for regime in regimes)}{SPACE}%, {seeds}"
            if any(min(row["novelty"], row["diversity"]) <= HIGH for row in rows):
                return Finding(FAILS, shown)
            if len(regimes) < 2:
                raise NotMeasured(f"{shown} only")
            return Finding(HOLDS, shown)

        known = [PAPER[model, method, regime] for regime in paper.REGIMES if (model, method, regime) in PAPER]
        numbers = lowest(known) if known and self.setting.on_papers_data else ""
        return Claim(f"{method} keeps novelty and diversity above 0.90", model, findings(judge), numbers)

    def models_ordering(self, method: str) -> Claim:
        """The claim that GPT-2 scores above DialoGPT when both are trained on all dialogues."""
        first, second = ((model, method, WHOLE) for model in paper.MODELS)

        def judge(part: str) -> Finding:
            return ordered(self.answers.compare(self.runs(*first), self.runs(*second), part))

        models = " > ".join(paper.MODELS)
        return Claim(f"BLEU-4 at 100 % with {method}: {models}", "both", findings(judge), self.papers(first, second))

    def papers(self, *cells: tuple[str, str, float]) -> str:
        """The paper's BLEU-4 of two configurations, if it has both and the setting uses the paper's corpus."""
        scores = [PAPER[cell]["bleu4"] for cell in cells if cell in PAPER and self.setting.on_papers_data]
        return " against ".join(number(score, paper.DIGITS) for score in scores) if len(scores) == len(cells) else ""


def lowest(rows: Sequence[Row]) -> str:
    """The lowest novelty, the lowest diversity and the highest share of empty responses of some rows of scores."""
    shown = ", ".join(f"{name} {min(row[name] for row in rows):.4g}" for name in ("novelty", "diversity"))
    empty = [row["empty"] for row in rows if "empty" in row]  # the paper has no such number
    return f"lowest {shown}" + (f", highest share of empty responses {max(empty):.4g}" if empty else "")


def part_row(run: Run, part: str) -> Row:
    """The scores of a run on a part of the test pairs.

    Raises:
        NotMeasured: the run left no such scores, or the part has too few pairs.
    """
    if part == "unlike":
        scores = run.files.json("metrics/scores.json")
        if scores is None:
            raise NotMeasured("no metrics/scores.json")
        row = scores.get(part)
    else:
        row = run.rows["test" if part == "all" else part]
    check_pairs(int(row["pairs"]) if row else 0)
    return dict(row)
