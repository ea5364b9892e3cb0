"""The paper's claims (Sec. 5), one by one, against the measurements.

A claim that one method is better than another is *supported* if it is, and the 95 % interval of the difference excludes
zero; *contradicted* if the other is better by the same measure; else *inconclusive*. Novelty, diversity and forgetting
have no such interval: there the order must be the same with every seed. A claim for which a run is missing is *not
tested*. With a single seed a verdict is about these training runs, and says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from stages.bootstrap import Difference
from stages.grid.configurations import MODELS
from stages.report.compare import Answers, NotMeasured
from stages.report.markdown import NONE, ends, number, percent
from stages.report.runs import Run, Runs, same_seeds
from stages.report.settings import Cell, Setting, paper_scores

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
JUDGED = ("all", "unlike")  # parts of the test pairs
WHOLE, LITTLE, TURN, HIGH = 100.0, 10.0, 30.0, 0.90
PAPER, FORGETTING = paper_scores(), "forgetting.difference"

Verdict = tuple[str, str]  # and why


@dataclass(frozen=True)
class Claim:
    """A claim of the paper about a model, its numbers there, and the verdict for each of JUDGED."""

    text: str
    model: str
    paper: str
    verdicts: dict[str, Verdict]


def seeds(count: int) -> str:
    """The number of seeds in words."""
    return "one seed" if count == 1 else f"{count} seeds"


def by_interval(found: Difference, count: int) -> Verdict:
    """Whether the first system scores higher by more than chance, and the numbers; with so many seeds."""
    why = f"{found.first:.4f} against {found.second:.4f}, difference {ends(found.low, found.high)}, {seeds(count)}"
    if found.low <= 0 <= found.high:
        return INCONCLUSIVE, why
    return (SUPPORTED if found.first > found.second else CONTRADICTED), why


def by_order(pairs: list[tuple[float, float]]) -> Verdict:
    """Whether the first of each pair, one a seed, is always the higher one, and the means."""
    always, never = all(a > b for a, b in pairs), all(a < b for a, b in pairs)
    verdict = SUPPORTED if always else CONTRADICTED if never else INCONCLUSIVE
    means = (fmean(each) for each in zip(*pairs, strict=True))
    return verdict, f"{' against '.join(f'{each:.3f}' for each in means)}, {seeds(len(pairs))}"


class Judge:
    """Judges the claims on the runs of one setting."""

    def __init__(self, setting: Setting, answers: Answers) -> None:
        self.setting, self.answers = setting, answers

    def claims(self) -> Iterator[Claim]:
        """All claims about all models."""
        for model in self.setting.models:

            def cell(method: str, regime: float = WHOLE, model: str = model) -> Cell:
                return Cell(model, method, regime)

            for first, second in (("dynamic", "fine-tune"), ("dynamic", "soft"), ("fine-tune", "soft")):
                text = f"{first} has a higher BLEU-4 than {second} with all the data"
                yield self.bleu(text, cell(first), cell(second))
            text = "soft has a higher BLEU-4 than fine-tune with a tenth of the data"
            yield self.bleu(text, cell("soft", LITTLE), cell("fine-tune", LITTLE))
            text = "soft prompts gain nothing from more than 30 % of the data"
            yield self.bleu(text, cell("soft"), cell("soft", TURN), turned=True)
            for prompt in ("dynamic", "soft"):
                text = f"{prompt} is more novel and more diverse than fine-tune"
                yield self.values(text, cell(prompt), cell("fine-tune"), ("novelty", "diversity"))
            yield self.stays(model)
            text = "soft has a higher BLEU-4 than soft-frozen with all the data, so freezing E hurts"
            yield self.bleu(text, cell("soft"), cell("soft-frozen"))
            for prompt in ("dynamic", "soft"):
                text = f"{prompt} forgets less than fine-tune"
                yield self.values(text, cell("fine-tune"), cell(prompt), (FORGETTING,))
        gpt2, dialogpt = (Cell(model, "dynamic", WHOLE) for model in MODELS)
        yield self.bleu("gpt2 has a higher BLEU-4 than dialogpt with dynamic prompts", gpt2, dialogpt)

    def claim(self, text: str, model: str, paper: str, judge: Callable[[str], Verdict]) -> Claim:
        """The claim with its verdict on each part; what is missing is the reason of one that was not tested."""
        verdicts = {}
        for part in JUDGED:
            try:
                verdicts[part] = judge(part)
            except NotMeasured as reason:
                verdicts[part] = NOT_TESTED, str(reason)
        return Claim(text, model, paper if self.setting.on_papers_data else NONE, verdicts)

    def bleu(self, text: str, first: Cell, second: Cell, turned: bool = False) -> Claim:
        """One configuration has a higher BLEU-4 than another, or (turned) none that is higher by more than chance."""
        others = {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED} if turned else {}

        def judge(part: str) -> Verdict:
            both = self.runs(first), self.runs(second)
            found, why = by_interval(self.answers.compare(*both, "bleu4", part), len(same_seeds(*both)))
            return others.get(found, found), why

        model = first.model if first.model == second.model else "both"
        return self.claim(text, model, papers("bleu4", first, second), judge)

    def values(self, text: str, first: Cell, second: Cell, names: Sequence[str]) -> Claim:
        """One configuration has more of some scores than another, with every seed."""

        def judge(part: str) -> Verdict:
            matched = same_seeds(self.runs(first), self.runs(second))
            if not matched:
                raise NotMeasured("no seed that both were run with")
            found = [
                by_order([(value_of(a, name, part), value_of(b, name, part)) for a, b in matched]) for name in names
            ]
            verdicts = {verdict for verdict, _ in found}
            why = "; ".join(
                f"{name} {each}".removeprefix(FORGETTING) for name, (_, each) in zip(names, found, strict=True)
            )
            return (verdicts.pop() if len(verdicts) == 1 else INCONCLUSIVE), why

        return self.claim(text, first.model, papers(names[0], first, second), judge)

    def stays(self, model: str) -> Claim:
        """Dynamic prompts keep their novelty in every regime."""

        def judge(part: str) -> Verdict:
            runs = [(cell.regime, run) for cell, run in self.setting.all_runs if cell[:2] == (model, "dynamic")]
            if not runs:
                raise NotMeasured("no run of dynamic")
            found = [value_of(run, "novelty", part) for _, run in runs]
            at = ", ".join(dict.fromkeys(percent(regime) for regime, _ in runs))
            return (SUPPORTED if min(found) > HIGH else CONTRADICTED), f"lowest {min(found):.3f}, at {at}"

        known = [PAPER[key]["novelty"] for key in PAPER if key[:2] == (model, "dynamic")]
        text = f"dynamic keeps a novelty above {HIGH:.2f} whatever the data"
        return self.claim(text, model, f"lowest {min(known):.3f}" if known else NONE, judge)

    def runs(self, cell: Cell) -> Runs:
        """The runs of a configuration.

        Raises:
            NotMeasured: there is none.
        """
        if cell not in self.setting.runs:
            raise NotMeasured(f"no run of {cell.method} at {percent(cell.regime)}")
        return self.setting.runs[cell]


def papers(name: str, *cells: Cell) -> str:
    """The paper's scores of some configurations, if it has them all."""
    if name == FORGETTING:
        return "not measured there"
    known = [PAPER[cell][name] for cell in cells if cell in PAPER]
    return " against ".join(number(each, 3) for each in known) if len(known) == len(cells) else NONE


def value_of(run: Run, name: str, part: str) -> float:
    """A score of a run on a part of the test pairs.

    Raises:
        NotMeasured: it has none.
    """
    if name == FORGETTING and part != "all":
        raise NotMeasured("it is not about test pairs")
    found = run.score(name if part == "all" else f"{part}.{name}")
    if found is None:
        raise NotMeasured(f"{run.name} has no {name.split('.')[0]} of {part} pairs")
    return float(found)
