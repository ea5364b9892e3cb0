"""The paper's claims (Sec. 5), one by one, against the measurements.

A claim that one method is better than another is *supported* if it is, and the 95 % interval of the difference excludes
zero; *contradicted* if the other is better by the same measure; else *inconclusive*. Novelty, diversity and forgetting
have no such interval: there the order must be the same with every seed. A claim for which a run is missing is *not
tested*. With a single seed a verdict is about these training runs, and says so.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import fmean

from stages.grid.configurations import MODELS
from stages.report.compare import Answers, Comparison, NotMeasured
from stages.report.frame import dig
from stages.report.markdown import NONE, ends, number, percent
from stages.report.runs import Run, Runs, same_seeds
from stages.report.settings import Cell, Setting, paper_scores

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
JUDGED = ("all", "unlike")  # parts of the test pairs
WHOLE, LITTLE, TURN, HIGH = 100.0, 10.0, 30.0, 0.90
PAPER = paper_scores()


@dataclass(frozen=True)
class Claim:
    """A claim of the paper about a model, its numbers there, and for each of JUDGED the verdict and why."""

    text: str
    model: str
    paper: str
    verdicts: dict[str, tuple[str, str]]


def seeds(count: int) -> str:
    """The number of seeds in words."""
    return "one seed" if count == 1 else f"{count} seeds"


def by_interval(found: Comparison) -> tuple[str, str]:
    """Whether the first system scores higher by more than chance, and the numbers."""
    own, between = found.found, ends(found.found.low, found.found.high)
    why = f"{own.first:.4f} against {own.second:.4f}, difference {between}, {seeds(found.seeds)}"
    if found.found.low <= 0 <= found.found.high:
        return INCONCLUSIVE, why
    return (SUPPORTED if found.gap > 0 else CONTRADICTED), why


def by_order(pairs: list[tuple[float, float]]) -> tuple[str, str]:
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
            for first, second in (("dynamic", "fine-tune"), ("dynamic", "soft"), ("fine-tune", "soft")):
                yield self.above(model, first, second, WHOLE, "with all the data")
            yield self.above(model, "soft", "fine-tune", LITTLE, "with a tenth of the data")
            yield self.stops(model)
            for first in ("dynamic", "soft"):
                yield self.varied(model, first)
            yield self.stays(model)
            yield self.above(model, "soft", "soft-frozen", WHOLE, "with all the data, so freezing E hurts")
            for first in ("dynamic", "soft"):
                yield self.forgets(model, first)
        yield self.models()

    def runs(self, model: str, method: str, regime: float) -> Runs:
        """The runs of a configuration.

        Raises:
            NotMeasured: there is none.
        """
        if Cell(model, method, regime) not in self.setting.runs:
            raise NotMeasured(f"no run of {method} at {percent(regime)}")
        return self.setting.runs[Cell(model, method, regime)]

    def claim(self, text: str, model: str, paper: str, judge: Callable[[str], tuple[str, str]]) -> Claim:
        """The claim with its verdict on each part; what is missing is the reason of one that was not tested."""
        verdicts = {}
        for part in JUDGED:
            try:
                verdicts[part] = judge(part)
            except NotMeasured as reason:
                verdicts[part] = NOT_TESTED, str(reason)
        return Claim(text, model, paper if self.setting.on_papers_data else NONE, verdicts)

    def above(self, model: str, first: str, second: str, regime: float, where: str) -> Claim:
        """One method has a higher BLEU-4 than another."""
        return self.claim(
            f"{first} has a higher BLEU-4 than {second} {where}",
            model,
            papers("bleu4", (model, first, regime), (model, second, regime)),
            lambda part: self.by_bleu(Cell(model, first, regime), Cell(model, second, regime), part),
        )

    def stops(self, model: str) -> Claim:
        """Soft prompts stop improving above 30 % of the data."""

        def judge(part: str) -> tuple[str, str]:
            found, why = self.by_bleu(Cell(model, "soft", WHOLE), Cell(model, "soft", TURN), part)
            return {SUPPORTED: CONTRADICTED, CONTRADICTED: SUPPORTED}.get(found, found), why

        known = papers("bleu4", (model, "soft", WHOLE), (model, "soft", TURN))
        return self.claim("soft prompts gain nothing from more than 30 % of the data", model, known, judge)

    def varied(self, model: str, method: str) -> Claim:
        """Prompting is more novel and more diverse than fine-tuning."""

        def judge(part: str) -> tuple[str, str]:
            both = self.runs(model, method, WHOLE), self.runs(model, "fine-tune", WHOLE)
            found = [by_order(self.values(*both, name, part)) for name in ("novelty", "diversity")]
            verdicts = {verdict for verdict, _ in found}
            why = "; ".join(f"{name} {each}" for name, (_, each) in zip(("novelty", "diversity"), found, strict=True))
            return (verdicts.pop() if len(verdicts) == 1 else INCONCLUSIVE), why

        known = papers("novelty", (model, method, WHOLE), (model, "fine-tune", WHOLE))
        return self.claim(f"{method} is more novel and more diverse than fine-tune", model, known, judge)

    def stays(self, model: str) -> Claim:
        """Dynamic prompts keep their novelty in every regime."""

        def judge(part: str) -> tuple[str, str]:
            cells = [cell for cell in self.setting.cells(model=model) if cell.method == "dynamic"]
            found = [value_of(run, "novelty", part) for cell in cells for run in self.setting.runs[cell]]
            if not found:
                raise NotMeasured("no run of dynamic")
            at = ", ".join(percent(cell.regime) for cell in cells)
            return (SUPPORTED if min(found) > HIGH else CONTRADICTED), f"lowest {min(found):.3f}, at {at}"

        known = [PAPER[key]["novelty"] for key in PAPER if key[:2] == (model, "dynamic")]
        text = f"dynamic keeps a novelty above {HIGH:.2f} whatever the data"
        return self.claim(text, model, f"lowest {min(known):.3f}" if known else NONE, judge)

    def forgets(self, model: str, method: str) -> Claim:
        """Prompting leaves the model's knowledge alone: it forgets less than fine-tuning."""

        def judge(part: str) -> tuple[str, str]:
            if part != "all":
                raise NotMeasured("it is not about test pairs")
            both = self.runs(model, "fine-tune", WHOLE), self.runs(model, method, WHOLE)
            return by_order([(forgotten(a), forgotten(b)) for a, b in same_seeds(*both)])

        return self.claim(f"{method} forgets less than fine-tune", model, "not measured there", judge)

    def models(self) -> Claim:
        """GPT-2 is better than DialoGPT with dynamic prompts."""
        first, second = (Cell(model, "dynamic", WHOLE) for model in MODELS)
        return self.claim(
            f"{MODELS[0]} has a higher BLEU-4 than {MODELS[1]} with dynamic prompts",
            "both",
            papers("bleu4", *((model, "dynamic", WHOLE) for model in MODELS)),
            lambda part: self.by_bleu(first, second, part),
        )

    def by_bleu(self, first: Cell, second: Cell, part: str) -> tuple[str, str]:
        """Whether one configuration has a higher BLEU-4 than another, by more than chance."""
        both = [self.runs(cell.model, cell.method, cell.regime) for cell in (first, second)]
        return by_interval(self.answers.compare(both[0], both[1], "bleu4", part))

    def values(self, first: Runs, second: Runs, name: str, part: str) -> list[tuple[float, float]]:
        """A score of both configurations, seed by seed."""
        found = [(value_of(a, name, part), value_of(b, name, part)) for a, b in same_seeds(first, second)]
        if not found:
            raise NotMeasured("no seed that both were run with")
        return found


def papers(name: str, *cells: tuple[str, str, float]) -> str:
    """The paper's scores of some configurations, if it has them all."""
    known = [PAPER[cell][name] for cell in cells if cell in PAPER]
    return " against ".join(number(each, 3) for each in known) if len(known) == len(cells) else NONE


def value_of(run: Run, name: str, part: str) -> float:
    """A score of a run on a part of the test pairs.

    Raises:
        NotMeasured: it has none.
    """
    found = dig(run.scores, name) if part == "all" else dig(run.scores, part, name)
    if found is None:
        raise NotMeasured(f"{run.name} has no {name} of {part} pairs")
    return float(found)


def forgotten(run: Run) -> float:
    """What tuning took from the model, in nats a token.

    Raises:
        NotMeasured: it was not measured.
    """
    found = dig(run.scores, "forgetting", "difference")
    if found is None:
        raise NotMeasured(f"{run.name} has no forgetting")
    return float(found)
