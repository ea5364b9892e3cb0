"""BLEU where a pair has several references: its own response, and what further people answered to its query.

It is sacrebleu's multi-reference BLEU with the settings of stages/similarity/bleu.py: an n-gram counts as often as it
stands in the reference that has it most often, and the brevity penalty compares with the reference nearest in length. A
pair without further references is scored against its own alone.

People's own responses (`human`) are scored against the further ones alone, on the pairs that have any. What any other
row scores against those stands beside its score as `bleu4_further_only`: that is the number to hold against `human`.
`bleu4_lower_case` overlooks case: further references may be written in another way than the corpus.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from stages.bootstrap import Table, sentence_counts
from stages.records import Pair, References
from stages.score.variants import bleu4_interval, bleus
from stages.similarity.bleu import MAX_ORDER

Scores = dict[str, Any]


@dataclass(frozen=True)
class SeveralReferences:
    """The references of N test pairs."""

    own: list[str]  # [N]
    further: list[list[str]]  # [N], for each pair any number

    def count(self, responses: Sequence[str], with_own: bool = True) -> dict[str, Table]:
        """What BLEU sums up over N responses, each [N, 10], with zeros for a pair without the references in question.

        with_own: the pair's own response is one of the references.
        """
        own = [[each] if with_own else [] for each in self.own]
        references = [first + more for first, more in zip(own, self.further, strict=True)]
        lower = [[text.lower() for text in each] for each in references]
        return {
            "all": _counts(responses, references),
            "lower_case": _counts([each.lower() for each in responses], lower),
            "further_only": _counts(responses, self.further),
        }

    def facts(self) -> Scores:
        """How many references there are, and sacrebleu's signature, with which others can repeat the scores."""
        metric = BLEU(force=True)
        streams = zip_longest(*([own, *further] for own, further in zip(self.own, self.further, strict=True)))
        metric.corpus_score(self.own, list(streams))  # the signature counts the references of the last score
        counts = {"pairs": sum(map(bool, self.further)), "further": sum(map(len, self.further))}
        return {**counts, "signature": str(metric.get_signature())}


def _counts(responses: Sequence[str], references: Sequence[list[str]]) -> Table:
    counts = np.zeros((len(responses), 2 + 2 * MAX_ORDER), dtype=np.int64)
    if scored := [at for at, each in enumerate(references) if each]:
        own, further = zip(*((references[at][0], references[at][1:]) for at in scored), strict=True)
        counts[scored] = sentence_counts([responses[at] for at in scored], own, further)
    return counts


def several_scores(counted: dict[str, Table], dialogues: Sequence[str], seed: int) -> Scores | None:
    """The scores of some pairs, from what was counted of them; None if none of them is scored."""
    scored = np.flatnonzero(counted["all"].any(axis=1))  # every reference has a word
    if not len(scored):
        return None
    further = counted["further_only"]
    return {
        **bleus(counted["all"]),
        "pairs": len(scored),
        "bleu4_interval": bleu4_interval(counted["all"][scored], [dialogues[at] for at in scored.tolist()], seed),
        "bleu4_further_only": bleus(further)["bleu4"] if further.any() else None,
        "bleu4_lower_case": bleus(counted["lower_case"])["bleu4"],
    }


def several_references(test: Sequence[Pair], references: Sequence[References]) -> SeveralReferences | None:
    """The references of the test pairs; None if not one has a further one."""
    known = {(each.dialogue, each.position): each.references for each in references}
    further = [known.get((pair.dialogue, pair.position), []) for pair in test]
    return SeveralReferences([pair.response for pair in test], further) if any(further) else None
