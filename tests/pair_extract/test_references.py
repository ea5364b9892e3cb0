"""Further references: found by query, by dialogue and position, and in the form of a file of whole dialogues."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.corpora import content_id
from stages.pair_extract.pairs import each_pair
from stages.pair_extract.references import NAMED, letters, match_references, summary
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, References

TURNS = [
    ["Where ' s the bank ?", "Over there .", "Thank you .", "You ' re welcome ."],
    ["I can't find my dog .", "What is it called ?", "Rex .", "Rex !"],
    ["Thank you .", "Not at all ."],
]
DIALOGUES = [Dialogue(content_id(turns), turns) for turns in TURNS]
STRIDE_1, STRIDE_2 = (Pairs(stride=stride, history=1, joined_by=" ") for stride in (1, 2))
PAIRS = list(each_pair(DIALOGUES, STRIDE_2, {}))  # 2 + 2 + 1


def read(
    folder: Path, lines: list[Any], dialogues: list[Dialogue] = DIALOGUES, pairs: list[Pair] = PAIRS
) -> tuple[dict[tuple[str, int], list[str]], dict[str, Any]]:
    """What is found: (the response of the pair, position) -> references; and the report."""
    path = folder / "references.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    records, report = match_references(path, dialogues, pairs)
    own = {(pair.dialogue, pair.position): pair.response for pair in pairs}
    return {(own[each.dialogue, each.position], each.position): each.references for each in records}, report


def test_a_query_names_every_pair_that_has_it(tmp_path: Path) -> None:
    found, report = read(tmp_path, [{"query": "Thank you .", "references": ["My pleasure .", "Any time ."]}])
    assert found == {
        ("You ' re welcome .", 2): ["Any time .", "My pleasure ."],
        ("Not at all .", 0): ["Any time .", "My pleasure ."],
    }
    assert (report["lines"], report["pairs"], report["references"]) == (1, 2, 4)


@pytest.mark.parametrize("dialogue", [TURNS[0], DIALOGUES[0].dialogue, [turn.upper() for turn in TURNS[0]]])
def test_a_dialogue_is_named_by_its_turns_or_by_its_id(dialogue: object, tmp_path: Path) -> None:
    found, _ = read(tmp_path, [{"dialogue": dialogue, "position": 2, "references": ["My pleasure ."]}])
    assert found == {("You ' re welcome .", 2): ["My pleasure ."]}


def test_a_file_of_whole_dialogues_is_read_as_it_comes(tmp_path: Path) -> None:
    # Lower case, other apostrophes, the dialogue's own next turn as the first response, more keys than are needed.
    texts = ["I ca n\u2019t find my dog .", "What is it called ?", "Rex .", "Rex !"]
    given = [["what is it called ?", "oh no !"], ["rex ."], ["rex !", "rex ?", "nice ."], None]
    utterances = [
        {"text": text, "act": "inform"} | ({"responses": each} if each else {})
        for text, each in zip(texts, given, strict=True)
    ]
    found, report = read(tmp_path, [{"fold": "test", "index": 1, "dialogue": utterances}])
    assert found == {("What is it called ?", 0): ["oh no !"], ("Rex !", 2): ["nice ."]}
    assert report["duplicate"]["references"] == 3  # what differs in punctuation alone is the same
    assert report["duplicate"]["first"][0] == "line 1, turn 0: what is it called ?"
    assert report["no_pair_at_position"] == {"references": 1, "first": ["line 1, turn 1"]}


def test_with_stride_1_the_turns_between_have_references_too(tmp_path: Path) -> None:
    line = {"dialogue": [{"text": turn, "responses": [f"to {turn}"]} for turn in TURNS[1]]}
    found, report = read(tmp_path, [line], pairs=list(each_pair(DIALOGUES, STRIDE_1, {})))
    assert [position for _, position in found] == [0, 1, 2]
    assert report["no_pair_at_position"]["references"] == 1  # nobody answered the last turn


def test_what_belongs_to_no_test_pair_and_what_is_empty_is_counted_and_named(tmp_path: Path) -> None:
    lines = [
        {"query": "Thank you .", "references": ["Any time .", " ", "\u2028"]},
        {"query": "Who ?", "references": ["Me .", "You ."]},
        {"dialogue": "0123456789abcdef", "position": 0, "references": ["Me ."]},
        {"dialogue": TURNS[2], "position": 1, "references": ["Bye ."]},
    ]
    lines += [{"query": f"Who {number} ?", "references": ["Me ."]} for number in range(40)]
    _, report = read(tmp_path, lines)
    assert report["empty"] == {"references": 2, "first": ["line 1"]}
    assert report["no_pair_at_position"] == {"references": 1, "first": ["line 4"]}
    named = ["line 2", "line 3", *(f"line {number}" for number in range(5, NAMED + 3))]
    assert report["unmatched"] == {"references": 43, "first": named}
    assert "2 further references for 2 test pairs; not used: 43 unmatched, 1 no pair at position" in summary(report)


def test_equal_dialogues_share_their_references(tmp_path: Path) -> None:
    twins = [*DIALOGUES, Dialogue(f"{DIALOGUES[1].dialogue}-2", TURNS[1])]
    pairs = list(each_pair(twins, STRIDE_2, {}))
    path = tmp_path / "references.jsonl"
    line = {"dialogue": TURNS[1], "position": 0, "references": ["A cat !"]}
    path.write_text(json.dumps(line), encoding="utf-8")
    records, _ = match_references(path, twins, pairs)
    name = DIALOGUES[1].dialogue
    assert records == [References(name, 0, ["A cat !"]), References(f"{name}-2", 0, ["A cat !"])]


def test_the_order_of_the_lines_makes_no_difference(tmp_path: Path) -> None:
    lines: list[Any] = [
        {"query": "Thank you .", "references": [f"{word} ."]} for word in ("b", "B", "a", "not at all", "c")
    ]
    lines.append({"dialogue": TURNS[2], "position": 0, "references": ["c !", "d ."]})
    expected, _ = read(tmp_path, lines)
    assert expected["Not at all .", 0] == ["B .", "a .", "c !", "d ."]
    for seed in range(5):
        assert read(tmp_path, random.Random(seed).sample(lines, len(lines)))[0] == expected


def test_if_nothing_belongs_to_a_test_pair_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"references\.jsonl: not one reference of 1 lines belongs to a test pair; "):
        read(tmp_path, [{"query": "Who ?", "references": ["Me ."]}])


@pytest.mark.parametrize(
    "line",
    [
        ["Thank you ."],
        {"query": "Thank you ."},
        {"query": "Thank you .", "references": "Any time ."},
        {"query": "Thank you .", "references": [1]},
        {"query": "Thank you .", "references": [], "weight": 1},
        {"dialogue": TURNS[0], "references": ["Any time ."]},
        {"dialogue": TURNS[0], "position": "2", "references": ["Any time ."]},
        {"dialogue": TURNS[0], "position": True, "references": ["Any time ."]},
        {"dialogue": [{"responses": ["Any time ."]}]},
        {"dialogue": [{"text": "Thank you .", "responses": "Any time ."}]},
        {"dialogue": [{"text": "Thank you ."}, {"text": "Not at all ."}], "position": 0, "references": ["lost"]},
    ],
)
def test_a_line_of_another_form_is_refused_with_its_number(line: object, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"references\.jsonl:2: references of another form; "):
        read(tmp_path, [{"query": "Rex .", "references": []}, line])


def test_texts_are_the_same_by_letters_and_digits_in_any_case_and_script(tmp_path: Path) -> None:
    assert letters("I do n't !") == letters("i don\u2019t") == "idont"
    assert letters("Stra\u00dfe 5") == letters("STRASSE 5") and letters("cafe\u0301") == letters("Caf\u00e9")
    assert letters("...") != letters("?")
    assert len({letters(word) for word in ("हाँ", "हो", "है", "दिन", "दान", "มี", "มุ")}) == 7
    pairs = [Pair("d", 0, "दिन", "नहीं"), Pair("d", 2, "दान", "नहीं")]
    given = ["हाँ", "हो", "है", "ok 😀", "ok 😢", "ok", "OK !"]
    found, report = read(tmp_path, [{"query": "दिन", "references": given}], [Dialogue("d", ["a"])], pairs)
    assert [(position, len(texts)) for (_, position), texts in found.items()] == [(0, 6)]
    assert report["duplicate"]["references"] == 1
