"""BLEU as others compute it, worked out by hand from the definitions of Chen and Cherry (WMT 2014)."""

import math

import pytest

from stages.bleu import bleu
from stages.score.variants import VARIANTS, bleu_variants, lower_cased, sentence_averaged

# Matches of "the cat sat down" in "the cat sat up": 3 of 4 words, 2 of 3 pairs, 1 of 2 triples, 0 of 1; equal lengths.
RESPONSE, REFERENCE = "the cat sat down", "the cat sat up"


def geometric(*precisions: float) -> float:
    return math.prod(precisions) ** (1 / len(precisions))


def test_without_smoothing_a_sentence_without_a_match_of_some_order_counts_nothing() -> None:
    found = sentence_averaged([RESPONSE, "a b c d e", "yes"], [REFERENCE, "a b c d e", "yes"], "method0")
    one = [3 / 4, geometric(3 / 4, 2 / 3), geometric(3 / 4, 2 / 3, 1 / 2), 0.0]
    yes = [1.0, 0.0, 0.0, 0.0]  # a right word, but no pair of words
    assert found == pytest.approx([(a + 1 + b) / 3 for a, b in zip(one, yes, strict=True)], abs=1e-9)


def test_the_brevity_penalty_is_that_of_each_sentence() -> None:
    found = sentence_averaged(["a b", "c d e f"], ["a b c d", "c d"], "method0")
    assert found[0] == pytest.approx((math.exp(1 - 4 / 2) + 2 / 4) / 2, abs=1e-9)


def test_smoothing_method_7_is_method_4_and_then_method_5() -> None:
    # Method 4: no 4-gram of the one matches, so that its precision is 1 / (2 * 5 / ln 4). Method 5: each precision
    # becomes the mean of the smoothed one before it, of itself and of the one behind it; before the first stands the
    # first plus one, and behind the last that of 5-grams, of which there are none.
    p = [3 / 4, 2 / 3, 1 / 2, 1 / (2 * 5 / math.log(4)), 0.0]
    before, smooth = p[0] + 1, []
    for at in range(4):
        before = (before + p[at] + p[at + 1]) / 3
        smooth.append(before)
    expected = [geometric(*smooth[:order]) for order in (1, 2, 3, 4)]
    assert sentence_averaged([RESPONSE], [REFERENCE], "method7") == pytest.approx(expected, abs=1e-9)


def test_the_empty_response_counts_nothing_however_it_is_smoothed() -> None:
    for method in ("method0", "method7"):
        assert sentence_averaged([""], [REFERENCE], method) == [0.0] * 4


def test_lower_cased_bleu_is_that_of_the_lower_cased_texts() -> None:
    responses, references = ["The Cat sat down", "Yes."], ["the cat SAT up", "yes ."]
    lower, lower_references = ([each.lower() for each in texts] for texts in (responses, references))
    expected = [bleu(lower, lower_references, order) for order in (1, 2, 3, 4)]
    assert lower_cased(responses, references) == pytest.approx(expected)
    assert lower_cased([RESPONSE.upper()], [REFERENCE])[1] == pytest.approx(math.sqrt(3 / 4 * 2 / 3))


def test_each_variant_has_a_label_and_all_rows() -> None:
    found = bleu_variants({"test": [RESPONSE], "human": [REFERENCE]}, [REFERENCE])
    assert list(found) == list(VARIANTS) == ["sentence", "sentence-smoothed", "lower-case"]
    labels = [each.pop("label") for each in found.values()]
    assert labels[0].endswith("sentence_bleu, no smoothing, averaged, words between white space")
    assert labels[1].endswith("sentence_bleu, smoothing method 7, averaged, words between white space")
    assert labels[2] == "nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:2.6.0"
    for each in found.values():
        assert list(each) == ["test", "human"]
        assert all(list(scores) == ["bleu1", "bleu2", "bleu3", "bleu4"] for scores in each.values())
    assert found["sentence"]["test"]["bleu1"] == 0.75
