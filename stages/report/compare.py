"""How sure a difference between two methods is, from the answers to the same test pairs."""

from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import numpy as np

from stages.bootstrap import Difference, bleu_of_sums, compare, loss_of_sums, losses_of, sentence_counts
from stages.records import Response
from stages.report.frame import LEAST_MATCHES
from stages.report.runs import Run, Runs, same_seeds

MIN_PAIRS = 10  # with a single pair, all draws of the bootstrap are equal, and any difference looks certain
RESPONSES = "data/greedy_generate/responses.jsonl"
MATCHING_4GRAMS = 5  # column of `sentence_counts`
SCORES = {"loss": loss_of_sums, "bleu4": bleu_of_sums}

Table = np.ndarray[tuple[int, int], np.dtype[Any]]


class NotMeasured(Exception):
    """A comparison cannot be made; the message says why."""


@dataclass(frozen=True)
class Comparison:
    """The means over seeds of two systems on the same pairs, their difference, its 95 % interval and its p-value."""

    found: Difference
    seeds: int

    @property
    def gap(self) -> float:
        """First minus second."""
        return self.found.first - self.found.second


@dataclass
class Answers:
    """The responses of runs; reads each file only once."""

    responses: dict[str, list[Response]] = field(default_factory=dict)
    tables: dict[tuple[str, str], Table] = field(default_factory=dict)

    def of(self, run: Run) -> list[Response]:
        """The responses of a run.

        Raises:
            NotMeasured: they are not in the cache.
        """
        if run.name not in self.responses:
            self.responses[run.name] = run.files.records(RESPONSES, Response) or []
        if not self.responses[run.name]:
            raise NotMeasured("responses not in the cache")
        return self.responses[run.name]

    def compare(self, first: Runs, second: Runs, score: str, part: str = "all") -> Comparison:
        """Compare two configurations by `loss` or `bleu4` on a part of the test pairs, over the seeds that both have.

        Raises:
            NotMeasured: they share no seed or have other test pairs, the part is too small, or something is missing.
        """
        matched = same_seeds(first, second)
        if not matched:
            raise NotMeasured("no seed that both were run with")
        places: dict[tuple[str, int], int] = {}  # of each pair of any seed in the tables
        rows = [self._chosen(runs, part, places) for runs in matched]
        tables = [[self._table(run, score) for run in runs] for runs in matched]
        whole = np.zeros((2, len(matched), len(places), tables[0][0].shape[1]))
        for seed, (flags, at) in enumerate(rows):
            for system in (0, 1):
                whole[system, seed, at] = tables[seed][system][flags]
        if score == "bleu4" and whole[..., MATCHING_4GRAMS].sum(-1).min() < LEAST_MATCHES:
            raise NotMeasured("too few matching 4-grams")
        dialogues = [dialogue for dialogue, _ in places]
        return Comparison(compare(whole[0], whole[1], dialogues, SCORES[score]), len(matched))

    def _chosen(self, runs: tuple[Run, Run], part: str, places: dict[tuple[str, int], int]) -> Any:
        """Which test pairs of two runs count, as flags [N], and their rows in the tables of all seeds."""
        asked = [[(each.dialogue, each.position, each.query, each.reference) for each in self.of(run)] for run in runs]
        if asked[0] != asked[1]:
            raise NotMeasured("their test pairs differ")
        flags = np.logical_and(*(part_of(run, part, len(asked[0])) for run in runs))
        if flags.sum() < MIN_PAIRS:
            raise NotMeasured(f"only {flags.sum()} such pairs")
        keys = compress((each[:2] for each in asked[0]), flags)
        return flags, [places.setdefault(key, len(places)) for key in keys]

    def _table(self, run: Run, score: str) -> Table:
        """What the score sums over the responses of a run, [N, k]."""
        if (run.name, score) not in self.tables:
            found = self.of(run)
            if score == "loss":
                table = losses_of(found)
            else:
                table = sentence_counts([each.response for each in found], [each.reference for each in found])
            if table is None:
                raise NotMeasured(f"{run.name} has no losses")
            self.tables[run.name, score] = table
        return self.tables[run.name, score]


def part_of(run: Run, part: str, pairs: int) -> Any:
    """Which of the test pairs of a run belong to a part, [N]; stages/score/scorer.py defines the parts.

    Raises:
        NotMeasured: the run was scored before its parts were written down.
    """
    if part == "all":
        return np.ones(pairs, dtype=np.bool_)
    found = (run.scores.get("parts") or {}).get(part)
    if found is None or len(found) != pairs:
        raise NotMeasured(f"{run.name} does not say which pairs are {part}")
    return np.array([letter == "1" for letter in found])
