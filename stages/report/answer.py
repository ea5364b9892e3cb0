"""The short answer: which method to use, what a prompt costs, how good the answers are, from the runs of a setting."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from stages.report.claims import seeds
from stages.report.compare import Gap, NotMeasured, difference, gaps_of
from stages.report.markdown import count
from stages.report.settings import LEAST_MATCHES, Setting, flatten, numbers_of, range_end, run_numbers

UNTRAINED = ("zero-shot", "few-shot")
PROMPTS = ("soft", "dynamic", "prefix", "dynamic-prefix")  # kinds of methods that train what stands before the layers


def short_answers(setting: Setting) -> Iterator[str]:
    """A paragraph for each model, of its largest regime."""
    for model in setting.models:
        *_, cells = setting.groups(model)[-1]
        gaps = list(gaps_of(setting, cells))
        known = [gap for gap in gaps if gap.known]
        if len(known) > 1:
            yield " ".join(sentences(setting, known))
        else:
            why = "one method was run" if gaps[-1].known else gaps[-1].told
            yield f"{setting.title}, {model}: nothing to compare yet ({why}). {quality(known[0])}"


def sentences(setting: Setting, gaps: list[Gap]) -> Iterator[str]:
    """What to use, what the best prompt costs, what no training gives, and how good the answers are."""
    best = min(gaps, key=lambda gap: gap.value)
    reference = next(gap.cell for gap in gaps if gap.is_reference)
    others = [gap for gap in gaps if not gap.is_reference]
    alike = [gap.cell.method for gap in gaps if gap is not best and not beyond(gap, best)]
    yield (
        f"With {setting.data(reference.regime)} of {setting.any_run.switch('dataset')} and {reference.model}, "
        f"**use {' or '.join([best.cell.method, *alike])}**: "
        + ("the test loss cannot separate them." if alike else "it has the lowest test loss, by more than chance.")
    )
    prompts = [gap for gap in gaps if gap.runs[0].entry("method").get("kind") in PROMPTS]
    prompt = min(prompts, key=lambda gap: gap.value, default=best)
    if prompt is not best and prompt in others:
        yield (
            f"The best trained prompt is {prompt.cell.method}, {prompt.told} {reference.method} in nats a token; it "
            f"keeps {count(run_numbers(prompt.runs[0]).get('train.trained_parameters'))} numbers beside the model."
        )
    if free := [gap for gap in others if gap.cell.method.split(" ")[0] in UNTRAINED]:
        cheapest = min(free, key=lambda gap: gap.value)
        yield f"Without training, {cheapest.cell.method} is {cheapest.told} {reference.method}."
    yield quality(best)


def beyond(gap: Gap, best: Gap) -> bool:
    """Whether a configuration is worse than the best one by more than chance: the two themselves are compared."""
    try:
        return difference(gap.runs, best.runs, "loss").low > 0
    except NotMeasured:  # they share no seed
        return False


def quality(gap: Gap) -> str:
    """How good the answers of a configuration are."""
    matches = {numbers_of(run.scores)["matches"] for run in gap.runs} - {None}
    if matches and max(matches) < LEAST_MATCHES:
        return (
            f"Its answers are not yet good: of their 4-grams {' or '.join(map(str, sorted(matches)))} stand in "
            f"what people said, too few for a BLEU-4 ({seeds(len(gap.runs))})."
        )
    told = f"The BLEU-4 of {gap.cell.method} is {fmean(float(run.scores['bleu4']) for run in gap.runs):.3f}"
    lookup = [run.score("retrieval.bleu4") for run in gap.runs]
    if None not in lookup:
        told += f"; a lookup of the most similar training query has {fmean(lookup):.3f} without learning anything"
    return f"{told} ({seeds(len(gap.runs))})."


def caveats(settings: Sequence[Setting]) -> Iterator[str]:
    """What a reader should know before using the numbers: at most four."""
    runs = [run for setting in settings for _, run in setting.all_runs]
    if {flatten(run.entry("protocol")).get("training.num_train_epochs") for run in runs} == {1}:
        yield "Every run trained for one epoch: methods that need longer may be undertrained."
    if not any(setting.as_in_paper for setting in settings):
        yield "No run has the paper's corpus, pairs and protocol together."
    counts = [(cell.method, len(each)) for setting in settings for cell, each in setting.runs.items()]
    if single := {method for method, count in counts if count == 1}:
        told = f"Run with one seed in some setting: {', '.join(sorted(single))}. Their intervals know no other seeds."
        if max(count for _, count in counts) > 1:
            told += " A seed has its own data: compare with methods of more seeds by the differences, which are paired."
        yield told
    ended = {run.switch("method") for run in runs if range_end(run)}
    if ended:
        yield f"The best learning rate is at an end of those tried in some run of: {', '.join(sorted(ended))}."
