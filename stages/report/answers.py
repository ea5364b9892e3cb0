"""The responses of the runs, if DVC's cache has them, and the test pairs that their training regime gives away."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np

from stages.bleu import bleu
from stages.overlap import Flags
from stages.records import Dialogue, Pair, Response, single_line
from stages.report.runs import Run, Runs, same_seeds
from stages.report.seeds import Difference, compare_over_seeds, loss_of_many
from stages.score.bootstrap import (
    CONFIDENCE,
    Counts,
    Losses,
    losses_of,
    paired_test,
    resampled_bleu,
    sentence_counts,
)  # fmt: skip
from stages.score.leakage import Leakage, exact_leakage, near_leakage
from stages.score.variety import DIGITS

PARTS = ("all", "unseen", "unlike")
MIN_PAIRS = 10  # with a single pair, all draws of the bootstrap are equal, and any difference looks certain
Table = np.ndarray[tuple[int, int], np.dtype[Any]]
Tables = np.ndarray[tuple[int, int, int, int], np.dtype[Any]]
RESPONSES = "data/greedy_generate/responses.jsonl"


class NotMeasured(Exception):
    """A comparison cannot be made; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """BLEU-4 of two systems on the same pairs, and how often chance alone makes such a difference (p).

    With several seeds, the scores are means over those that both were run with.
    """

    first: float
    second: float
    p: float
    pairs: int  # of all seeds, each counted once
    seeds: int = 1


def check_pairs(count: int) -> None:
    """Refuse a part of the test set that is too small to measure anything.

    Raises:
        NotMeasured: it has fewer than MIN_PAIRS pairs.
    """
    if count < MIN_PAIRS:
        raise NotMeasured(f"{count} such pairs, too few" if count else "no such pairs")


@dataclass
class Answers:
    """The responses and training data of runs; reads each file only once."""

    responses: dict[str, list[Response]] = field(default_factory=dict)
    parts: dict[tuple[str, str], Flags] = field(default_factory=dict)
    turns: dict[str, frozenset[str] | None] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)

    def of(self, run: Run) -> list[Response]:
        """The responses of a run.

        Raises:
            NotMeasured: they are not in the cache, or they are not the ones that were scored.
        """
        if run.name not in self.responses:
            found = run.files.records(RESPONSES, Response)
            if not found:
                raise NotMeasured("responses not in the cache")
            score = bleu([each.response for each in found], [each.reference for each in found])
            if round(score, DIGITS) != run.rows["test"]["bleu4"]:
                raise NotMeasured(f"the responses of {run.name} score {score:.6f}, but its metrics differ")
            self.responses[run.name] = found
        return self.responses[run.name]

    def training_turns(self, run: Run) -> frozenset[str] | None:
        """The turns of a run's training regime; None if they are not in the cache."""
        if run.data not in self.turns:
            found = run.files.records("data/subset/turns.jsonl", Dialogue)
            known = None if found is None else frozenset(single_line(turn) for each in found for turn in each.turns)
            self.turns[run.data] = known
        return self.turns[run.data]

    def part(self, run: Run, name: str) -> Flags:
        """Which test pairs of a run belong to a part, [N]; stages/score/scorer.py defines the parts.

        Raises:
            NotMeasured: the training pairs are not in the cache.
        """
        key = (run.data, name)
        if key not in self.parts:
            test = [Pair(each.dialogue, each.position, each.query, each.reference) for each in self.of(run)]
            self.parts[key] = np.ones(len(test), dtype=np.bool_) if name == "all" else self._leakage(run, test, name)
        return self.parts[key]

    def _leakage(self, run: Run, test: list[Pair], name: str) -> Flags:
        train = run.files.records("data/subset/train.jsonl", Pair)
        if train is None:
            raise NotMeasured("training pairs not in the cache")
        found: Leakage = exact_leakage(train, test) if name == "unseen" else near_leakage(train, test)
        return found.unseen

    def flags(self, first: Run, second: Run, part: str) -> Flags:
        """Which test pairs belong to a part in both runs, [N].

        Raises:
            NotMeasured: something is not in the cache, the runs have different test pairs, or the part has too few.
        """
        asked = [
            [(each.dialogue, each.position, each.query, each.reference) for each in self.of(run)]
            for run in (first, second)
        ]
        if asked[0] != asked[1]:
            raise NotMeasured("their test pairs differ")
        chosen = self.part(first, part) & self.part(second, part)
        check_pairs(int(chosen.sum()))
        return chosen

    def common(self, first: Run, second: Run, part: str) -> tuple[list[str], list[str], list[str]]:
        """The responses of both runs, and the references, for the pairs of `flags`; raises what that raises."""
        chosen = self.flags(first, second, part)
        references = list(compress((each.reference for each in self.of(first)), chosen))
        a, b = (list(compress((each.response for each in self.of(run)), chosen)) for run in (first, second))
        return a, b, references

    def compare(self, first: Runs, second: Runs, part: str) -> Comparison:
        """BLEU-4 of two systems on a part of the test pairs, with the seeds that both were run with.

        With one such seed, only test pairs are drawn (`paired_test`), else seeds too (stages/report/seeds.py).

        Raises:
            NotMeasured: they have no seed in common, or what `common` raises.
        """
        matched = same_seeds(first, second)
        if not matched:
            raise NotMeasured("no seed that both were run with")
        if len(matched) > 1:
            found, pairs = self.over_seeds(matched, part)
            return Comparison(found.first, found.second, found.p, pairs, len(matched))
        a, b, references = self.common(*matched[0], part)
        scores = bleu(a, references), bleu(b, references)
        p = paired_test(a, b, references) if scores[0] != scores[1] else 1.0  # sacrebleu: 0.001 if all draws are equal
        return Comparison(*scores, p, len(references))

    def gain(self, first: Runs, second: Runs, part: str) -> tuple[float, float]:
        """Bounds of the middle 95 % of drawn differences in BLEU-4, first minus second; call `compare` first."""
        matched = same_seeds(first, second)
        if len(matched) > 1:
            found, _ = self.over_seeds(matched, part)
            return found.low, found.high
        *systems, references = self.common(*matched[0], part)
        seed = matched[0][0].switch("seed")  # one seed, so that both get the same draws
        a, b = (resampled_bleu(sentence_counts(each, references), seed) for each in systems)
        low, high = np.quantile(np.subtract(a, b), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)

    def over_seeds(self, matched: list[tuple[Run, Run]], part: str) -> tuple[Difference, int]:
        """Compare two systems over seeds; also the number of pairs that were drawn from. Raises what `common` raises.

        Seeds may have different test pairs: a protocol can draw them, and what is unseen depends on the regime's draw.
        """
        tables = self._tables(matched, part, self.counts_of)
        return compare_over_seeds(*tables), tables.shape[2]

    def compare_losses(self, first: Runs, second: Runs, part: str) -> tuple[Difference, int]:
        """The loss of the test references of two systems, with the seeds that both were run with, and how many.

        Raises:
            NotMeasured: they have no seed in common, a run is older than this loss, or what `common` raises.
        """
        matched = same_seeds(first, second)
        if not matched:
            raise NotMeasured("no seed that both were run with")
        own, others = self._tables(matched, part, self._losses)
        return compare_over_seeds(own, others, loss_of_many), len(matched)

    def _tables(self, matched: list[tuple[Run, Run]], part: str, rows_of: Callable[[Run], Table]) -> Tables:
        """What is summed over the pairs of a part, [2 systems, seeds, pairs of any seed, columns of `rows_of`]."""
        places: dict[tuple[str, int], int] = {}  # of each pair of any seed in the table
        chosen = []
        for runs in matched:
            flags = self.flags(*runs, part)
            asked = compress(((each.dialogue, each.position) for each in self.of(runs[0])), flags)
            chosen.append((flags, [places.setdefault(each, len(places)) for each in asked]))
        found = [[rows_of(run) for run in runs] for runs in matched]
        tables = np.zeros((2, len(matched), len(places), found[0][0].shape[1]), dtype=found[0][0].dtype)
        for at, (systems, (flags, rows)) in enumerate(zip(found, chosen, strict=True)):
            for system, table in enumerate(systems):
                tables[system, at, rows] = table[flags]
        return tables

    def _losses(self, run: Run) -> Losses:
        """The loss of each reference and its tokens, [N, 2].

        Raises:
            NotMeasured: the run is older than this loss.
        """
        losses = losses_of(self.of(run))
        if losses is None:
            raise NotMeasured(f"{run.name} has no losses")
        return losses

    def counts_of(self, run: Run) -> Counts:
        """What BLEU sums over the responses of a run, [N, 10]; counted once."""
        if run.name not in self.counts:
            found = self.of(run)
            self.counts[run.name] = sentence_counts(
                [each.response for each in found], [each.reference for each in found]
            )
        return self.counts[run.name]
