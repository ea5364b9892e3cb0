"""What the differences say: the short answer, what to know before using it, and the paper's claims (Sec. 5).

The answer names the method to use, what a prompt costs and how good the answers are. A claim that one method is better
than another is *supported* if it is, and the 95 % interval of the difference excludes zero; *contradicted* if the other
is better by the same measure; else *inconclusive*. Novelty, diversity and forgetting have no such interval: there the
order must be the same with every seed. A claim for which a run is missing, or of which there are several kinds, is *not
tested*. With a single seed a verdict is about these training runs, and says so.
"""

from collections.abc import Iterable, Iterator, Sequence
from operator import sub
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import pandas as pd

from stages.grid.configurations import MODELS
from stages.report.compare import Gap, NotMeasured, difference, gaps_of, same_seeds
from stages.report.markdown import NONE, count, ends, number, percent
from stages.report.runs import Run, Runs, flatten
from stages.report.settings import Cell, Setting, numbers_of

SUPPORTED, CONTRADICTED, INCONCLUSIVE, NOT_TESTED = "supported", "contradicted", "inconclusive", "not tested"
PARTS = ("all", "unlike")  # of the test pairs, on which a claim is judged
HIGH = 0.90
FEW_PAIRS, MUCH_LEAKS = 100, 0.1  # test pairs below which, and share of near copies above which, a caveat warns
BLEU, FORGETTING, VARIETY = "bleu4", "forgetting.difference", ("novelty", "diversity")
# The paper's Tables 1 and 2: for each (model, method, regime) its six scores.
PAPER = pd.read_csv(Path(__file__).with_name("paper.csv"), index_col=["model", "method", "regime"]).to_dict("index")
UNTRAINED = ("zero-shot", "few-shot")
PROMPTS = ("soft", "dynamic", "prefix")  # kinds of methods that train what stands before the layers

Verdict = tuple[str, str]  # and why


class Claim(NamedTuple):
    """One configuration has more of some scores than another."""

    text: str
    first: Cell
    second: Cell
    scores: tuple[str, ...]


# Text, what has more, than what (a method, and % of the data), and the scores that it has more of.
CLAIMS: tuple[tuple[str, tuple[str, float], tuple[str, float], tuple[str, ...]], ...] = (
    ("dynamic has a higher BLEU-4 than fine-tune at 100 %", ("dynamic", 100), ("fine-tune", 100), (BLEU,)),
    ("dynamic has a higher BLEU-4 than soft at 100 %", ("dynamic", 100), ("soft", 100), (BLEU,)),
    ("fine-tune has a higher BLEU-4 than soft at 100 %", ("fine-tune", 100), ("soft", 100), (BLEU,)),
    ("soft has a higher BLEU-4 than fine-tune at 10 %", ("soft", 10), ("fine-tune", 10), (BLEU,)),
    ("soft prompts gain nothing from more than 30 % of the data", ("soft", 30), ("soft", 100), (BLEU,)),
    ("dynamic is more novel and more diverse than fine-tune", ("dynamic", 100), ("fine-tune", 100), VARIETY),
    ("soft is more novel and more diverse than fine-tune", ("soft", 100), ("fine-tune", 100), VARIETY),
    (f"dynamic keeps a novelty above {HIGH:.2f} whatever the data", ("dynamic", 100), ("dynamic", 100), ("novelty",)),
    ("soft has a higher BLEU-4 than soft-frozen at 100 %, so freezing E hurts",
     ("soft", 100), ("soft-frozen", 100), (BLEU,)),
    ("dynamic forgets less than fine-tune", ("fine-tune", 100), ("dynamic", 100), (FORGETTING,)),
    ("soft forgets less than fine-tune", ("fine-tune", 100), ("soft", 100), (FORGETTING,)),
)  # fmt: skip


def claims_of(setting: Setting) -> Iterator[Claim]:
    """All claims about all models of a setting."""
    for model, *_ in setting.largest:
        for text, first, second, scores in CLAIMS:
            yield Claim(text, Cell(model, *first), Cell(model, *second), scores)
    gpt2, dialogpt = (Cell(model, "dynamic", 100) for model in MODELS)
    yield Claim("gpt2 has a higher BLEU-4 than dialogpt with dynamic prompts", gpt2, dialogpt, (BLEU,))


def seeds(count: int) -> str:
    """The number of seeds in words."""
    return "one seed" if count == 1 else f"{count} seeds"


def verdict_of(differences: Iterable[float]) -> str:
    """What differences say that ought to be above zero: the ends of an interval, or one of each seed."""
    signs = {1 if each > 0 else -1 if each < 0 else 0 for each in differences}
    return SUPPORTED if signs == {1} else CONTRADICTED if signs == {-1} else INCONCLUSIVE


def judge(claim: Claim, setting: Setting, part: str) -> Verdict:
    """What the runs of a setting say of a claim on a part of the test pairs."""
    try:
        if claim.first == claim.second:
            return _stays(claim, setting, part)
        first, second = runs_of(claim.first, setting), runs_of(claim.second, setting)
        matched = same_seeds(first, second)
        if claim.scores != (BLEU,):
            return _in_order(claim, matched, part)
        found = difference(first, second, BLEU, part)
    except NotMeasured as reason:
        return NOT_TESTED, str(reason)
    why = f"{found.first:.4f} against {found.second:.4f}, difference {ends(found.low, found.high)}"
    return verdict_of([found.low, found.high]), f"{why}, {seeds(len(matched))}"


def runs_of(wanted: Cell, setting: Setting) -> Runs:
    """The runs of a claim's cell; the name of its method may have more to it there: `dynamic (layers=2)`."""
    found = [cell for cell in setting.runs if named(cell) == wanted]
    if len(found) != 1:
        what = "several kinds" if found else "no run"
        raise NotMeasured(f"{what} of {wanted.method} at {percent(wanted.regime)}")
    return setting.runs[found[0]]


def named(cell: Cell) -> Cell:
    """A cell with the name of its method alone."""
    return cell._replace(method=cell.method.split(" ")[0])


def _in_order(claim: Claim, matched: list[tuple[Run, Run]], part: str) -> Verdict:
    """Whether all scores of the claim are higher with every seed, and their means."""
    differences, told = list[float](), []
    for score in claim.scores:
        one, other = zip(*((value_of(a, score, part), value_of(b, score, part)) for a, b in matched), strict=True)
        differences += map(sub, one, other)
        names = (f"{claim.first.method} ", f"{claim.second.method} ") if score == FORGETTING else (f"{score} ", "")
        means = number(fmean(one), 3), number(fmean(other), 3)
        told.append(f"{names[0]}{means[0]} against {names[1]}{means[1]}, {seeds(len(matched))}")
    return verdict_of(differences), "; ".join(told)


def _stays(claim: Claim, setting: Setting, part: str) -> Verdict:
    """Whether a score stays high in every regime."""
    model, method, _ = claim.first
    cells = [cell for cell in setting.runs if named(cell)[:2] == (model, method)]
    if len({cell.method for cell in cells}) != 1:
        raise NotMeasured(f"{'several kinds' if cells else 'no run'} of {method}")
    runs = [(cell.regime, run) for cell in cells for run in setting.runs[cell]]
    lowest = min(value_of(run, claim.scores[0], part) for _, run in runs)
    at = ", ".join(dict.fromkeys(percent(regime) for regime, _ in runs))
    return (SUPPORTED if lowest > HIGH else CONTRADICTED), f"lowest {lowest:.3f}, at {at}"


def of_paper(claim: Claim, setting: Setting) -> str:
    """The paper's numbers for a claim, on its own data."""
    if not setting.on_papers_data:
        return NONE
    if claim.scores == (FORGETTING,):
        return "not measured there"
    name = claim.scores[0]
    if claim.first == claim.second:
        known = [scores[name] for cell, scores in PAPER.items() if cell[:2] == claim.first[:2]]
        return f"lowest {min(known):.3f}" if known else NONE
    known = [PAPER[cell][name] for cell in (claim.first, claim.second) if cell in PAPER]
    return " against ".join(number(each, 3) for each in known) if len(known) == 2 else NONE


def value_of(run: Run, name: str, part: str) -> float:
    """A score of a run on a part of the test pairs; it raises NotMeasured if there is none."""
    if name == FORGETTING and part != "all":
        raise NotMeasured("it is not about test pairs")
    found = run.score(name if part == "all" else f"{part}.{name}")
    if found is None:
        raise NotMeasured(f"{run.name} has no {name.split('.')[0]} of {part} pairs")
    return float(found)


def short_answers(setting: Setting) -> Iterator[str]:
    """A paragraph for each model, of its largest regime."""
    for model, _, cells in setting.largest:
        gaps = gaps_of(setting, cells)
        known = [gap for gap in gaps if gap.known]
        if len(known) > 1:
            yield " ".join(sentences(setting, known))
        else:
            why = "one method was run" if gaps[-1].known else gaps[-1].told
            yield f"{setting.title}, {model}: nothing to compare yet ({why}). {quality(known[0])}"


def sentences(setting: Setting, gaps: list[Gap]) -> Iterator[str]:
    """What to use, what the best prompt costs, what no training gives, and how good the answers are.

    Only what has the reference's seeds is advised: with fewer, an interval is wide enough for anything.
    """
    (reference,) = (gap for gap in gaps if gap.is_reference)
    sure = [gap for gap in gaps if len(same_seeds(gap.runs, reference.runs)) == len(reference.runs)]
    best = min(sure, key=lambda gap: gap.value)
    others = [gap for gap in gaps if not gap.is_reference]
    rivals = [gap for gap in gaps if gap is not best and not beyond(gap, best)]
    alike, unsure = ([gap.cell.method for gap in rivals if (gap in sure) is wanted] for wanted in (True, False))
    sure_of = ", by more than chance" if len(reference.runs) > 1 else ", also on other draws of the test dialogues"
    among = "" if min(gaps, key=lambda gap: gap.value) is best else " of those with the same seeds"
    alone = f"it has the lowest test loss{among}" + ("" if unsure else sure_of)
    advised, why = " or ".join([best.cell.method, *alike]), "the test loss cannot separate them" if alike else alone
    where = f"{setting.data(reference.cell.regime)} of {setting.title}, and {reference.cell.model}"
    yield f"With {where}, **use {advised}** of the {len(gaps)} methods compared: {why} ({seeds(len(reference.runs))})."
    if unsure:
        what = f"{'is' if len(unsure) == 1 else 'are'} {'better or worse' if among else 'worse'}"
        yield f"It takes runs with the same seeds to say whether {' or '.join(unsure)} {what}."
    prompts = [gap for gap in sure if gap.runs[0].entry("method").get("kind") in PROMPTS]
    prompt = min(prompts, key=lambda gap: gap.value, default=best)
    if prompt is not best and prompt in others:
        yield (
            f"The best trained prompt is {prompt.cell.method}, {prompt.told} {reference.cell.method} in nats a token; "
            f"it keeps {count(prompt.runs[0].numbers.get('train.trained_parameters'))} numbers beside the model."
        )
    if free := [gap for gap in others if gap.runs[0].entry("method").get("kind") in UNTRAINED]:
        cheapest = min(free, key=lambda gap: gap.value)
        yield f"Without training, {cheapest.cell.method} is {cheapest.told} {reference.cell.method}."
    yield quality(best)


def beyond(gap: Gap, best: Gap) -> bool:
    """Whether a configuration is worse than the best one by more than chance: the two themselves are compared."""
    try:
        return difference(gap.runs, best.runs, "loss").low > 0
    except NotMeasured:  # they share no seed
        return False


def quality(gap: Gap) -> str:
    """How good the answers of a configuration are."""
    method, count = gap.cell.method, seeds(len(gap.runs))
    found = [numbers_of(run.scores) for run in gap.runs]
    if few := [each["matches"] for each in found if each["bleu4"] is None and each["matches"] is not None]:
        matches = f"{' or '.join(map(str, sorted(set(few))))}; {seeds(len(few))}"
        return f"The answers of {method} share too few 4-grams with what people said for a BLEU-4 ({matches})."
    lookup = [numbers_of(run.scores.get("retrieval") or {}) for run in gap.runs]
    (own, copied), new = ([_mean(rows, f"{part}bleu4") for rows in (found, lookup)] for part in ("", "unlike."))
    if own is None:  # as in a clone without DVC's cache
        return f"The BLEU-4 of {method} is not known here ({count})."
    told = f"The BLEU-4 of {method} is {own:.3f}"
    if copied is not None:
        told += f"; a lookup of the most similar training query has {copied:.3f} without learning anything"
        told += "" if None in new else f"; on pairs unlike training it has {new[1]:.3f}, {method} {new[0]:.3f}"
    return f"{told} ({count})."


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    known = [row[name] for row in rows if row[name] is not None]
    return fmean(known) if len(known) == len(rows) else None


def caveats(settings: Sequence[Setting]) -> Iterator[str]:
    """What a reader should know before using the numbers, what matters most first."""
    runs = [run for setting in settings for _, run in setting.all_runs]
    for setting in settings:
        if (pairs := setting.any_run.scores.get("pairs") or FEW_PAIRS) < FEW_PAIRS:
            yield f"{setting.title} has {pairs} test pairs: an order that they give may not be that of others."
        if (near := setting.any_run.score("leakage.near.pairs") or 0) >= MUCH_LEAKS:
            yield f"{setting.title}: {near:.0%} of the test pairs nearly repeat training pairs; see the unlike ones."
    for setting in settings:
        most = max(map(len, setting.runs.values()))
        if most == 1 < len(setting.runs):
            yield f"{setting.title} was run with one seed: with others the order may be another one."
        if fewer := dict.fromkeys(cell.method for cell, each in setting.runs.items() if len(each) < most):
            told = f"{setting.title}: fewer than {most} seeds of {', '.join(fewer)}. A seed has its own data"
            yield f"{told}: compare by the differences, which are paired."
    if {flatten(run.entry("protocol")).get("training.num_train_epochs") for run in runs} == {1}:
        yield "Every run trained for one epoch: methods that need longer may be undertrained."
    ended = {run.params["method"] for run in runs if run.range_end}
    if ended:
        yield f"The best learning rate is at an end of those tried in some run of: {', '.join(sorted(ended))}."
    if not any(setting.as_in_paper for setting in settings):
        yield "No run has the paper's corpus, pairs and protocol together."
