"""BLEU where a pair has several references: its own response, and what further people answered to its query.

It is sacrebleu's multi-reference BLEU with the settings of stages/similarity/bleu.py: an n-gram counts as often as it
stands in the reference that has it most often, and the brevity penalty compares with the reference nearest in length. A
pair without further references is scored against its own alone.

People's own responses (`human`) are scored against the further ones alone, on the pairs that have any. What any other
row scores against those stands beside its score as `bleu4_further_only`: that is the number to hold against `human`.
`bleu4_lower_case` overlooks case: further references may be written in another way than the corpus.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from stages.bootstrap import Table, sentence_counts
from stages.records import Pair, References
from stages.score.variants import bleu4_interval, bleus

Scores = dict[str, Any]


def several_references(test: Sequence[Pair], references: Sequence[References]) -> list[list[str]] | None:
    """For each of N test pairs its own response, then the further ones; None if not one has a further one."""
    known = {(each.dialogue, each.position): each.references for each in references}
    found = [[pair.response, *known.get((pair.dialogue, pair.position), ())] for pair in test]
    return found if any(len(each) > 1 for each in found) else None


def several_facts(references: Sequence[list[str]]) -> Scores:
    """How many references there are, and sacrebleu's signature, with which others can repeat the scores."""
    metric, further = BLEU(force=True), [len(each) - 1 for each in references]
    # The signature counts the references of the last score.
    metric.corpus_score([own for own, *_ in references], list(zip_longest(*references)))
    return {"pairs": sum(map(bool, further)), "further": sum(further), "signature": str(metric.get_signature())}


def several_counts(
    responses: Sequence[str], references: Sequence[list[str]], with_own: bool = True
) -> dict[str, Table]:
    """What BLEU sums up over N responses, each [N, 10], with zeros for a pair without the references in question.

    with_own: the pair's own response, the first of its references, is one of them.
    """
    further = [each[1:] for each in references]
    counted = references if with_own else further
    lower = [[text.lower() for text in each] for each in counted]
    return {
        "all": sentence_counts(responses, counted),
        "lower_case": sentence_counts([each.lower() for each in responses], lower),
        "further_only": sentence_counts(responses, further),
    }


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
