"""Corpus BLEU (Papineni et al., 2002) with one response per reference, by sacrebleu, as a fraction like in the paper.

BLEU-n is the brevity penalty times the geometric mean of the precisions of 1-grams to n-grams, so BLEU-1 is a score of
its own, not a part of BLEU-4. All else is sacrebleu's default, as `signature` says: mixed case, 13a tokenisation, and
"exp" smoothing: if no n-gram of some length matches, 1/2, 1/4, ... of a match is used instead. On few test pairs that
is common. Such a BLEU-4 measures nothing: the report prints "-". If all responses are shorter than n words, it is 0.

The paper names no implementation. On DailyDialog this BLEU fits the ratios BLEU-1 : BLEU-2 : BLEU-3 : BLEU-4 of the
paper's 36 rows at least as well as means of NLTK's sentence BLEU, with and without smoothing, and as lower-cased BLEU
(measured by tests/score/paper_ratios.py of commit c6c83f5). That is no proof that the paper's is this one.
"""

from collections.abc import Sequence

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU

MAX_ORDER = 4


def bleu(responses: Sequence[str], references: Sequence[str], order: int = MAX_ORDER) -> float:
    """Corpus BLEU-`order` (1 to 4) of N responses against their N references, from 0 to 1.

    >>> round(bleu(["the cat sat down"], ["the cat sat up"], order=2), 4)  # sqrt(3/4 * 2/3)
    0.7071
    """
    # force: DailyDialog's files are already tokenised, and sacrebleu would warn about that at every epoch.
    return float(BLEU(max_ngram_order=order, force=True).corpus_score(responses, [references]).score) / 100


def signature(metric: Metric | None = None) -> str:
    """Sacrebleu's name of a metric's settings, with its version, so that others can repeat it; None: of this BLEU."""
    metric = metric or BLEU(force=True)
    metric.corpus_score(["a"], [["a"]])  # the signature includes the number of references of the last score
    return str(metric.get_signature())
