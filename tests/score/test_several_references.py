"""BLEU against several references is sacrebleu's on the same lists; with one it is the single-reference BLEU."""

import random
from itertools import compress, zip_longest

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from stages.bleu import bleu
from stages.records import Pair, References
from stages.score.bootstrap import bleu_interval, bleu_of_sums, sentence_counts
from stages.score.several_references import SeveralReferences, several_references

WORDS = ["the", "a", "cat", "Cat", "dog", "sat", "ran", "on", "mat", "down", "."]
COUNT = 60
ALL = np.ones(COUNT, dtype=np.bool_)


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))


def made_up(seed: int = 0, most: int = 5) -> tuple[list[str], SeveralReferences]:
    """Responses, and references of which every third pair has none and the others up to `most`."""
    chance = random.Random(seed)
    further = [[text(chance) for _ in range(chance.randint(1, most) if at % 3 else 0)] for at in range(COUNT)]
    return [text(chance) for _ in range(COUNT)], SeveralReferences([text(chance) for _ in range(COUNT)], further)


def by_hand(responses: list[str], references: list[list[str]], order: int = 4, lowercase: bool = False) -> float:
    """What sacrebleu itself gives: its streams of references, with None where a pair has fewer."""
    metric = BLEU(max_ngram_order=order, force=True, lowercase=lowercase)
    return float(metric.corpus_score(responses, list(zip_longest(*references))).score) / 100


@pytest.mark.parametrize("seed", range(5))
def test_it_is_sacrebleus_score_of_the_same_lists(seed: int) -> None:
    responses, references = made_up(seed)
    lists = [[own, *more] for own, more in zip(references.own, references.further, strict=True)]
    scores = references.count(responses).scores(ALL, seed=0)
    assert scores is not None
    for order in (1, 2, 3, 4):
        assert scores[f"bleu{order}"] == round(by_hand(responses, lists, order), 6)
    assert scores["bleu4_lower_case"] == round(by_hand(responses, lists, lowercase=True), 6) != scores["bleu4"]
    asked = list(compress(responses, references.further))
    further_only = by_hand(asked, [each for each in references.further if each])
    assert scores["bleu4_further_only"] == round(further_only, 6)
    assert scores["pairs"] == COUNT


def test_the_own_responses_are_scored_against_the_further_ones_on_the_pairs_that_have_any() -> None:
    _, references = made_up()
    scores = references.count_own().scores(ALL, seed=0)
    assert scores is not None
    own = list(compress(references.own, references.further))
    lists = [each for each in references.further if each]
    for order in (1, 2, 3, 4):
        assert scores[f"bleu{order}"] == round(by_hand(own, lists, order), 6)
    assert scores["bleu4_further_only"] == scores["bleu4"] < 1
    assert scores["pairs"] == len(own) == COUNT * 2 // 3


def test_the_parts_and_the_interval_are_of_the_chosen_pairs() -> None:
    responses, references = made_up()
    chosen = np.array([at % 2 == 0 for at in range(COUNT)], dtype=np.bool_)
    some, own_ones = (list(compress(each, chosen)) for each in (responses, references.own))
    further = list(compress(references.further, chosen))
    lists = [[own, *more] for own, more in zip(own_ones, further, strict=True)]
    scores = references.count(responses).scores(chosen, seed=3)
    assert scores is not None
    assert (scores["bleu4"], scores["pairs"]) == (round(by_hand(some, lists), 6), COUNT // 2)
    interval = bleu_interval(sentence_counts(some, own_ones, further), seed=3)
    assert scores["bleu4_interval"] == [round(bound, 6) for bound in interval]
    own = references.count_own().scores(chosen, seed=3)
    assert own is not None
    assert own["pairs"] == COUNT // 3
    none = np.array([at % 3 == 0 for at in range(COUNT)], dtype=np.bool_)  # pairs without a further reference
    assert references.count_own().scores(none, seed=3) is None
    alone = references.count(responses).scores(none, seed=3)
    assert alone is not None
    assert alone["bleu4_further_only"] is None


def test_with_one_reference_it_is_todays_score() -> None:
    responses, references = made_up()
    counts = sentence_counts(responses, references.own)
    assert np.array_equal(counts, sentence_counts(responses, references.own, [[] for _ in responses]))
    alone = np.array([not more for more in references.further], dtype=np.bool_)
    scores = references.count(responses).scores(alone, seed=0)
    assert scores is not None
    some = list(compress(responses, alone)), list(compress(references.own, alone))
    assert scores["bleu4"] == round(bleu(*some), 6)
    assert bleu_of_sums(counts.sum(axis=0).tolist()) == pytest.approx(bleu(responses, references.own), abs=1e-12)


def test_a_further_reference_never_lowers_the_matches_and_the_nearest_length_counts() -> None:
    one = sentence_counts(["the dog ran ."], ["a cat sat on the mat ."])[0]
    two = sentence_counts(["the dog ran ."], ["a cat sat on the mat ."], [["the dog sat ."]])[0]
    assert one.tolist() == [4, 7, 2, 0, 0, 0, 4, 3, 2, 1]
    assert two.tolist() == [4, 4, 3, 1, 0, 0, 4, 3, 2, 1]


def test_references_find_their_pair_by_dialogue_and_position() -> None:
    test = [Pair("a", 0, "q", "r"), Pair("a", 2, "q", "s"), Pair("b", 0, "q", "t")]
    found = several_references(test, [References("b", 0, ["u"]), References("a", 2, ["v", "w"])])
    assert found == SeveralReferences(["r", "s", "t"], [[], ["v", "w"], ["u"]])
    assert several_references(test, []) is None
    assert several_references(test, [References("c", 0, ["u"])]) is None


def test_how_many_there_are_stands_with_the_signature() -> None:
    facts = SeveralReferences(["r", "s"], [[], ["v", "w"]]).facts()
    assert facts == {
        "pairs": 1,
        "further": 2,
        "signature": "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
    }
    assert SeveralReferences(["r", "s"], [["a"], ["v"]]).facts()["signature"].startswith("nrefs:2|")
