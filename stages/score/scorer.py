"""The scores of a list of responses, and of parts of it; where they are written.

`--scores` is one JSON file. On top the paper's six, as fractions like in its tables: bleu1 to bleu4, novelty,
diversity; then

- empty (share of responses without a word: the paper's novelty counts them as novel, so it stands beside it), pairs,
  bleu4_interval (middle 95 % of the bootstrap), mean_words (of a response),
- unseen: the same on the pairs of which neither query nor response stands in the training regime, word for word,
- unlike: the same on the pairs of which neither even resembles one there (rules: stages/score/leakage.py),
- human and retrieval: the same, `unseen` and `unlike` too, for the references themselves and for the response to the
  most similar training query (retrieval.py): what people, and copying, would have scored,
- leakage: shares of the test set that stand in the training regime, exactly and nearly,
- protocol and training_pairs; subset and generation: what those stages noted in their manifests (regime, how many of
  the pairs of the corpus, queries cut, ...);
  signature: with it others can repeat a BLEU of sacrebleu.

A set without pairs has null in place of its scores. `--rows` is a folder of the same six with empty and pairs, a file a
row, for `dvc metrics show`: test.json (all test pairs), unseen.json, human.json and retrieval.json.
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
    """What every row of scores is measured against."""

    references: list[str]
    turns: frozenset[str]
    seed: int
    parts: dict[str, Flags]  # by name, the test pairs of a part of the test set

    def score(self, responses: Sequence[str], counts: Counts) -> Scores | None:
        """The scores of N responses with their `sentence_counts` [N, 10]; None where there is none."""
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
        """The scores of the responses to all test pairs, and below the name of each part to those of that part."""
        counts = sentence_counts(responses, self.references)
        scores = self.score(responses, counts) or {}
        for name, chosen in self.parts.items():
            scores[name] = self.score(list(compress(responses, chosen)), counts[chosen])
        return scores


def check_answers(path: Path, responses: Sequence[Response], test: Sequence[Pair]) -> None:
    """Refuse responses that do not answer the test pairs one by one, in their order.

    Raises:
        StageError: it names the first line that does not.
    """
    remedy = "run `dvc repro`, so that the responses are those to this test set"
    if len(responses) != len(test):
        raise StageError(path, f"{len(responses)} responses for {len(test)} test pairs", remedy)
    for number, (response, pair) in enumerate(zip(responses, test, strict=True), start=1):
        answered = Pair(response.dialogue, response.position, response.query, response.reference)
        if answered != pair:
            found = f"its dialogue, position, query or reference is not that of test pair {number}"
            raise StageError(f"{path}:{number}", found, remedy)
    check_texts([each.response for each in responses], [each.reference for each in responses], path)


def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a stage noted beside its files."""
    return {name: value for name, value in manifest.items() if name != "files"}


def write_rows(folder: Path, scores: Scores) -> None:
    """One small file a row, so that `dvc metrics show` prints a table; a set without pairs has `pairs` alone."""
    rows = {"test": scores, "unseen": scores["unseen"], "human": scores["human"], "retrieval": scores["retrieval"]}
    for name, row in rows.items():
        write_json(folder / f"{name}.json", {key: row[key] for key in ROW} if row else {"pairs": 0})


def score_all(
    train: Sequence[Pair], test: Sequence[Pair], turns: Iterable[str], responses: Sequence[str], seed: int
) -> Scores:
    """Scores of the responses to the test pairs, of people and of the lookup; how much of the test set leaks."""
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
