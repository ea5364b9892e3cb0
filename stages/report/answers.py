"""What the runs answered, as far as DVC's cache has it, and which test pairs their training regime gives away."""

from dataclasses import dataclass, field
from itertools import compress

import numpy as np

from stages.bleu import bleu
from stages.overlap import Flags
from stages.records import Dialogue, Pair, Response, single_line
from stages.report.runs import Run
from stages.score.bootstrap import CONFIDENCE, paired_test, resampled_bleu, sentence_counts
from stages.score.leakage import Leakage, exact_leakage, near_leakage
from stages.score.variety import DIGITS

PARTS = ("all", "unseen", "unlike")
FEWEST = 10  # pairs: with one, every draw of the bootstrap is the same, and any difference looks certain
RESPONSES = "data/greedy_generate/responses.jsonl"


class NotMeasured(Exception):
    """Why a comparison cannot be made."""


@dataclass(frozen=True)
class Comparison:
    """BLEU-4 of two runs on the same pairs, and how often chance alone makes such a difference."""

    first: float
    second: float
    p: float
    pairs: int


def check_pairs(count: int) -> None:
    """Refuse a part of the test pairs that says nothing.

    Raises:
        NotMeasured: it is smaller than FEWEST.
    """
    if count < FEWEST:
        raise NotMeasured(f"{count} such pairs, too few" if count else "no such pairs")


@dataclass
class Answers:
    """Reads each file once, however many comparisons need it."""

    responses: dict[str, list[Response]] = field(default_factory=dict)
    parts: dict[tuple[str, str], Flags] = field(default_factory=dict)
    turns: dict[str, frozenset[str] | None] = field(default_factory=dict)

    def of(self, run: Run) -> list[Response]:
        """The responses of a run.

        Raises:
            NotMeasured: they are not in the cache, or are not those that its scores are about.
        """
        if run.name not in self.responses:
            found = run.files.records(RESPONSES, Response)
            if not found:
                raise NotMeasured("responses not in the cache")
            score = bleu([each.response for each in found], [each.reference for each in found])
            if round(score, DIGITS) != run.rows["test"]["bleu4"]:
                raise NotMeasured(f"the responses of {run.name} score {score:.6f}, its metrics say otherwise")
            self.responses[run.name] = found
        return self.responses[run.name]

    def training_turns(self, run: Run) -> frozenset[str] | None:
        """The turns of the training regime of a run; None if they are not in the cache."""
        if run.data not in self.turns:
            found = run.files.records("data/subset/turns.jsonl", Dialogue)
            known = None if found is None else frozenset(single_line(turn) for each in found for turn in each.turns)
            self.turns[run.data] = known
        return self.turns[run.data]

    def part(self, run: Run, name: str) -> Flags:
        """Which of the test pairs of a run belong to a part, [N]: stages/score/scorer.py says what the parts are.

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

    def common(self, first: Run, second: Run, part: str) -> tuple[list[str], list[str], list[str]]:
        """The responses of both runs, and the references, on the test pairs that belong to a part for both.

        Raises:
            NotMeasured: something is not in the cache, they answer other pairs, or the part has too few pairs.
        """
        answers = [self.of(first), self.of(second)]
        asked = [[(each.dialogue, each.position, each.query, each.reference) for each in some] for some in answers]
        if asked[0] != asked[1]:
            raise NotMeasured("they answered other pairs")
        chosen = self.part(first, part) & self.part(second, part)
        check_pairs(int(chosen.sum()))
        references = list(compress((each.reference for each in answers[0]), chosen))
        a, b = (list(compress((each.response for each in some), chosen)) for some in answers)
        return a, b, references

    def compare(self, first: Run, second: Run, part: str) -> Comparison:
        """BLEU-4 of two runs on a part of the test pairs; raises as `common`."""
        a, b, references = self.common(first, second, part)
        scores = bleu(a, references), bleu(b, references)
        p = paired_test(a, b, references) if scores[0] != scores[1] else 1.0  # sacrebleu: 0.001 if all draws are equal
        return Comparison(*scores, p, len(references))

    def gain(self, first: Run, second: Run, part: str) -> tuple[float, float]:
        """Bounds of the middle 95 % of resampled differences in BLEU-4, first less second; raises as `common`."""
        *systems, references = self.common(first, second, part)
        seed = first.switch("seed")  # the same for both: the same draws
        a, b = (resampled_bleu(sentence_counts(each, references), seed) for each in systems)
        low, high = np.quantile(np.subtract(a, b), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(low), float(high)
