"""The short answer: which method to use, what a prompt costs, how good the answers are, from the runs of a setting."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from stages.report.claims import seeds
from stages.report.compare import Answers, Comparison, NotMeasured
from stages.report.frame import LEAST_MATCHES, dig, matches_of, range_end, run_numbers
from stages.report.markdown import count, digits_for, ends, percent
from stages.report.runs import Runs
from stages.report.settings import Cell, Setting

REFERENCE = "fine-tune"  # what differences are to, if it was run
UNTRAINED = ("zero-shot", "few-shot")
LOOKUP = "a lookup of the most similar training query"


@dataclass(frozen=True)
class Gap:
    """How far the test loss of a configuration is above the reference's; nothing is found of the reference itself."""

    cell: Cell
    runs: Runs
    found: Comparison | None
    why: str = ""  # it could not be compared

    @property
    def value(self) -> float:
        """In nats a token."""
        return self.found.gap if self.found else 0.0

    @property
    def told(self) -> str:
        """`0.11 above (0.07 to 0.16)`."""
        assert self.found
        low, high = self.found.found.low, self.found.found.high
        digits = max(2, digits_for((high - low) / 2))
        return f"{abs(self.value):.{digits}f} {'above' if self.value > 0 else 'below'} ({ends(low, high)})"

    @property
    def apart(self) -> bool:
        """Whether the difference is more than chance."""
        return self.found is not None and not self.found.found.low <= 0 <= self.found.found.high


def reference_of(cells: Sequence[Cell]) -> Cell:
    """What the others are compared with: fine-tune, else the first in the order of methods."""
    known = [cell for cell in cells if cell.method.split(" ")[0] == REFERENCE]
    return (known or list(cells))[0]


def gaps_of(setting: Setting, cells: Sequence[Cell], answers: Answers) -> list[Gap]:
    """The difference of each configuration's test loss to the reference's, over the seeds that both have."""
    reference, found = reference_of(cells), []
    for cell in cells:
        runs, other, why = setting.runs[cell], None, ""
        if cell != reference:
            try:
                other = answers.compare(runs, setting.runs[reference], "loss")
            except NotMeasured as reason:
                why = str(reason)
        found.append(Gap(cell, runs, other, why))
    return found


def short_answers(setting: Setting, answers: Answers) -> Iterator[str]:
    """A paragraph for each model, of its largest regime."""
    for model in setting.models:
        regime = max(cell.regime for cell in setting.cells(model=model))
        cells = setting.cells(regime, model)
        gaps = [gap for gap in gaps_of(setting, cells, answers) if not gap.why]
        if len(gaps) > 1:
            yield " ".join(sentences(setting, gaps, reference_of(cells)))


def sentences(setting: Setting, gaps: list[Gap], reference: Cell) -> Iterator[str]:
    """What to use, what the best prompt costs, what no training gives, and how good the answers are."""
    best = min(gaps, key=lambda gap: gap.value)
    runs = setting.runs[reference]
    pairs = sorted({int(run.scores["training_pairs"]) for run in runs if run.scores.get("training_pairs")})
    data = (
        f"{' to '.join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))} training pairs"
        if pairs
        else "the training pairs"
    )
    alike = [gap.cell.method for gap in gaps if gap.cell != best.cell and not beyond(gap, best)]
    use = " or ".join([best.cell.method, *alike])
    yield (
        f"With {data} of {setting.any_run.switch('dataset')} ({percent(reference.regime)} of the data) and "
        f"{reference.model}, **use {use}**: "
        + ("the test loss cannot separate them." if alike else "it has the lowest test loss, by more than chance.")
    )
    prompts = [gap for gap in gaps if trains_no_layer(gap)]
    if prompts and (prompt := min(prompts, key=lambda gap: gap.value)).cell != best.cell and prompt.found:
        numbers = run_numbers(prompt.runs[0])
        yield (
            f"The best trained prompt is {prompt.cell.method}, {prompt.told} {reference.method} in nats a token; it "
            f"keeps {count(numbers['parameters'])} numbers beside the model."
        )
    free = [gap for gap in gaps if gap.cell.method.split(" ")[0] in UNTRAINED and gap.found]
    if free:
        cheapest = min(free, key=lambda gap: gap.value)
        yield f"Without training, {cheapest.cell.method} is {cheapest.told} {reference.method}."
    yield quality(best)


def beyond(gap: Gap, best: Gap) -> bool:
    """Whether a configuration is worse than the best one by more than chance, as far as both were compared."""
    if gap.found is None:
        return best.apart
    return gap.found.found.low > max(best.value, 0.0) if best.found is None else gap.found.found.low > best.value


def trains_no_layer(gap: Gap) -> bool:
    """Whether what is trained stands in front of the layers: a prompt of any kind."""
    return gap.runs[0].entry("method").get("kind") in ("soft", "dynamic", "prefix", "dynamic-prefix")


def quality(gap: Gap) -> str:
    """How good the answers of a configuration are."""
    found = [matches_of(run.scores) for run in gap.runs]
    counted, name = [each for each in found if each is not None], gap.cell.method
    if counted and max(counted) < LEAST_MATCHES:
        return (
            f"Its answers are not yet good: of their 4-grams {' or '.join(map(str, sorted(set(counted))))} stand in "
            f"what people said, too few for a BLEU-4 ({seeds(len(gap.runs))})."
        )
    ours = fmean(float(run.scores["bleu4"]) for run in gap.runs)
    lookup = [dig(run.scores, "retrieval", "bleu4") for run in gap.runs]
    told = f"The BLEU-4 of {name} is {ours:.3f}"
    if None not in lookup:
        told += f"; {LOOKUP} has {fmean(lookup):.3f} without learning anything"
    return f"{told} ({seeds(len(gap.runs))})."


def caveats(settings: Sequence[Setting]) -> Iterator[str]:
    """What a reader should know before using the numbers: at most four."""
    runs = [run for setting in settings for each in setting.runs.values() for run in each]
    epochs = {int(dig(run.entry("protocol"), "training", "num_train_epochs") or 0) for run in runs}
    if epochs == {1}:
        yield "Every run trained for one epoch: methods that need longer may be undertrained."
    if not any(setting.as_in_paper for setting in settings):
        yield "No run has the paper's corpus, pairs and protocol together."
    single = {cell.method for setting in settings for cell, each in setting.runs.items() if len(each) == 1}
    if single:
        yield f"Run with one seed in some setting: {', '.join(sorted(single))}. Their intervals know no other seeds."
    ended = {run.switch("method") for run in runs if range_end(run)}
    if ended:
        yield f"The best learning rate is at an end of those tried in some run of: {', '.join(sorted(ended))}."
