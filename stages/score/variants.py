"""BLEU as others compute it. The paper names no implementation, and the same responses score very differently.

- sentence: a BLEU for each response, without smoothing, and their mean: NLTK's `sentence_bleu` as it comes. A response
  without a matching n-gram of the highest order counts 0, and so does its reference if it has fewer than n words.
- sentence-smoothed: the same with method 7 of Chen and Cherry ("A Systematic Comparison of Smoothing Techniques for
  Sentence-Level BLEU", WMT 2014), which gives a response without any long match a score that is far from 0. It adds to
  the matches from those of shorter n-grams, so that equal texts score above 1.
- lower-case: the corpus BLEU of stages/bleu.py, but with case overlooked.

Which of them fits the ratios BLEU-1 : BLEU-2 : BLEU-3 : BLEU-4 of the paper's 36 rows was measured on DailyDialog by
`python -m tests.score.paper_ratios`, as the root mean square of differences in the logarithm. With responses that the
lookup gives in the six regimes (29 rows can be compared): corpus BLEU 0.123, sentence 0.123, lower-case 0.186. With
responses of which a share are the references and the others those of other pairs (36 rows): corpus BLEU 0.143,
sentence 0.216, lower-case 0.198. sentence-smoothed is excluded: the responses of other pairs have a BLEU-1 of 0.261
there, more than any row of the paper. So the corpus BLEU fits as well as any and better on the whole, which is no proof
that it is the paper's.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import nltk
import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sacrebleu.metrics.bleu import BLEU

from stages.bleu import MAX_ORDER
from stages.score.bootstrap import bleu_of_sums, sentence_counts
from stages.score.variety import DIGITS

WEIGHTS = [(1 / order,) * order for order in range(1, MAX_ORDER + 1)]
SMOOTHINGS = {"sentence": "method0", "sentence-smoothed": "method7"}
NAMES = {"method0": "no smoothing", "method7": "smoothing method 7"}

Orders = list[float]  # BLEU-1 to BLEU-4, fractions


def sentence_averaged(responses: Sequence[str], references: Sequence[str], smoothing: str) -> Orders:
    """Means of NLTK's sentence BLEU-1 to BLEU-4 of N responses; words are what stands between white space.

    Args:
        responses: N texts.
        references: N texts.
        smoothing: name of a method of NLTK's `SmoothingFunction`, numbered as by Chen and Cherry; method0: none.
    """
    smooth = getattr(SmoothingFunction(), smoothing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NLTK's, for each response without a match of some order
        scores = [
            sentence_bleu([reference.split()], response.split(), WEIGHTS, smooth)
            for response, reference in zip(responses, references, strict=True)
        ]
    return [float(mean) for mean in np.mean(scores, axis=0)]


def lower_cased(responses: Sequence[str], references: Sequence[str]) -> Orders:
    """Corpus BLEU-1 to BLEU-4 by sacrebleu with case overlooked."""
    sums = sentence_counts(responses, references, lowercase=True).sum(axis=0).tolist()
    return [bleu_of_sums(sums, order) for order in range(1, MAX_ORDER + 1)]


def lower_cased_signature() -> str:
    """Name the settings of `lower_cased` as sacrebleu does."""
    metric = BLEU(lowercase=True, force=True)
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature())


VARIANTS: dict[str, Callable[[Sequence[str], Sequence[str]], Orders]] = {
    **{name: partial(sentence_averaged, smoothing=method) for name, method in SMOOTHINGS.items()},
    "lower-case": lower_cased,
}


def label(name: str) -> str:
    """What a variant is, in a line, with the version of the library."""
    if name == "lower-case":
        return lower_cased_signature()
    return f"nltk {nltk.__version__} sentence_bleu, {NAMES[SMOOTHINGS[name]]}, averaged, words between white space"


def bleu_variants(rows: Mapping[str, Sequence[str]], references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each variant its label and, for each row (name -> N responses), its BLEU-1 to BLEU-4."""
    return {
        name: {
            "label": label(name),
            **{row: bleus(compute(responses, references)) for row, responses in rows.items()},
        }
        for name, compute in VARIANTS.items()
    }


def bleus(orders: Orders) -> dict[str, float]:
    """BLEU-1 to BLEU-4 by name."""
    return {f"bleu{order}": round(value, DIGITS) for order, value in enumerate(orders, start=1)}
