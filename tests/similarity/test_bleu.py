"""BLEU against hand-worked cases."""

import math

import pytest

from stages.plumbing.errors import StageError
from stages.similarity.bleu import bleu, signature

REFERENCES = ["the cat sat up", "I do not know what you mean .", "Yes , of course !"]
RESPONSES = ["the cat sat down", "I do not know .", "Yes , of course ."]

GOLDEN = [  # responses, references, order, BLEU worked out by hand
    (["the cat sat up"], ["the cat sat up"], 4, 1.0),
    (["the cat sat down"], ["the cat sat up"], 1, 3 / 4),
    (["the cat sat down"], ["the cat sat up"], 2, math.sqrt(3 / 4 * 2 / 3)),
    (["the cat sat down"], ["the cat sat up"], 3, (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3)),
    # no 4-gram matches: "exp" smoothing counts half a match
    (["the cat sat down"], ["the cat sat up"], 4, (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)),
    # a word counts at most as often as it is in the reference
    (["the the the the"], ["the cat"], 1, 1 / 4),
    # shorter than the reference: brevity penalty exp(1 - 4/2)
    (["the cat"], ["the cat sat up"], 1, math.exp(-1)),
    # sums over the corpus, not the mean of sentences: (2 + 0) / (2 + 2)
    (["a b", "c d"], ["a b", "e f"], 1, 1 / 2),
    # case matters, punctuation is a word
    (["Yes."], ["yes ."], 1, 1 / 2),
    (["", "a b"], ["a b", "a b"], 1, math.exp(1 - 4 / 2)),
    ([""], ["a b"], 4, 0.0),
    (["x y z w"], ["a b c d"], 4, 0.0),
]


@pytest.mark.parametrize(("responses", "references", "order", "expected"), GOLDEN)
def test_bleu_is_what_it_is_by_hand(responses: list[str], references: list[str], order: int, expected: float) -> None:
    assert bleu(responses, references, order) == pytest.approx(expected, abs=1e-12)


def test_the_signature_names_all_that_a_score_depends_on() -> None:
    assert signature() == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def test_nothing_and_lists_of_different_lengths_have_no_score() -> None:
    with pytest.raises(StageError, match="no responses"):
        bleu([], [])
    for references in (REFERENCES[:2], [*REFERENCES, "more"]):
        with pytest.raises(StageError, match=f"responses: 3 responses for {len(references)} references"):
            bleu(RESPONSES, references)


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x0c"])
def test_a_line_break_has_no_score(line_break: str) -> None:
    for broken in (f"I do{line_break}not know .", f"I do not know .{line_break}"):
        with pytest.raises(StageError, match="responses:2: a line break in the response"):
            bleu([RESPONSES[0], broken, RESPONSES[2]], REFERENCES)
        with pytest.raises(StageError, match="responses:2: a line break in the reference"):
            bleu(RESPONSES, [REFERENCES[0], broken, REFERENCES[2]])


def test_tokenised_text_is_scored_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    bleu(["Yes , I do ."] * 150, ["Yes , I do ."] * 150)
    assert not caplog.records
