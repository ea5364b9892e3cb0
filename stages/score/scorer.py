"""Score a list of responses and parts of it, and write the scores.

`--scores` is one JSON file. It begins with the paper's six scores, as fractions like in its tables: bleu1 to bleu4,
novelty, diversity. Then come

- empty, loops, echoes, unended, exact: shares of the responses that went wrong in one of these ways (diagnostics.py;
  unended is null where it is not known),
- loss: of the references, mean over their tokens, in nats; null for people and the lookup, and where it is not known,
- relevance and hits: how well the responses fit their queries (stages/greedy_generate/relevance.py), of some of the
  test pairs, with intervals; not for the lookup and the parts below,
- distinct1, distinct2, ead: the variety of their words (variety.py); chrf (variants.py),
- pairs, bleu4_interval and loss_interval (middle 95 % of the bootstrap over dialogues; null of a single one),
  mean_words (per response),
- matches: the n-grams of orders 1 to 4 that stand in the references; without one of order 4, BLEU-4 is nothing but its
  smoothing, and has no interval,
- several_references: BLEU against the further references too, where the corpus has any (several_references.py),
- unseen: the same for the pairs of which neither query nor response is in the training regime, word for word,
- unlike: the same for the pairs of which neither even resembles one there (rule: stages/overlap.py),
- human, retrieval and shuffled: the same, with `unseen` and `unlike`, for the references themselves, for the response
  to the most similar training query (stages/similarity/lookup.py), and for the references in another order, drawn by
  the seed: what people or copying would score, and a control that should come out last,
- parts: which test pairs are unseen and unlike, as a 1 or 0 for each pair,
- bleu_variants: BLEU of all test pairs in lower case, and with the same typesetting on both sides (variants.py),
- references: how many further references there are, and sacrebleu's signature with them,
- leakage: the shares of the test set that are in the training regime, exactly and nearly,
- protocol and training_pairs; subset and generation: the facts in those stages' manifests (regime, how many pairs of
  the corpus, queries cut, ...); signature, chrf_signature and ead_vocabulary: what others need to repeat the scores.

A set without pairs has null instead of scores. `--rows` is a folder for `dvc metrics show` with one file per row:
test.json has the six scores, relevance, loss (of a model) and pairs; unseen.json, human.json and retrieval.json have
fewer. A BLEU without a matching n-gram of its order is in none of them.
"""

from collections.abc import Iterable, Sequence, Set
from itertools import chain, compress
from pathlib import Path

import numpy as np
from datasets import Dataset

from stages.bootstrap import MATCHES, Table, interval, loss_of_sums, losses_of, sentence_counts
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_json
from stages.records import Fit, Pair, References, Response, records_of, single_line
from stages.score.diagnostics import diagnostics
from stages.score.leakage import exact_leakage, near_leakage
from stages.score.several_references import Scores, several_counts, several_facts, several_references, several_scores
from stages.score.variants import bleu4_interval, bleu_variants, bleus, chrf
from stages.score.variety import DIGITS, distinct, diversity, expectation_adjusted_distinct, novelty
from stages.similarity.bleu import MAX_ORDER
from stages.similarity.lookup import Lookup

SIX = (*(f"bleu{order}" for order in range(1, MAX_ORDER + 1)), "novelty", "diversity")
ROW = (*SIX, "relevance", "loss", "pairs")  # what a terminal has room for
# Of the other rows: `dvc exp show` has a column for each.
BESIDE = ("bleu4", "novelty", "diversity", "relevance", "loss", "pairs")


def row_scores(answers: Sequence[Response], counts: dict[str, Table], turns: Set[str], seed: int) -> Scores | None:
    """The scores of a row, which are answers to N test pairs; None without pairs.

    Args:
        answers: [N].
        counts: `own`: what `sentence_counts` counts of them, [N, 10]; beside it, if there are further references, what
            `several_counts` does.
        turns: of the training turns at least those that are an answer.
        seed: of the intervals.
    """
    if not answers:
        return None
    fields = ("dialogue", "query", "reference", "response", "unended")
    dialogues, queries, references, responses, unended = ([getattr(each, name) for each in answers] for name in fields)
    losses = losses_of(answers)
    values: dict[str, float | None] = {
        **bleus(counts["own"]),
        "novelty": novelty(responses, turns),
        "diversity": diversity(responses),
        **diagnostics(queries, references, responses, unended),
        "distinct1": distinct(responses, 1),
        "distinct2": distinct(responses, 2),
        "ead": expectation_adjusted_distinct(responses),
        "chrf": chrf(responses, references),
        "loss": None if losses is None else float(loss_of_sums(losses.sum(axis=0))),
    }
    ends = None if losses is None else interval(losses, dialogues, loss_of_sums, seed)
    return {
        **{name: None if value is None else round(value, DIGITS) for name, value in values.items()},
        "pairs": len(responses),
        "matches": counts["own"][:, MATCHES].sum(axis=0).tolist(),
        "bleu4_interval": bleu4_interval(counts["own"], dialogues, seed),
        "loss_interval": ends and [round(end, DIGITS) for end in ends],
        "mean_words": round(sum(len(each.split()) for each in responses) / len(responses), DIGITS),
        **({"several_references": several_scores(counts, dialogues, seed)} if "all" in counts else {}),
    }


def fit_scores(fits: Sequence[Fit], row: str, seed: int) -> Scores:
    """Mean relevance and the share of hits of a row's responses, with their intervals; None where it is not known."""
    own, scores = [fit for fit in fits if fit.row == row], Scores()
    for name, field in (("relevance", "relevance"), ("hits", "hit")):
        table = np.array([[getattr(fit, field), 1] for fit in own], dtype=np.float64)  # None is NaN
        known = len(own) > 0 and bool(np.isfinite(table).all())
        differ = known and len(set(table[:, 0])) > 1  # where all are equal, every draw is, and seems certain
        ends = interval(table, [fit.dialogue for fit in own], loss_of_sums, seed) if differ else None
        scores[name] = round(float(table[:, 0].mean()), DIGITS) if known else None
        scores[f"{name}_interval"] = ends and [round(end, DIGITS) for end in ends]
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


def write_rows(folder: Path, scores: Scores) -> None:
    """Write one small file per row, so that `dvc metrics show` prints a table; a set without pairs has only `pairs`.

    A BLEU of whose longest n-grams none matches is left out: it would be the constant of a smoothing rule.
    """
    rows = {"test": scores, "unseen": scores["unseen"], "human": scores["human"], "retrieval": scores["retrieval"]}
    for name, row in rows.items():
        scored = row or {"pairs": 0, "matches": []}
        unknown = {f"bleu{order}" for order, matches in enumerate(scored["matches"], start=1) if not matches}
        keys = [key for key in (ROW if name == "test" else BESIDE) if key not in unknown]
        write_json(folder / f"{name}.json", {key: scored[key] for key in keys if scored.get(key) is not None})


def summary(scores: Scores) -> str:
    """What the stage prints: BLEU-4 of the model on all and on the unseen pairs, and of the lookup."""
    rows = {"the model": scores, "the model on unseen pairs": scores["unseen"], "the lookup": scores["retrieval"]}
    no_match, no_pairs = "- (no matching 4-gram)", "- (no pairs)"
    found = [row and (f"{row['bleu4']:.4f}" if row["matches"][-1] else no_match) for row in rows.values()]
    said = (f"{name} {each or no_pairs}" for name, each in zip(rows, found, strict=True))
    return f"{scores['pairs']} test pairs: BLEU-4 of {', of '.join(said)}"


def score_all(
    train: Dataset,
    test: Sequence[Pair],
    turns: Iterable[str],
    responses: Sequence[Response],
    references: Sequence[References],
    fits: Sequence[Fit],
    seed: int,
) -> Scores:
    """The scores of the responses, of the references and of the lookup, and how much of the test set leaks.

    Training pairs are read several times and turns once, and neither has to be in memory.
    """
    exact, near = exact_leakage(records_of(train, Pair), test), near_leakage(records_of(train, Pair), test)
    several = several_references(test, references)
    own = [pair.response for pair in test]
    order = np.random.default_rng(seed).permutation(len(own))
    rows = {
        "test": [each.response for each in responses],
        "human": own,
        "retrieval": [best.response for (best,) in Lookup(train).nearest([pair.query for pair in test])],
        "shuffled": [own[at] for at in order],
    }
    # Of the turns only those that are an answer: all others are looked at and forgotten.
    known = set(map(single_line, chain(*rows.values()))).intersection(map(single_line, turns))
    parts = {"unseen": exact.unseen, "unlike": near.unseen}

    def scores(name: str) -> Scores:
        said, answers = rows[name], responses
        if name != "test":
            pairs = zip(test, said, strict=True)
            answers = [Response(each.dialogue, each.position, each.query, each.response, text) for each, text in pairs]
        counts = {"own": sentence_counts(said, [[each] for each in own])}
        if several:  # the human responses are the references: here they are left out of these
            counts |= several_counts(said, several, with_own=name != "human")
        found = row_scores(answers, counts, known, seed) or {}
        for part, chosen in parts.items():
            some = {key: each[chosen] for key, each in counts.items()}
            found[part] = row_scores(list(compress(answers, chosen)), some, known, seed)
        return found

    return {
        **scores("test"),
        **fit_scores(fits, "test", seed),
        "human": {**scores("human"), **fit_scores(fits, "human", seed)},
        "retrieval": scores("retrieval"),
        "shuffled": {**scores("shuffled"), **fit_scores(fits, "shuffled", seed)},
        "parts": {name: "".join(map(str, flags.astype(int))) for name, flags in parts.items()},
        "bleu_variants": bleu_variants(rows, own),
        **({"references": several_facts(several)} if several else {}),
        "leakage": {
            kind: {name: round(share, DIGITS) for name, share in each.shares().items()}
            for kind, each in (("exact", exact), ("near", near))
        },
    }
