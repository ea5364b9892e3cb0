"""BLEU of changed texts, and chrF worked out by hand."""

import pytest

from stages.bleu import bleu
from stages.score.variants import VARIANTS, bleu_variants, chrf, chrf_signature, normalised

DAILYDIALOG = "I don \u2019 t think so . It \u2019 s too late ."
USUAL = "I don't think so. It's too late."


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (DAILYDIALOG, USUAL),
        ("I do n't know , he 'll come", "I don't know, he'll come"),
        ("\u201c Yes \u201d , he said .", '"Yes", he said.'),
        ("\u2018 Yes \u2019 , he said .", "'Yes', he said."),
        ("I like it .Then go !", "I like it. Then go!"),
        ("we meet at six o \u2019 clock", "we meet at six o'clock"),
        ("the boys ' dog ' s here", "the boys' dog's here"),
    ],
)
def test_normalised_bleu_is_one_for_the_same_words_in_another_typesetting(text: str, other: str) -> None:
    for one, two in ((text, other), (other, text)):
        assert bleu([normalised(one)], [normalised(two)]) == pytest.approx(1.0)


def test_normalising_changes_neither_case_nor_words() -> None:
    assert normalised("The Boys' dog 's , it is") == "The Boys\" dog's , it is"
    assert bleu([normalised("its late")], [normalised("it's late")], 1) == pytest.approx(0.5)


def test_each_variant_has_a_label_and_all_rows() -> None:
    found = bleu_variants({"test": [USUAL.upper()], "human": [DAILYDIALOG]}, [DAILYDIALOG])
    assert list(found) == list(VARIANTS) == ["lower-case", "normalised"]
    assert [each.pop("label") for each in found.values()] == [
        "nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:2.6.0",
        "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0, apostrophes and quotes normalised",
    ]
    expected = [bleu([USUAL.lower()], [DAILYDIALOG.lower()], order) for order in (1, 2, 3, 4)]
    assert list(found["lower-case"]["test"]) == ["bleu1", "bleu2", "bleu3", "bleu4"]
    assert list(found["lower-case"]["test"].values()) == pytest.approx(expected, abs=1e-6)
    assert found["normalised"]["human"] == dict.fromkeys(["bleu1", "bleu2", "bleu3", "bleu4"], 1.0)


def test_chrf_is_the_f_score_of_the_mean_precision_and_recall_of_characters() -> None:
    # "ab" against "abc", white space left out: 1-grams 2/2 and 2/3, 2-grams 1/1 and 1/2; it has no longer ones
    recall = (2 / 3 + 1 / 2) / 2
    assert chrf(["a b"], ["a bc"]) == pytest.approx(5 * recall / (4 + recall), abs=1e-9)  # recall counts twice
    assert chrf(["the cat", "sat"], ["the cat", "sat"]) == pytest.approx(1.0)
    assert chrf(["xyz"], ["abc"]) == chrf([""], ["abc"]) == 0.0
    assert chrf_signature() == "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0"
