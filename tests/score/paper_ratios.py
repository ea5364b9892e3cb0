"""Which BLEU fits the paper's numbers: `python -m tests.score.paper_ratios`, with DailyDialog in ../shared/dailydialog.

The paper names no implementation. Its 36 rows say how BLEU-2, BLEU-3 and BLEU-4 fall when BLEU-1 has some height, and
that differs by the implementation: a mean over sentences without smoothing counts short and half-right responses as
nothing from BLEU-2 on, smoothing lifts them. So each variant scores two families of responses to DailyDialog's test
pairs whose quality rises from poor to good:

- retrieval: the lookup of stages/score/retrieval.py with the paper's six regimes of the training dialogues;
- human-like: a share of the references themselves (0 to 30 %), and for all other pairs the response of another pair.

Between two neighbours of a family the logarithms of the scores are interpolated at the BLEU-1 of each of the paper's
rows. The distance is the root mean square, over rows and orders 2 to 4, of the difference between the logarithms of
BLEU-n / BLEU-1 of the paper and of the family: 0.1 is a factor of 1.1 between the ratios.
"""

import random
from collections.abc import Sequence

import numpy as np

from stages.bleu import MAX_ORDER
from stages.grid.configurations import REGIMES
from stages.overlap import Flags
from stages.report.settings import paper_scores
from stages.score.bootstrap import bleu_of_sums, sentence_counts
from stages.score.retrieval import look_up
from stages.score.variants import VARIANTS
from stages.subset.regime import choose_dialogues
from tests.helpers_scores import dailydialog

SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3)
Table = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def retrieval() -> list[list[str]]:
    """The lookup's responses in each of the paper's regimes."""
    train, queries = dailydialog("train")[1], [pair.query for pair in dailydialog("test")[1]]
    names = {pair.dialogue for pair in train}
    chosen = [{*choose_dialogues(names, None, regime, seed=0)[0]} for regime in REGIMES]
    return [look_up([pair for pair in train if pair.dialogue in each], queries) for each in chosen]


def human_like(references: Sequence[str]) -> list[list[str]]:
    """A share of the references, and else the response of another pair."""
    chance = random.Random(0)
    others = chance.sample(list(references), len(references))
    lots = [chance.random() for _ in references]
    return [
        [own if lot < share else other for own, other, lot in zip(references, others, lots, strict=True)]
        for share in SHARES
    ]


def corpus_bleu(responses: Sequence[str], references: Sequence[str]) -> list[float]:
    """BLEU-1 to BLEU-4 as this project's scores have it."""
    sums = sentence_counts(responses, references).sum(axis=0).tolist()
    return [bleu_of_sums(sums, order) for order in range(1, MAX_ORDER + 1)]


def covered(paper: Table, family: Table) -> Flags:
    """Which of the paper's rows [36, 4] have a BLEU-1 within that of a family's scores [rising quality, 4]."""
    return np.asarray((paper[:, 0] >= family[0, 0]) & (paper[:, 0] <= family[-1, 0]), dtype=np.bool_)


def distance(paper: Table, family: Table) -> float:
    """How far the paper's rows [N, 4] are from a family's scores [rising quality, 4]."""
    ours, theirs = np.log(np.maximum(family, 1e-9)), np.log(paper)
    wanted = [np.interp(theirs[:, 0], ours[:, 0], ours[:, order]) for order in range(1, MAX_ORDER)]
    return float(np.sqrt(np.mean(np.square(theirs[:, 1:] - np.array(wanted).T))))


def main() -> None:
    """Print for each family the paper's rows that it covers with every variant that covers any, and the distances."""
    references = [pair.response for pair in dailydialog("test")[1]]
    paper = np.array([[scores[f"bleu{order}"] for order in range(1, 5)] for scores in paper_scores().values()])
    for family, lists in {"retrieval": retrieval(), "human-like": human_like(references)}.items():
        scores = {
            name: np.array([compute(responses, references) for responses in lists])
            for name, compute in {"corpus, this project's": corpus_bleu, **VARIANTS}.items()
        }
        some = [rows for each in scores.values() if (rows := covered(paper, each)).any()]
        common = np.logical_and.reduce(some)
        print(f"{family}: {common.sum()} of the paper's {len(paper)} rows")
        for name, each in scores.items():
            found = f"{distance(paper[common], each):.3f}" if covered(paper, each).any() else "none of these rows"
            print(f"  {name:22} BLEU-1 {each[0, 0]:.3f} to {each[-1, 0]:.3f}, distance {found}", flush=True)


if __name__ == "__main__":
    main()
