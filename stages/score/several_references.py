"""BLEU where a pair has several references: its own response, and what further people answered to its query.

It is sacrebleu's multi-reference BLEU with the settings of stages/bleu.py: an n-gram counts as often as it stands in
the reference that has it most often, and the brevity penalty compares with the reference nearest in length. A pair may
have any number of further references; one that has none is scored against its own alone, so that without any further
reference the score is the one of a single reference.

The own responses (`human`) cannot be scored against themselves: they are left out of their references and scored
against the further ones alone, on the pairs that have any. What any other row scores against those alone stands beside
its score as `bleu4_further_only`: that is the number to hold against `human`, which has one reference less.

`bleu4_lower_case` overlooks case: further references may be written in another way than the corpus
(DailyDialog's are in lower case and in another tokenisation: stages/pair_extract/references.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from stages.bleu import MAX_ORDER
from stages.overlap import Flags
from stages.records import Pair, References
from stages.score.bootstrap import Counts, bleu_interval, bleu_of_sums, sentence_counts
from stages.score.variety import DIGITS

Scores = dict[str, Any]


@dataclass(frozen=True)
class Counted:
    """What BLEU sums up over the responses to some of the N test pairs."""

    pairs: Flags  # [N]: which pairs are scored, M of them
    against_all: Counts  # [M, 10]
    lower_case: Counts  # [M, 10]
    with_further: Flags  # [N]: which pairs have further references, L of them
    against_further: Counts  # [L, 10]: against those alone

    def scores(self, chosen: Flags, seed: int) -> Scores | None:
        """The scores of the pairs `chosen` [N]; None if none of them is scored."""
        counts = self.against_all[chosen[self.pairs]]
        if not len(counts):
            return None
        sums = counts.sum(axis=0).tolist()
        further = self.against_further[chosen[self.with_further]]
        lower = self.lower_case[chosen[self.pairs]]
        return {
            **{f"bleu{order}": round(bleu_of_sums(sums, order), DIGITS) for order in range(1, MAX_ORDER + 1)},
            "pairs": len(counts),
            "bleu4_interval": [round(bound, DIGITS) for bound in bleu_interval(counts, seed)],
            "bleu4_further_only": round(bleu_of_sums(further.sum(axis=0).tolist()), DIGITS) if len(further) else None,
            "bleu4_lower_case": round(bleu_of_sums(lower.sum(axis=0).tolist()), DIGITS),
        }


@dataclass(frozen=True)
class SeveralReferences:
    """The references of N test pairs."""

    own: list[str]  # [N]
    further: list[list[str]]  # [N], for each pair any number

    @property
    def with_further(self) -> Flags:
        """Which pairs have further references, [N]."""
        return np.array([bool(each) for each in self.further], dtype=np.bool_)

    def count(self, responses: Sequence[str]) -> Counted:
        """Count for the N responses of a method, against all references."""
        every = np.ones(len(self.own), dtype=np.bool_)
        against_all, lower = (sentence_counts(responses, self.own, self.further, case) for case in (False, True))
        return Counted(every, against_all, lower, self.with_further, self._against_further(responses))

    def count_own(self) -> Counted:
        """Count for the own responses of the pairs, which are left out of the references."""
        counts, lower = (self._against_further(self.own, case) for case in (False, True))
        return Counted(self.with_further, counts, lower, self.with_further, counts)

    def _against_further(self, responses: Sequence[str], lowercase: bool = False) -> Counts:
        """[L, 10], of the L pairs that have further references."""
        answers = list(compress(responses, self.with_further))
        first = [each[0] for each in self.further if each]
        return sentence_counts(answers, first, [each[1:] for each in self.further if each], lowercase)

    def facts(self) -> Scores:
        """How many references there are, and sacrebleu's signature, with which others can repeat the scores."""
        metric = BLEU(force=True)
        streams = zip_longest(*([own, *further] for own, further in zip(self.own, self.further, strict=True)))
        metric.corpus_score(self.own, list(streams))  # the signature counts the references of the last score
        counts = {"pairs": int(self.with_further.sum()), "further": sum(map(len, self.further))}
        return {**counts, "signature": str(metric.get_signature())}


def several_references(test: Sequence[Pair], references: Sequence[References]) -> SeveralReferences | None:
    """The references of the test pairs; None if not one has a further one."""
    known = {(each.dialogue, each.position): each.references for each in references}
    further = [known.get((pair.dialogue, pair.position), []) for pair in test]
    return SeveralReferences([pair.response for pair in test], further) if any(further) else None
