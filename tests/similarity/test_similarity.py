"""BLEU against hand-worked cases, the lookup against scikit-learn's own definition."""

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair
from stages.similarity import lookup
from stages.similarity.bleu import bleu, signature
from stages.similarity.lookup import Lookup, Match
from tests.helpers_scores import pair

GOLDEN = [  # responses, references, order, BLEU worked out by hand
    (["the cat sat up"], ["the cat sat up"], 4, 1.0),
    (["the cat sat down"], ["the cat sat up"], 2, math.sqrt(3 / 4 * 2 / 3)),
    # no 4-gram matches: "exp" smoothing counts half a match
    (["the cat sat down"], ["the cat sat up"], 4, (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
    (["a b", "c d"], ["a b", "e f"], 1, 1 / 2),  # sums over the corpus, not the mean of sentences: (2 + 0) / (2 + 2)
    (["Yes."], ["yes ."], 1, 1 / 2),  # case matters, punctuation is a word
    (["", "a b"], ["a b", "a b"], 1, math.exp(1 - 4 / 2)),  # the brevity penalty
    ([""], ["a b"], 4, 0.0),
]


@pytest.mark.parametrize(("responses", "references", "order", "expected"), GOLDEN)
def test_bleu_is_what_it_is_by_hand(responses: list[str], references: list[str], order: int, expected: float) -> None:
    assert bleu(responses, references, order) == pytest.approx(expected, abs=1e-12)


def test_the_signature_names_all_that_a_score_depends_on() -> None:
    assert signature() == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def test_tokenised_text_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    bleu(["Yes , I do ."] * 150, ["Yes , I do ."] * 150)
    assert not caplog.records


def by_definition(train: Sequence[Pair], queries: Sequence[str], count: int) -> list[list[Match]]:
    """The lookup by scikit-learn's TfidfVectorizer and all similarities, in order."""
    pairs = sorted((pair.query, pair.response) for pair in train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    known = vectorizer.fit_transform([query for query, _ in pairs]).T.tocsr()
    found = []
    for asked in vectorizer.transform(queries):
        row = (asked @ known).toarray()[0].round(9)
        best = np.lexsort((np.arange(len(row)), -row))[:count]
        found.append([Match(pairs[at][0], pairs[at][1], row[at]) for at in best.tolist()])
    return found


def random_texts(chance: random.Random, count: int, vocabulary: Sequence[str], longest: int) -> list[str]:
    weights = [1 / (1 + rank) for rank in range(len(vocabulary))]
    return [" ".join(chance.choices(vocabulary, weights, k=chance.randint(1, longest))) for _ in range(count)]


@pytest.mark.parametrize("count", [1, 4, 600])
@pytest.mark.parametrize(("words", "longest", "seed"), [(4, 4, 0), (60, 20, 2), (400, 40, 3)])
def test_the_best_pairs_are_those_of_the_definition_in_blocks_of_any_size(
    words: int, longest: int, seed: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few words make many ties."""
    chance = random.Random(seed)
    vocabulary = [f"{'wW'[rank % 2]}{rank}" for rank in range(words)] + ["?", "\u00e9", "\u0130"]
    train = list(map(pair, *(random_texts(chance, 500, vocabulary, longest) for _ in "qr")))
    asked = [*random_texts(chance, 50, [*vocabulary, "never"], longest), "unknown", "", train[7].query]
    known, expected = Dataset.from_list([vars(each) for each in train]), by_definition(train, asked, count)
    for rows, block in ((lookup.ROWS, lookup.BLOCK), (37, 37 * 11)):
        monkeypatch.setattr(lookup, "ROWS", rows)
        monkeypatch.setattr(lookup, "BLOCK", block)
        found = Lookup(known).nearest(asked, count)
        assert [[each[:2] for each in matches] for matches in found] == [[each[:2] for each in own] for own in expected]
        similar = [each.similarity for matches in found for each in matches]
        assert similar == pytest.approx([each.similarity for own in expected for each in own], abs=1e-8)
