"""BLEU against several references is sacrebleu's on the same lists; with one it is the single-reference BLEU."""

import random
from itertools import compress, zip_longest
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

from stages.bootstrap import sentence_counts
from stages.records import Pair, References
from stages.score.several_references import SeveralReferences, several_references, several_scores
from stages.score.variants import bleu4_interval
from stages.similarity.bleu import bleu

WORDS = ["the", "a", "cat", "Cat", "dog", "sat", "ran", "on", "mat", "down", "."]
COUNT = 60
DIALOGUES = [f"d{at // 4:02}" for at in range(COUNT)]
ORDERS = (1, 2, 3, 4)


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))


def made_up(seed: int) -> tuple[list[str], SeveralReferences]:
    """Responses, and references of which every third pair has none and the others up to five."""
    chance = random.Random(seed)
    further = [[text(chance) for _ in range(chance.randint(1, 5) if at % 3 else 0)] for at in range(COUNT)]
    return [text(chance) for _ in range(COUNT)], SeveralReferences([text(chance) for _ in range(COUNT)], further)


def score(references: SeveralReferences, responses: list[str], step: int = 1, own: bool = True) -> Any:
    """The scores of every `step`th pair."""
    counted = references.count(responses, with_own=own)
    return several_scores({name: each[::step] for name, each in counted.items()}, DIALOGUES[::step], seed=3)


def by_hand(responses: list[str], references: list[list[str]], order: int = 4, lowercase: bool = False) -> float:
    """What sacrebleu itself gives: its streams of references, with None where a pair has fewer."""
    metric = BLEU(max_ngram_order=order, force=True, lowercase=lowercase)
    return round(float(metric.corpus_score(responses, list(zip_longest(*references))).score) / 100, 6)


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (1, 1), (2, 2)])
def test_it_is_sacrebleus_score_of_the_same_lists_for_all_pairs_or_a_part(seed: int, step: int) -> None:
    responses, references = made_up(seed)
    scores = score(references, responses, step)
    some, own, further = responses[::step], references.own[::step], references.further[::step]
    lists = [[one, *more] for one, more in zip(own, further, strict=True)]
    assert [scores[f"bleu{order}"] for order in ORDERS] == [by_hand(some, lists, order) for order in ORDERS]
    assert scores["bleu4_lower_case"] == by_hand(some, lists, lowercase=True) != scores["bleu4"]
    asked = list(compress(some, further))
    assert scores["bleu4_further_only"] == by_hand(asked, [each for each in further if each])
    assert scores["pairs"] == COUNT // step
    assert scores["bleu4_interval"] == bleu4_interval(sentence_counts(some, own, further), DIALOGUES[::step], seed=3)


def test_the_own_responses_are_scored_against_the_further_ones_on_the_pairs_that_have_any() -> None:
    _, references = made_up(0)
    scores = score(references, references.own, own=False)
    own, lists = list(compress(references.own, references.further)), [each for each in references.further if each]
    assert [scores[f"bleu{order}"] for order in ORDERS] == [by_hand(own, lists, order) for order in ORDERS]
    assert scores["bleu4_further_only"] == scores["bleu4"] < 1
    assert scores["pairs"] == len(own) == COUNT * 2 // 3
    assert score(references, references.own, step=3, own=False) is None  # pairs without a further one


def test_where_no_pair_has_further_references_it_is_the_bleu_of_one() -> None:
    responses, references = made_up(0)
    scores = score(references, responses, step=3)
    assert scores["bleu4"] == round(bleu(responses[::3], references.own[::3]), 6)
    assert scores["bleu4_further_only"] is None


def test_references_find_their_pair_by_dialogue_and_position() -> None:
    test = [Pair("a", 0, "q", "r"), Pair("a", 2, "q", "s"), Pair("b", 0, "q", "t")]
    found = several_references(test, [References("b", 0, ["u"]), References("a", 2, ["v", "w"])])
    assert found == SeveralReferences(["r", "s", "t"], [[], ["v", "w"], ["u"]])
    facts = found.facts()
    assert (facts["pairs"], facts["further"]) == (2, 3) and "nrefs:var" in facts["signature"]
    assert several_references(test, []) is several_references(test, [References("c", 0, ["u"])]) is None
