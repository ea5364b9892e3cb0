"""How much chance affects a BLEU score or a loss: bootstrap confidence interval and paired test (Koehn, EMNLP 2004).

A thousand times, we draw N of the N test pairs with replacement. BLEU is a function of sums over sentences, so each
draw needs a sum but no new counting of n-grams.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest, Result

from stages.bleu import MAX_ORDER, check_texts
from stages.records import Response

SAMPLES = 1000
CONFIDENCE = 0.95

Counts = np.ndarray[tuple[int, int], np.dtype[np.int64]]
Draw = np.ndarray[tuple[int], np.dtype[np.int64]]
Losses = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def sentence_counts(
    responses: Sequence[str],
    references: Sequence[str],
    further: Sequence[Sequence[str]] | None = None,
) -> Counts:
    """The counts that BLEU sums over sentences; any part of the corpus and any draw from it can use them.

    Args:
        responses: N texts.
        references: N texts, one for each response.
        further: for each of the N responses any number of further references; None: none.

    Returns:
        [N, 10]: words of the response, words of the reference (of several the one nearest in length), matching n-grams
        of orders 1 to 4, n-grams of the response of orders 1 to 4.

    Raises:
        StageError: the lists differ in length or are empty, or a text has a line break in it.
    """
    check_texts(responses, references)
    # effective_order only silences advice; the counts are the same
    metric = BLEU(force=True, effective_order=True)
    others = further if further is not None else [()] * len(responses)
    scores = [
        metric.sentence_score(response, [reference, *more])
        for response, reference, more in zip(responses, references, others, strict=True)
    ]
    return np.array([[score.sys_len, score.ref_len, *score.counts, *score.totals] for score in scores], dtype=np.int64)


def bleu_of_sums(sums: Sequence[int], order: int = MAX_ORDER) -> float:
    """The same score as `bleu`, from the 10 sums of `sentence_counts` over the sentences."""
    words, reference_words, *ngrams = sums
    correct, total = ngrams[:order], ngrams[MAX_ORDER : MAX_ORDER + order]
    score = BLEU.compute_bleu(correct, total, words, reference_words, smooth_method="exp", max_ngram_order=order)
    return float(score.score) / 100


def draws(n: int, seed: int, samples: int) -> Iterator[Draw]:
    """`samples` times n numbers below n, with replacement: the pairs of a sample, for BLEU and for the loss alike."""
    generator = np.random.default_rng(seed)
    return (generator.integers(n, size=n) for _ in range(samples))


def resampled_bleu(counts: Counts, seed: int, samples: int = SAMPLES) -> list[float]:
    """BLEU-4 of `samples` random draws of N of the N sentences, with replacement; `counts` [N, 10]."""
    n = len(counts)
    times_drawn = (np.bincount(drawn, minlength=n) for drawn in draws(n, seed, samples))
    return [bleu_of_sums((times @ counts).tolist()) for times in times_drawn]


def bleu_interval(counts: Counts, seed: int, samples: int = SAMPLES) -> tuple[float, float]:
    """Bounds of the middle 95 % of the resampled BLEU-4; `counts` [N, 10] from `sentence_counts`."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_bleu(counts, seed, samples), [tail, 1 - tail])
    return float(low), float(high)


def losses_of(responses: Sequence[Response]) -> Losses | None:
    """The summed loss of each of N references and its tokens, [N, 2]; None if it is not known of all."""
    found = [(each.loss, each.tokens) for each in responses if each.loss is not None and each.tokens is not None]
    return np.array(found, dtype=np.float64) if found and len(found) == len(responses) else None


def mean_loss(losses: Losses) -> float:
    """The mean loss of a token, in nats; `losses` [N, 2] from `losses_of`."""
    loss, tokens = losses.sum(axis=0)
    return float(loss / tokens)


def resampled_losses(losses: Losses, seed: int, samples: int = SAMPLES) -> list[float]:
    """The mean loss of `samples` random draws of N of the N pairs, with replacement: the same draws as for BLEU."""
    return [mean_loss(losses[drawn]) for drawn in draws(len(losses), seed, samples)]


def loss_interval(losses: Losses, seed: int, samples: int = SAMPLES) -> tuple[float, float]:
    """Bounds of the middle 95 % of the resampled loss."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled_losses(losses, seed, samples), [tail, 1 - tail])
    return float(low), float(high)


def paired_test(responses_a: Sequence[str], responses_b: Sequence[str], references: Sequence[str]) -> float:
    """The p-value of the difference in BLEU-4 between two methods on the same pairs: sacrebleu's paired bootstrap.

    That is how often, in 1000 draws of the pairs, chance alone makes a difference as large as the observed one.
    sacrebleu seeds the draws with 12345, or with the environment variable SACREBLEU_SEED.

    Raises:
        StageError: the lists differ in length or are empty, or a text has a line break in it.
    """
    check_texts(responses_a, references)
    check_texts(responses_b, references)
    if list(responses_a) == list(responses_b):
        return 1.0  # here sacrebleu would return 0.001, because no draw has a difference larger than 0
    systems = [("a", responses_a), ("b", responses_b)]
    test = PairedTest(systems, {"BLEU": BLEU(force=True)}, [references], test_type="bs", n_samples=SAMPLES)
    result = test()[1]["BLEU"][1]
    assert isinstance(result, Result)
    assert result.p_value is not None
    return result.p_value
