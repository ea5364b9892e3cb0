"""The lookup against scikit-learn's own definition; test_score.py has its scores on DailyDialog."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from datasets import Dataset
from sklearn.feature_extraction.text import TfidfVectorizer

from stages.records import Pair
from stages.similarity import lookup
from stages.similarity.lookup import DIGITS, Lookup, Match
from tests.helpers_scores import pair


def by_definition(train: Sequence[Pair], queries: Sequence[str], count: int) -> list[list[Match]]:
    """The lookup by scikit-learn's TfidfVectorizer and all similarities, in order."""
    pairs = sorted((pair.query, pair.response) for pair in train)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+")
    known = vectorizer.fit_transform([query for query, _ in pairs]).T.tocsr()
    found = []
    for asked in vectorizer.transform(queries):
        row = (asked @ known).toarray()[0].round(DIGITS)
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
    train = [
        pair(*texts) for texts in zip(*(random_texts(chance, 500, vocabulary, longest) for _ in "qr"), strict=True)
    ]
    asked = [*random_texts(chance, 50, [*vocabulary, "never"], longest), "unknown", "", train[7].query]
    known, expected = Dataset.from_list([vars(each) for each in train]), by_definition(train, asked, count)
    for rows, block in ((lookup.ROWS, lookup.BLOCK), (37, 37 * 11)):
        monkeypatch.setattr(lookup, "ROWS", rows)
        monkeypatch.setattr(lookup, "BLOCK", block)
        found = Lookup(known).nearest(asked, count)
        assert [[each[:2] for each in matches] for matches in found] == [[each[:2] for each in own] for own in expected]
        similar = [each.similarity for matches in found for each in matches]
        assert similar == pytest.approx([each.similarity for own in expected for each in own], abs=1e-8)
