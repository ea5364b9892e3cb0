"""The bootstrap over dialogues and seeds: how sure a score is, and a difference between two methods.

A score over seeds is the mean of the seeds' corpus BLEU, or of their loss per token. Other seeds would give other
models, and other test dialogues other scores. So every draw here draws both (the bootstrap of forgetting, over
paragraphs of prose, is its own):

- D of the D test dialogues with replacement, the same ones for all seeds and both systems (Koehn, EMNLP 2004, draws
  sentences; pairs of one dialogue depend on each other, so that it is dialogues here).
- n seeds. To draw n of n seeds with replacement is far too sure of itself when n is 2 to 5. So the draw adds to the
  difference what is known of a mean of n values: its standard error s / sqrt(n), with n - 1 in s, times a draw from
  Student's t with n - 1 degrees of freedom.

The interval is the middle 95 % of the draws. Such a sum of two parts is Fisher's solution of the Behrens-Fisher
problem, which errs on the safe side (G. K. Robinson, Annals of Statistics 4, 1976), and s also contains what the
dialogues add to each seed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from stages.records import Response
from stages.similarity.bleu import MAX_ORDER

CONFIDENCE = 0.95
SAMPLES = 1000
SEED_DRAWS = 100  # for each draw of the dialogues: with ten, the ends of two seeds' interval were off by 0.05
MATCHES = slice(2, 2 + MAX_ORDER)  # the columns of `sentence_counts` with the matching n-grams

Table = np.ndarray[Any, np.dtype[Any]]
Score = Callable[[Table], Table]


class Difference(NamedTuple):
    """The score of two systems as means over seeds, and how sure their difference is."""

    first: float
    second: float
    low: float
    high: float


def sentence_counts(responses: Sequence[str], references: Sequence[Sequence[str]]) -> Table:
    """The counts of N responses that BLEU sums up, each [N, 10]; zeros for a response without references.

    Columns: words of the response, words of the reference (of several the one nearest in length), matching n-grams of
    orders 1 to 4, n-grams of the response of orders 1 to 4.
    """
    metric = BLEU(force=True, effective_order=True)  # effective_order only silences advice; the counts are the same
    counts = np.zeros((len(responses), 2 + 2 * MAX_ORDER), dtype=np.int64)
    for row, response, own in zip(counts, responses, references, strict=True):
        if own:
            score = metric.sentence_score(response, own)
            row[:] = score.sys_len, score.ref_len, *score.counts, *score.totals
    return counts


def losses_of(responses: Sequence[Response]) -> Table | None:
    """The summed loss of each of N references and its tokens, [N, 2]; None if it is not known of all."""
    found = [(each.loss, each.tokens) for each in responses if each.loss is not None and each.tokens is not None]
    return np.array(found, dtype=np.float64) if found and len(found) == len(responses) else None


def loss_of_sums(sums: Table) -> Table:
    """Losses per token: [..., 2], each the sums over pairs of losses and tokens, to [...]."""
    return np.asarray(sums[..., 0] / sums[..., 1], dtype=np.float64)


def bleu_of_sums(sums: Table, order: int = MAX_ORDER) -> Table:
    """BLEU-`order` as stages/similarity/bleu.py has it, of many corpora at once: [..., 10] to [...], from 0 to 1."""
    words, reference_words = sums[..., 0], sums[..., 1]
    correct, total = sums[..., MATCHES][..., :order], sums[..., 2 + MAX_ORDER :][..., :order]
    scored = (correct.sum(-1) > 0) & (total.min(-1) > 0)
    none = correct == 0
    smooth = np.where(none, 0.5 ** np.cumsum(none, axis=-1), correct)  # sacrebleu's exp: 1/2, 1/4, ... of a match
    precision = np.log(smooth / np.maximum(total, 1)).mean(-1)
    brevity = np.minimum(0.0, 1 - reference_words / np.maximum(words, 1))
    return np.where(scored, np.exp(precision + brevity), 0.0)


def drawn_sums(tables: Table, dialogues: Sequence[str], generator: np.random.Generator) -> Table:
    """The summed columns of SAMPLES draws of the dialogues: tables [n, N, k] and N names to [SAMPLES, n, k]."""
    _, places = np.unique(np.asarray(dialogues), return_inverse=True)
    count = int(places.max()) + 1
    sums = np.zeros((count, len(tables), tables.shape[2]))
    np.add.at(sums, places, tables.transpose(1, 0, 2))
    drawn = generator.integers(count, size=(SAMPLES, count)) + count * np.arange(SAMPLES)[:, None]
    times = np.bincount(drawn.ravel(), minlength=SAMPLES * count).reshape(SAMPLES, count).astype(np.float64)
    return np.asarray((times @ sums.reshape(count, -1)).reshape(SAMPLES, len(tables), -1))


def interval(table: Table, dialogues: Sequence[str], score: Score, seed: int) -> tuple[float, float] | None:
    """Bounds of the middle 95 % of the score of one system: table [N, k] and the names of the N pairs' dialogues.

    None of a single dialogue: every draw would be the same, and the score seem certain.
    """
    if len(set(dialogues)) < 2:
        return None
    return _middle(score(drawn_sums(table[None], dialogues, np.random.default_rng(seed))))


def compare(first: Table, second: Table, dialogues: Sequence[str], score: Score) -> Difference:
    """Compare two systems over seeds and dialogues; with one seed, over dialogues.

    Args:
        first: [n, N, k], what is summed over N test pairs of the first system for each of n seeds. Where each seed has
            its own test pairs, N counts those of all seeds; a seed has zeros for pairs that it lacks.
        second: the same of the second system, seed by seed.
        dialogues: N names: which dialogue each pair is from.
        score: the score of sums [..., k].
    """
    generator, seeds = np.random.default_rng(0), len(first)
    means = [score(each.sum(1).astype(np.float64)) for each in (first, second)]
    both = score(drawn_sums(np.concatenate([first, second]), dialogues, generator)).reshape(SAMPLES, 2, seeds).mean(-1)
    draws = (both[:, 0] - both[:, 1])[:, None]
    if seeds > 1:
        error = (means[0] - means[1]).std(ddof=1) / np.sqrt(seeds)
        draws = draws + error * generator.standard_t(seeds - 1, size=(SAMPLES, SEED_DRAWS))
    return Difference(float(means[0].mean()), float(means[1].mean()), *_middle(draws))


def _middle(draws: Table) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
