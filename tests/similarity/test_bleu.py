"""BLEU against hand-worked cases."""

import math

import pytest

from stages.plumbing.errors import StageError
from stages.similarity.bleu import bleu, signature

REFERENCES = ["the cat sat up", "I do not know what you mean .", "Yes , of course !"]
RESPONSES = ["the cat sat down", "I do not know .", "Yes , of course ."]

GOLDEN = [  # responses, references, order, BLEU worked out by hand
    (["the cat sat up"], ["the cat sat up"], 4, 1.0),
    (["the cat sat down"], ["the cat sat up"], 2, math.sqrt(3 / 4 * 2 / 3)),
    # no 4-gram matches: "exp" smoothing counts half a match
    (["the cat sat down"], ["the cat sat up"], 4, (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
    # sums over the corpus, not the mean of sentences: (2 + 0) / (2 + 2)
    (["a b", "c d"], ["a b", "e f"], 1, 1 / 2),
    # case matters, punctuation is a word
    (["Yes."], ["yes ."], 1, 1 / 2),
    (["", "a b"], ["a b", "a b"], 1, math.exp(1 - 4 / 2)),  # the brevity penalty
    ([""], ["a b"], 4, 0.0),
]


@pytest.mark.parametrize(("responses", "references", "order", "expected"), GOLDEN)
def test_bleu_is_what_it_is_by_hand(responses: list[str], references: list[str], order: int, expected: float) -> None:
    assert bleu(responses, references, order) == pytest.approx(expected, abs=1e-12)


def test_the_signature_names_all_that_a_score_depends_on() -> None:
    assert signature() == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def test_nothing_and_lists_of_different_lengths_have_no_score() -> None:
    with pytest.raises(StageError, match="no responses"):
        bleu([], [])
    with pytest.raises(StageError, match="responses: 3 responses for 2 references"):
        bleu(RESPONSES, REFERENCES[:2])


@pytest.mark.parametrize("broken", ["I do\nnot know .", "I do not know .\u2028"])
def test_a_line_break_has_no_score(broken: str) -> None:
    with pytest.raises(StageError, match="responses:2: a line break in the response"):
        bleu([RESPONSES[0], broken, RESPONSES[2]], REFERENCES)
    with pytest.raises(StageError, match="responses:2: a line break in the reference"):
        bleu(RESPONSES, [REFERENCES[0], broken, REFERENCES[2]])


def test_tokenised_text_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    bleu(["Yes , I do ."] * 150, ["Yes , I do ."] * 150)
    assert not caplog.records
