"""How sure a difference between two methods is, from the answers to the same test pairs."""

import hashlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from stages.bootstrap import Difference, bleu_of_sums, compare, loss_of_sums, losses_of, sentence_counts
from stages.records import Response
from stages.report.markdown import above
from stages.report.runs import Run, Runs
from stages.report.settings import LEAST_MATCHES, Cell, Setting

MIN_PAIRS, MIN_DIALOGUES = 10, 2  # of one dialogue all draws of the bootstrap are equal, and any difference looks sure
MATCHING_4GRAMS = 5  # column of `sentence_counts`
SCORES = {"loss": loss_of_sums, "bleu4": bleu_of_sums}


class NotMeasured(Exception):
    """A comparison cannot be made; the message says why. Any function below may raise it."""


def same_seeds(first: Runs, second: Runs) -> list[tuple[Run, Run]]:
    """The runs of two configurations, seed by seed: those of the seeds that both have."""
    of_second = {run.seed: run for run in second}
    matched = [(run, of_second[run.seed]) for run in first if run.seed in of_second]
    if not matched:
        raise NotMeasured("no seed that both were run with")
    return matched


def responses_of(run: Run) -> list[Response]:
    """The responses of a run."""
    found = run.responses
    if not found:
        private = ", nor kept: the corpus has no `quote: true`" * (not run.entry("dataset").get("quote"))
        raise NotMeasured(f"responses not in the cache{private}")
    return found


@cache
def sums_of(run: Run, score: str) -> pd.DataFrame:
    """What the score sums over the responses of a run, a row a test pair, by what the pair is."""
    found = responses_of(run)
    if score == "loss":
        sums = losses_of(found)
    else:
        sums = sentence_counts([each.response for each in found], [[each.reference] for each in found])
    if sums is None:
        raise NotMeasured(f"{run.name} has no losses")
    pairs = [(each.dialogue, each.position, each.query, each.reference) for each in found]
    return pd.DataFrame(sums, index=pd.MultiIndex.from_tuples(pairs))


def difference(first: Runs, second: Runs, score: str, part: str = "all") -> Difference:
    """Compare two configurations by `loss` or `bleu4` on a part of the test pairs, over the seeds that both have."""
    tables = []
    for one, other in same_seeds(first, second):
        own, others = sums_of(one, score), sums_of(other, score)
        if not own.index.equals(others.index):
            raise NotMeasured("their test pairs differ")
        both = _flags(one, part, len(own)) & _flags(other, part, len(own))
        if both.sum() < MIN_PAIRS:
            raise NotMeasured(
                f"{both.sum()} {'test' if part == 'all' else part} pairs, at least {MIN_PAIRS} are needed"
            )
        if own[both].index.get_level_values(0).nunique() < MIN_DIALOGUES:
            raise NotMeasured("only one dialogue")
        tables.append((own[both], others[both]))
    pairs = pd.concat([own for own, _ in tables]).index.unique()  # of any seed
    systems = zip(*tables, strict=True)
    sums = np.array([[each.reindex(pairs, fill_value=0).to_numpy(np.float64) for each in own] for own in systems])
    # sums: [2, seeds, N, k]
    if score == "bleu4" and sums[..., MATCHING_4GRAMS].sum(-1).min() < LEAST_MATCHES:
        raise NotMeasured("too few matching 4-grams")
    return compare(sums[0], sums[1], pairs.get_level_values(0).tolist(), SCORES[score])


def _flags(run: Run, part: str, pairs: int) -> Any:
    """Which of the test pairs of a run belong to a part, [N]; stages/score/scorer.py defines the parts."""
    found = "1" * pairs if part == "all" else run.score(f"parts.{part}")
    if found is None or len(found) != pairs:
        raise NotMeasured(f"{run.name} does not say which pairs are {part}")
    return np.array([letter == "1" for letter in found])


def lot(response: Response, seed: int) -> str:
    """A hash that decides which test pairs are shown, so that nobody picks them."""
    return hashlib.sha256(f"{seed}:{response.dialogue}:{response.position}".encode()).hexdigest()


class Gap(NamedTuple):
    """How far the test loss of a configuration is above the reference's, in nats a token."""

    cell: Cell
    runs: Runs
    value: float = 0.0
    interval: tuple[float, float] = (0.0, 0.0)  # 95 %
    told: str = "the reference"  # or `0.11 above (0.07 to 0.16)`, or why it is not known
    known: bool = True
    is_reference: bool = False  # what the others are compared with


@cache
def gaps_of(setting: Setting, cells: tuple[Cell, ...]) -> list[Gap]:
    """The difference of each configuration's test loss to the reference's, over the seeds that both have.

    The reference is fine-tune, else the first in the order of methods.
    """
    reference = next((cell for cell in cells if cell.method.split(" ")[0] == "fine-tune"), cells[0])
    gaps = {cell: Gap(cell, setting.runs[cell], is_reference=cell == reference) for cell in cells}
    for cell in gaps.keys() - {reference}:
        try:
            found = difference(setting.runs[cell], setting.runs[reference], "loss")
        except NotMeasured as reason:
            gaps[cell] = gaps[cell]._replace(told=str(reason), known=False)
            continue
        interval, value = (found.low, found.high), found.first - found.second
        gaps[cell] = gaps[cell]._replace(value=value, interval=interval, told=above(value, *interval))
    return [*gaps.values()]
