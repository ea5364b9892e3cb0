"""How sure a difference in BLEU-4 or in loss is when both systems were trained with several seeds.

A score over seeds is the mean of the seeds' corpus BLEU, or of their loss per token. Other seeds would give other
models, and other test pairs other scores. So every draw of the bootstrap here draws both:

- N of the N test pairs with replacement, the same ones for all seeds and both systems (Koehn, EMNLP 2004). Corpus BLEU
  of each seed is computed from summed counts; the difference is that of the means over seeds.
- n seeds. To draw n of n seeds with replacement is far too sure of itself when n is 2 to 5: the variance is too small
  by (n - 1) / n, and a handful of values has no tails. So the draw adds to the difference what is known of a mean of n
  values: its standard error s / sqrt(n), with n - 1 in s, times a draw from Student's t with n - 1 degrees of freedom.

The interval is the middle 95 % of the draws; p is twice the share of draws on the other side of zero. Such a sum of two
parts is Fisher's solution of the Behrens-Fisher problem, which errs on the safe side (G. K. Robinson, Annals of
Statistics 4, 1976), and s also contains what the pairs add to each seed. Measured on made-up data without a true
difference (tests/report/test_seeds.py, 400 cases each): where most noise is between seeds, 3.3, 4.5 and 3.8 % of cases
are found to differ with 2, 3 and 5 seeds, and with plain draws of seeds 30, 21 and 14 %; with less noise between seeds,
or none, 1.0 to 6.8 %. Two seeds show only differences that are many times as large as those between seeds.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stages.bleu import MAX_ORDER
from stages.score.bootstrap import CONFIDENCE, SAMPLES

SEED_DRAWS = 10  # for each draw of the pairs

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Counts = np.ndarray[tuple[int, int, int], np.dtype[np.int64]] | np.ndarray[tuple[int, int, int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Difference:
    """The score of two systems as means over seeds, and how sure their difference is."""

    first: float
    second: float
    p: float
    low: float
    high: float


def bleu_of_many(sums: Floats) -> Floats:
    """BLEU-4 as `stages.bleu.bleu` computes it, of many corpora at once.

    Args:
        sums: [..., 10], each the sums of `sentence_counts` over the sentences of a corpus.

    Returns:
        [...], from 0 to 1.
    """
    words, reference_words = sums[..., 0], sums[..., 1]
    correct, total = sums[..., 2 : 2 + MAX_ORDER], sums[..., 2 + MAX_ORDER :]
    scored = (correct.sum(-1) > 0) & (total.min(-1) > 0)
    none = correct == 0
    smooth = np.where(none, 0.5 ** np.cumsum(none, axis=-1), correct)  # sacrebleu's exp: 1/2, 1/4, ... of a match
    precision = np.log(smooth / np.maximum(total, 1)).mean(-1)
    brevity = np.minimum(0.0, 1 - reference_words / np.maximum(words, 1))
    return np.where(scored, np.exp(precision + brevity), 0.0)


def loss_of_many(sums: Floats) -> Floats:
    """Losses per token: [..., 2], each the sums over pairs of losses and tokens, to [...]."""
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def drawn_sums(counts: Counts, generator: np.random.Generator) -> Floats:
    """The summed counts of SAMPLES draws of N of the N pairs, with replacement.

    Args:
        counts: [n, N, k]; zeros where a row lacks a pair.
        generator: draws.

    Returns:
        [SAMPLES, n, k].
    """
    n, pairs, k = counts.shape
    drawn = generator.integers(pairs, size=(SAMPLES, pairs)) + pairs * np.arange(SAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=SAMPLES * pairs).reshape(SAMPLES, pairs).astype(np.float64)
    flat = counts.transpose(1, 0, 2).reshape(pairs, n * k)
    return (times @ flat.astype(np.float64)).reshape(SAMPLES, n, k)


def compare_over_seeds(first: Counts, second: Counts, score: Callable[[Floats], Floats] = bleu_of_many) -> Difference:
    """Compare two systems over seeds and test pairs, as the text of this module says; with one seed, over test pairs.

    Args:
        first: [n, N, k], what is summed over N test pairs of the first system for each of n seeds: `sentence_counts`
            for BLEU. Where each seed has its own test pairs, N counts those of all seeds; a seed has zeros for pairs
            that it lacks.
        second: the same of the second system, seed by seed.
        score: the score of sums [..., k].
    """
    generator, seeds = np.random.default_rng(0), len(first)
    means = [score(each.sum(1).astype(np.float64)) for each in (first, second)]
    both = score(drawn_sums(np.concatenate([first, second]), generator)).reshape(SAMPLES, 2, seeds).mean(-1)
    draws = (both[:, 0] - both[:, 1])[:, None]
    if seeds > 1:
        error = (means[0] - means[1]).std(ddof=1) / np.sqrt(seeds)
        draws = draws + error * generator.standard_t(seeds - 1, size=(SAMPLES, SEED_DRAWS))
    sides = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    p = min(1.0, 2 * (sides + 1) / (draws.size + 1))
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(float(means[0].mean()), float(means[1].mean()), p, float(low), float(high))
