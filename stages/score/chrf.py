"""chrF (Popovic, WMT 2015): the F-score of character n-grams, by sacrebleu, as a fraction.

It sees that "going" is nearly "goes", and depends less on how a text is cut into words than BLEU does. All is
sacrebleu's default, which the signature names: characters to the order of 6, no words, recall counts twice.
"""

from collections.abc import Sequence

from sacrebleu.metrics.chrf import CHRF


def chrf(responses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF of N responses against their N references, from 0 to 1.

    >>> chrf(["the cat"], ["the cat"])
    1.0
    """
    return float(CHRF().corpus_score(responses, [references]).score) / 100


def signature() -> str:
    """Name these settings as sacrebleu does, its version included."""
    metric = CHRF()
    metric.corpus_score(["a"], [["a"]])  # the signature counts the references of the last score
    return str(metric.get_signature())
