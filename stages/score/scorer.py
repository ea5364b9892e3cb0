"""Score a list of responses and parts of it, and write the scores.

`--scores` is one JSON file. It begins with the paper's six scores, as fractions like in its tables: bleu1 to bleu4,
novelty, diversity. Then come

- empty (share of responses without a word; the paper's novelty counts them as novel), pairs, bleu4_interval (middle
  95 % of the bootstrap), mean_words (per response),
- unseen: the same for the pairs of which neither query nor response is in the training regime, word for word,
- unlike: the same for the pairs of which neither even resembles one there (rule: stages/overlap.py),
- human and retrieval: the same, with `unseen` and `unlike`, for the references themselves and for the response to the
  most similar training query (retrieval.py): what people, or copying, would score,
- leakage: the shares of the test set that are in the training regime, exactly and nearly,
- protocol and training_pairs; subset and generation: the facts in those stages' manifests (regime, how many pairs of
  the corpus, queries cut, ...); signature: what others need to repeat sacrebleu's BLEU.

A set without pairs has null instead of scores. `--rows` is a folder for `dvc metrics show` with one file per row, each
with the six scores, empty and pairs: test.json (all test pairs), unseen.json, human.json and retrieval.json.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

from stages.bleu import MAX_ORDER, check_texts
from stages.overlap import Flags
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_json
from stages.records import Pair, Response
from stages.score.bootstrap import Counts, bleu_interval, bleu_of_sums, sentence_counts
from stages.score.leakage import exact_leakage, near_leakage
from stages.score.retrieval import look_up
from stages.score.variety import DIGITS, diversity, empty, novelty

SIX = (*(f"bleu{order}" for order in range(1, MAX_ORDER + 1)), "novelty", "diversity")
ROW = (*SIX, "empty", "pairs")

Scores = dict[str, Any]


@dataclass(frozen=True)
class Scorer:
    """Scores rows of responses, all against the same references and training turns."""

    references: list[str]
    turns: frozenset[str]
    seed: int
    parts: dict[str, Flags]  # name of a part of the test set -> its pairs

    def score(self, responses: Sequence[str], counts: Counts) -> Scores | None:
        """The scores of N responses with their `sentence_counts` [N, 10]; None if N is 0."""
        if not responses:
            return None
        sums = counts.sum(axis=0).tolist()
        values = [bleu_of_sums(sums, order) for order in range(1, MAX_ORDER + 1)]
        values += [novelty(responses, self.turns), diversity(responses)]
        low, high = bleu_interval(counts, self.seed)
        return {
            **{name: round(value, DIGITS) for name, value in zip(SIX, values, strict=True)},
            "empty": round(empty(responses), DIGITS),
            "pairs": len(responses),
            "bleu4_interval": [round(low, DIGITS), round(high, DIGITS)],
            "mean_words": round(sum(len(response.split()) for response in responses) / len(responses), DIGITS),
        }

    def row(self, responses: Sequence[str]) -> Scores:
        """The scores of the responses to all test pairs; the scores of each part are under its name."""
        counts = sentence_counts(responses, self.references)
        scores = self.score(responses, counts) or {}
        for name, chosen in self.parts.items():
            scores[name] = self.score(list(compress(responses, chosen)), counts[chosen])
        return scores


def check_answers(path: Path, responses: Sequence[Response], test: Sequence[Pair]) -> None:
    """Refuse responses unless there is one for each test pair, in the same order.

    Raises:
        StageError: there is not; the message names the first wrong line.
    """
    remedy = "run `dvc repro`, so that the responses are to this test set"
    if len(responses) != len(test):
        raise StageError(path, f"{len(responses)} responses for {len(test)} test pairs", remedy)
    for number, (response, pair) in enumerate(zip(responses, test, strict=True), start=1):
        answered = Pair(response.dialogue, response.position, response.query, response.reference)
        if answered != pair:
            found = f"its dialogue, position, query or reference differs from test pair {number}"
            raise StageError(f"{path}:{number}", found, remedy)
    check_texts([each.response for each in responses], [each.reference for each in responses], path)


def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """The facts that a stage put into its manifest."""
    return {name: value for name, value in manifest.items() if name != "files"}


def write_rows(folder: Path, scores: Scores) -> None:
    """Write one small file per row, so that `dvc metrics show` prints a table; a set without pairs has only `pairs`."""
    rows = {"test": scores, "unseen": scores["unseen"], "human": scores["human"], "retrieval": scores["retrieval"]}
    for name, row in rows.items():
        write_json(folder / f"{name}.json", {key: row[key] for key in ROW} if row else {"pairs": 0})


def score_all(
    train: Sequence[Pair], test: Sequence[Pair], turns: Iterable[str], responses: Sequence[str], seed: int
) -> Scores:
    """The scores of the responses, of the references and of the lookup, and how much of the test set leaks."""
    exact, near = exact_leakage(train, test), near_leakage(train, test)
    references = [pair.response for pair in test]
    scorer = Scorer(references, frozenset(turns), seed, {"unseen": exact.unseen, "unlike": near.unseen})
    shares = {"exact": exact.shares(), "near": near.shares()}
    return {
        **scorer.row(responses),
        "human": scorer.row(references),
        "retrieval": scorer.row(look_up(train, [pair.query for pair in test])),
        "leakage": {
            kind: {name: round(share, DIGITS) for name, share in each.items()} for kind, each in shares.items()
        },
    }
