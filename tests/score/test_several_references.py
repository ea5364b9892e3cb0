"""BLEU against several references is sacrebleu's on the same lists; with one it is the single-reference BLEU."""

import random
from itertools import compress, zip_longest
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from stages.bleu import bleu
from stages.bootstrap import sentence_counts
from stages.records import Pair, References
from stages.score.several_references import SeveralReferences, several_references, several_scores
from stages.score.variants import bleu4_interval

WORDS = ["the", "a", "cat", "Cat", "dog", "sat", "ran", "on", "mat", "down", "."]
COUNT = 60
DIALOGUES = [f"d{at // 4:02}" for at in range(COUNT)]


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))


def made_up(seed: int = 0, most: int = 5) -> tuple[list[str], SeveralReferences]:
    """Responses, and references of which every third pair has none and the others up to `most`."""
    chance = random.Random(seed)
    further = [[text(chance) for _ in range(chance.randint(1, most) if at % 3 else 0)] for at in range(COUNT)]
    return [text(chance) for _ in range(COUNT)], SeveralReferences([text(chance) for _ in range(COUNT)], further)


def score(references: SeveralReferences, responses: list[str], chosen: Any = slice(None), own: bool = True) -> Any:
    counted = references.count(responses, with_own=own)
    return several_scores({name: each[chosen] for name, each in counted.items()}, DIALOGUES[chosen], seed=3)


def by_hand(responses: list[str], references: list[list[str]], order: int = 4, lowercase: bool = False) -> float:
    """What sacrebleu itself gives: its streams of references, with None where a pair has fewer."""
    metric = BLEU(max_ngram_order=order, force=True, lowercase=lowercase)
    return round(float(metric.corpus_score(responses, list(zip_longest(*references))).score) / 100, 6)


@pytest.mark.parametrize("seed", range(3))
def test_it_is_sacrebleus_score_of_the_same_lists(seed: int) -> None:
    responses, references = made_up(seed)
    lists = [[own, *more] for own, more in zip(references.own, references.further, strict=True)]
    scores = score(references, responses)
    assert [scores[f"bleu{order}"] for order in (1, 2, 3, 4)] == [by_hand(responses, lists, n) for n in (1, 2, 3, 4)]
    assert scores["bleu4_lower_case"] == by_hand(responses, lists, lowercase=True) != scores["bleu4"]
    asked = list(compress(responses, references.further))
    assert scores["bleu4_further_only"] == by_hand(asked, [each for each in references.further if each])
    assert scores["pairs"] == COUNT


def test_the_own_responses_are_scored_against_the_further_ones_on_the_pairs_that_have_any() -> None:
    _, references = made_up()
    scores = score(references, references.own, own=False)
    own, lists = list(compress(references.own, references.further)), [each for each in references.further if each]
    assert [scores[f"bleu{order}"] for order in (1, 2, 3, 4)] == [by_hand(own, lists, n) for n in (1, 2, 3, 4)]
    assert scores["bleu4_further_only"] == scores["bleu4"] < 1
    assert scores["pairs"] == len(own) == COUNT * 2 // 3
    assert score(references, references.own, slice(0, COUNT, 3), own=False) is None  # pairs without a further one


def test_the_parts_and_the_interval_are_of_the_chosen_pairs() -> None:
    responses, references = made_up()
    some, own, further = responses[::2], references.own[::2], references.further[::2]
    scores = score(references, responses, slice(0, COUNT, 2))
    lists = [[one, *more] for one, more in zip(own, further, strict=True)]
    assert (scores["bleu4"], scores["pairs"]) == (by_hand(some, lists), COUNT // 2)
    assert scores["bleu4_interval"] == bleu4_interval(sentence_counts(some, own, further), DIALOGUES[::2], seed=3)


def test_where_no_pair_has_further_references_it_is_the_bleu_of_one() -> None:
    responses, references = made_up()
    scores = score(references, responses, slice(0, COUNT, 3))
    assert scores["bleu4"] == round(bleu(responses[::3], references.own[::3]), 6)
    assert scores["bleu4_further_only"] is None


def test_a_further_reference_never_lowers_the_matches_and_the_nearest_length_counts() -> None:
    one = sentence_counts(["the dog ran ."], ["a cat sat on the mat ."])
    two = sentence_counts(["the dog ran ."], ["a cat sat on the mat ."], [["the dog sat ."]])
    assert np.concatenate([one, two]).tolist() == [[4, 7, 2, 0, 0, 0, 4, 3, 2, 1], [4, 4, 3, 1, 0, 0, 4, 3, 2, 1]]


def test_references_find_their_pair_by_dialogue_and_position() -> None:
    test = [Pair("a", 0, "q", "r"), Pair("a", 2, "q", "s"), Pair("b", 0, "q", "t")]
    found = several_references(test, [References("b", 0, ["u"]), References("a", 2, ["v", "w"])])
    assert found == SeveralReferences(["r", "s", "t"], [[], ["v", "w"], ["u"]])
    assert several_references(test, []) is several_references(test, [References("c", 0, ["u"])]) is None


def test_how_many_there_are_stands_with_the_signature() -> None:
    facts = SeveralReferences(["r", "s"], [[], ["v", "w"]]).facts()
    signature = "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    assert facts == {"pairs": 1, "further": 2, "signature": signature}
