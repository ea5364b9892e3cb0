"""Further references: found by the turns of whole dialogues, in the form of DailyDialog's multi-reference file."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from stages.pair_extract.corpora import content_id
from stages.pair_extract.pairs import each_pair
from stages.pair_extract.references import NAMED, letters, match_references
from stages.params.schema import Pairs
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair

TURNS = [
    ["Where ' s the bank ?", "Over there .", "Thank you .", "You ' re welcome ."],
    ["I can't find my dog .", "What is it called ?", "Rex .", "Rex !"],
    ["Thank you .", "Not at all ."],
]
DIALOGUES = [Dialogue(content_id(turns), turns) for turns in TURNS]
BANK, DOG, THANKS = (each.dialogue for each in DIALOGUES)
STRIDE_1, STRIDE_2 = (Pairs(stride=stride, history=1, joined_by=" ") for stride in (1, 2))
PAIRS = list(each_pair(DIALOGUES, STRIDE_2, {}))  # 2 + 2 + 1


def to_turn(turns: list[str], position: int, *references: str) -> dict[str, Any]:
    """A whole dialogue with references to the query at one position."""
    texts: list[dict[str, Any]] = [{"text": turn} for turn in turns]
    texts[position]["responses"] = list(references)
    return {"dialogue": texts}


def read(
    folder: Path, lines: list[Any], dialogues: list[Dialogue] = DIALOGUES, pairs: list[Pair] = PAIRS
) -> tuple[dict[tuple[str, int], list[str]], dict[str, Any]]:
    """What is found: (dialogue, position) -> references; and the report."""
    path = folder / "references.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    records, report = match_references(path, dialogues, pairs)
    return {(each.dialogue, each.position): each.references for each in records}, report


def test_a_dialogue_is_known_by_its_turns_in_any_case(tmp_path: Path) -> None:
    for turns in (TURNS[0], [turn.upper() for turn in TURNS[0]]):
        found, report = read(tmp_path, [to_turn(turns, 2, "My pleasure .", "Any time .", " ", "\u2028")])
        assert found == {(BANK, 2): ["Any time .", "My pleasure ."]}
        assert report == {"references": 2, "pairs": 1, "unmatched": 0, "first_unmatched_lines": []}


def test_a_file_of_whole_dialogues_is_read_as_it_comes(tmp_path: Path) -> None:
    # Lower case, other apostrophes, the dialogue's own next turn as the first response, more keys than are needed.
    texts = ["I ca n\u2019t find my dog .", "What is it called ?", "Rex .", "Rex !"]
    given = [["what is it called ?", "oh no !"], ["rex ."], ["rex !", "rex ?", "nice ."], None]
    utterances = [
        {"text": text, "act": "inform"} | ({"responses": each} if each else {})
        for text, each in zip(texts, given, strict=True)
    ]
    found, report = read(tmp_path, [{"fold": "test", "index": 1, "dialogue": utterances}])
    assert found == {(DOG, 0): ["oh no !"], (DOG, 2): ["nice ."]}
    assert (report["pairs"], report["references"]) == (2, 2)  # what differs in punctuation alone is the same


def test_with_stride_1_the_turns_between_have_references_too(tmp_path: Path) -> None:
    line = {"dialogue": [{"text": turn, "responses": [f"to {turn}"]} for turn in TURNS[1]]}
    found, _ = read(tmp_path, [line], pairs=list(each_pair(DIALOGUES, STRIDE_1, {})))
    assert [position for _, position in found] == [0, 1, 2]  # nobody answered the last turn


def test_dialogues_that_are_not_in_the_test_set_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    unknown = [to_turn([f"Who {number} ?", "Me ."], 0, "You .") for number in range(40)]
    _, report = read(tmp_path, [*unknown, to_turn(TURNS[2], 0, "Bye .")])
    assert report["unmatched"] == 40
    assert report["first_unmatched_lines"] == list(range(1, NAMED + 1))


def test_equal_dialogues_share_their_references(tmp_path: Path) -> None:
    twins = [*DIALOGUES, Dialogue(f"{DOG}-2", TURNS[1])]
    found, _ = read(tmp_path, [to_turn(TURNS[1], 0, "A cat !")], twins, list(each_pair(twins, STRIDE_2, {})))
    assert list(found.items()) == [((DOG, 0), ["A cat !"]), ((f"{DOG}-2", 0), ["A cat !"])]


def test_the_order_of_the_lines_makes_no_difference(tmp_path: Path) -> None:
    lines = [to_turn(TURNS[2], 0, f"{word} .") for word in ("b", "B", "a", "not at all", "c")]
    lines.append(to_turn(TURNS[2], 0, "c !", "d ."))
    expected, _ = read(tmp_path, lines)
    assert expected[THANKS, 0] == ["B .", "a .", "c !", "d ."]
    for seed in range(5):
        assert read(tmp_path, random.Random(seed).sample(lines, len(lines)))[0] == expected


def test_if_nothing_belongs_to_a_test_pair_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"references\.jsonl: not one reference belongs to a test pair; "):
        read(tmp_path, [to_turn(["Who ?", "Me ."], 0, "You .")])


@pytest.mark.parametrize(
    "line",
    [
        '["Thank you ."]',
        '{"dialogue": [{"responses": ["Any time ."]}]}',
        '{"dialogue": [{"text": "Thank you .", "responses": [1]}]}',
        '{"dialogue": ',
    ],
)
def test_a_line_of_another_form_is_refused_with_its_number_and_the_form(line: str, tmp_path: Path) -> None:
    path = tmp_path / "references.jsonl"
    path.write_text(json.dumps(to_turn(TURNS[0], 0, "a")) + f"\n{line}\n", encoding="utf-8")
    with pytest.raises(StageError, match=r"references\.jsonl:2: references of another form; write \{\"dialogue\""):
        match_references(path, DIALOGUES, PAIRS)


def test_texts_are_the_same_by_letters_vowel_signs_and_digits_in_any_case(tmp_path: Path) -> None:
    assert letters("I do n't !") == letters("i don\u2019t") == "idont"
    assert letters("Straße 5") == letters("STRASSE 5") and letters("cafe\u0301") == letters("Café")
    different = ("हाँ", "हो", "है", "दिन", "दान", "มี", "มุ", "...", "?")
    assert len({letters(text) for text in different}) == len(different)
    ((_, texts),) = read(tmp_path, [to_turn(TURNS[2], 0, "ok 😀", "ok 😢", "ok", "OK !")])[0].items()
    assert len(texts) == 3
