"""What is measured of responses, on cases worked out by hand; BLEU against several references by sacrebleu."""

import random
from itertools import compress, zip_longest
from typing import Any

import pytest
from sacrebleu.metrics.bleu import BLEU

from stages.bootstrap import sentence_counts
from stages.records import Pair, References
from stages.score.diagnostics import is_echo, is_loop
from stages.score.several_references import several_counts, several_facts, several_references, several_scores
from stages.score.variants import bleu4_interval, bleu_variants, chrf, normalised
from stages.score.variety import distinct, diversity, expectation_adjusted_distinct, ngrams, novelty
from stages.similarity.bleu import bleu

LOOPS = {
    "Well , I'm sorry . I'm sorry . I'm so": True,  # the last one cut inside a word
    "I'm sorry . I'm sorry . I'm sorry . Why ?": False,  # not up to the end
    "one two three four one two three four": True,  # an n-gram of 4, twice
    "one two three four one two three": False,  # once and a cut second
    "one two three one two three": False,  # of 3, twice
    "I am . . . . . .": True,  # one mark, six times
    "Well ...": False,  # fewer than six marks
    "A B c d a b C D": True,  # case is overlooked
    "No , no , no !": False,  # the end is another mark
    "": False,
}
ECHOES = {
    ("That's a good point.", "that 's a good point !"): True,
    ("Is it far ?", "It is far ."): False,  # the same few words in another order
    ("I work for a bank in the old town now .", "I work for a bank in the old station ."): True,  # 7 of 8 words
    ("I work for a bank in the town .", "I work for my sister in the city today ."): False,  # 5 of 8 words
    ("Well . Have you ever been to the lake with us ?", "Have you ever been to the lake ?"): True,  # copied in part
    ("", ""): False,
    ("...", "?!"): False,  # a text without words is a word of its own
}


@pytest.mark.parametrize(("response", "expected"), LOOPS.items())
def test_a_response_that_ends_in_an_n_gram_repeated_often_enough_loops(response: str, expected: bool) -> None:
    assert is_loop(response) == expected


@pytest.mark.parametrize(("pair", "expected"), ECHOES.items())
def test_what_repeats_its_query_or_a_long_part_of_it_is_an_echo(pair: tuple[str, str], expected: bool) -> None:
    assert is_echo(*pair) == expected


def test_novelty_and_diversity_are_shares_of_whole_responses_whatever_the_white_space() -> None:
    turns = ["How are you ?", "Fine ,\tthanks .", "And you ?"]
    assert novelty([" Fine ,  thanks .", "fine , thanks .", "Fine, thanks.", "And you ?", ""], turns) == 3 / 5
    assert diversity(["a b", "a  b", "A b", "c"]) == 3 / 4


def test_distinct_n_is_of_the_n_grams_of_all_responses_together() -> None:
    responses = ["the cat sat .", "the cat ran .", "", "the"]
    assert distinct(responses, 1) == pytest.approx(5 / 9)  # the cat sat . ran
    assert distinct(responses, 2) == pytest.approx(5 / 6)  # "the cat" is there twice; "the" has none
    assert distinct(["", "a"], 2) == 0.0
    assert ngrams(["Fine, thanks.", "fine"], 2) == [("Fine", ","), (",", "thanks"), ("thanks", ".")]  # BLEU's words


def test_ead_is_the_number_of_words_over_that_of_even_draws() -> None:
    # two different words of three; of three draws from four words (3/4)^3 of them are expected to be missed
    assert expectation_adjusted_distinct(["a b", "a"], vocabulary=4) == pytest.approx(2 / (4 * (1 - 27 / 64)))
    assert expectation_adjusted_distinct([""]) == 0.0


DAILYDIALOG = "I don \u2019 t think so . It \u2019 s too late ."
USUAL = "I don't think so. It's too late."


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (DAILYDIALOG, USUAL),
        ("I do n't know , he 'll come", "I don't know, he'll come"),
        ("\u2018 Yes \u2019 , he said .", "'Yes', he said."),
        ("the boys ' dog ' s here", "the boys' dog's here"),
    ],
)
def test_normalised_bleu_is_one_for_the_same_words_in_another_typesetting(text: str, other: str) -> None:
    for one, two in ((text, other), (other, text)):
        assert bleu([normalised(one)], [normalised(two)]) == pytest.approx(1.0)
    assert normalised("The Boys' dog 's , it is") == "The Boys\" dog's , it is"
    assert bleu([normalised("its late")], [normalised("it's late")], 1) == pytest.approx(0.5)


def test_each_variant_changes_responses_and_references_and_has_its_own_signature() -> None:
    lower, plain = bleu_variants({"test": [USUAL.upper()], "human": [DAILYDIALOG]}, [DAILYDIALOG]).values()
    expected = [bleu([USUAL.lower()], [DAILYDIALOG.lower()], order) for order in (1, 2, 3, 4)]
    assert [lower["test"][f"bleu{order}"] for order in (1, 2, 3, 4)] == pytest.approx(expected, abs=1e-6)
    assert lower["human"]["bleu4"] == plain["human"]["bleu4"] == 1.0 > plain["test"]["bleu4"]
    assert "case:lc" in lower["label"] and "case:mixed" in plain["label"]


def test_chrf_is_the_f_score_of_the_mean_precision_and_recall_of_characters() -> None:
    # "ab" against "abc", white space left out: 1-grams 2/2 and 2/3, 2-grams 1/1 and 1/2; it has no longer ones
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf(["a b"], ["a bc"]) == pytest.approx(5 * recall / (4 + recall), abs=1e-9)  # recall counts twice


WORDS = ["the", "a", "cat", "Cat", "dog", "sat", "ran", "on", "mat", "down", "."]
COUNT = 60
DIALOGUES = [f"d{at // 4:02}" for at in range(COUNT)]
ORDERS = (1, 2, 3, 4)


def text(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=chance.randint(1, 12)))


def made_up(seed: int) -> tuple[list[str], list[list[str]]]:
    """Responses, and references: every third pair has only its own, the others up to five further ones."""
    chance = random.Random(seed)
    counts = [1 + (chance.randint(1, 5) if at % 3 else 0) for at in range(COUNT)]
    return [text(chance) for _ in range(COUNT)], [[text(chance) for _ in range(count)] for count in counts]


def score(references: list[list[str]], responses: list[str], step: int = 1, own: bool = True) -> Any:
    """The scores of every `step`th pair."""
    counted = several_counts(responses, references, with_own=own)
    return several_scores({name: each[::step] for name, each in counted.items()}, DIALOGUES[::step], seed=3)


def by_hand(responses: list[str], references: list[list[str]], order: int = 4, lowercase: bool = False) -> float:
    """What sacrebleu itself gives: its streams of references, with None where a pair has fewer."""
    metric = BLEU(max_ngram_order=order, force=True, lowercase=lowercase)
    return round(float(metric.corpus_score(responses, list(zip_longest(*references))).score) / 100, 6)


@pytest.mark.parametrize(("seed", "step"), [(0, 1), (1, 1), (2, 2)])
def test_it_is_sacrebleus_score_of_the_same_lists_for_all_pairs_or_a_part(seed: int, step: int) -> None:
    responses, references = made_up(seed)
    scores = score(references, responses, step)
    some, lists = responses[::step], references[::step]
    further = [each[1:] for each in lists]
    assert [scores[f"bleu{order}"] for order in ORDERS] == [by_hand(some, lists, order) for order in ORDERS]
    assert scores["bleu4_lower_case"] == by_hand(some, lists, lowercase=True) != scores["bleu4"]
    assert scores["bleu4_further_only"] == by_hand([*compress(some, further)], [*filter(None, further)])
    assert scores["pairs"] == COUNT // step
    assert scores["bleu4_interval"] == bleu4_interval(sentence_counts(some, lists), DIALOGUES[::step], seed=3)


def test_the_own_responses_are_scored_against_the_further_ones_on_the_pairs_that_have_any() -> None:
    _, references = made_up(0)
    responses = [each[0] for each in references]
    scores = score(references, responses, own=False)
    own, lists = map(list, zip(*((each[0], each[1:]) for each in references if each[1:]), strict=True))
    assert [scores[f"bleu{order}"] for order in ORDERS] == [by_hand(own, lists, order) for order in ORDERS]
    assert scores["bleu4_further_only"] == scores["bleu4"] < 1
    assert scores["pairs"] == len(own) == COUNT * 2 // 3
    assert score(references, responses, step=3, own=False) is None  # pairs without a further one


def test_where_no_pair_has_further_references_it_is_the_bleu_of_one() -> None:
    responses, references = made_up(0)
    scores = score(references, responses, step=3)
    assert scores["bleu4"] == round(bleu(responses[::3], [each[0] for each in references[::3]]), 6)
    assert scores["bleu4_further_only"] is None


def test_references_find_their_pair_by_dialogue_and_position() -> None:
    test = [Pair("a", 0, "q", "r"), Pair("a", 2, "q", "s"), Pair("b", 0, "q", "t")]
    found = several_references(test, [References("b", 0, ["u"]), References("a", 2, ["v", "w"])])
    assert found == [["r"], ["s", "v", "w"], ["t", "u"]]
    facts = several_facts(found)
    assert (facts["pairs"], facts["further"]) == (2, 3) and "nrefs:var" in facts["signature"]
    assert several_references(test, []) is several_references(test, [References("c", 0, ["u"])]) is None
