"""Further references of the test pairs: what other people answered to the same queries, from a file of JSON lines.

A line is a whole dialogue of the test set with responses to any of its turns; other keys are overlooked:

    {"dialogue": [{"text": "How are you ?", "responses": ["Fine .", "Not too bad ."]}, {"text": "Fine , thanks ."}]}

This is the form of DailyDialog's multi-reference test set (Gupta et al., "Investigating Evaluation of Open-Domain
Dialogue Systems With Human Generated Multiple References", SIGdial 2019; github.com/prakharguptaz/multirefeval,
multiref-dataset/multireftest.json, 1,000 dialogues). It has no license, so it is downloaded by whoever may use it.

Dialogues are the same if the letters and digits of their turns are, in any case: that file has other apostrophes than
DailyDialog, and "do n't" for "don't". A reference that is the same as the pair's response, or as another one of the
pair, counts once; here symbols count too: "ok 😀" and "ok 😢" are two.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from stages.pair_extract.corpora import clean
from stages.pair_extract.formats import lines_of
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, References

NAMED = 10  # lines whose dialogue is not in the test set, in the report
LETTERS, SYMBOLS = "LMN", "S"


class Turn(BaseModel):
    """A turn, and what could come after it."""

    text: str
    responses: list[str] = []


class WholeDialogue(BaseModel):
    """A line of the file."""

    dialogue: list[Turn]


def letters(text: str, kinds: str = LETTERS) -> str:
    """What two texts must share to be the same: letters, their marks, digits, case overlooked; without any, all of it.

    kinds: the characters that count, by the first letter of their Unicode category.

    >>> letters("do n't !") == letters("Don't")
    True
    """
    text = unicodedata.normalize("NFC", text.casefold())
    return "".join(each for each in text if unicodedata.category(each)[0] in kinds) or text


def match_references(
    path: Path, dialogues: Iterable[Dialogue], pairs: Sequence[Pair]
) -> tuple[list[References], dict[str, Any]]:
    """The further references of the test set, whose dialogues and pairs these are.

    Returns:
        A record for each pair that has any, in the order of the pairs; and how many `references` for how many `pairs`
        these are, how many dialogues are `unmatched`, and the lines of the first of them. The order of the lines makes
        no difference to the records.

    Raises:
        StageError: a line is not of that form, or not one reference belongs to a test pair.
    """
    keys = {each.dialogue: _key(each.turns) for each in dialogues}  # equal dialogues have equal keys
    known, unmatched = set(keys.values()), list[int]()
    given: dict[tuple[tuple[str, ...], int], list[str]] = defaultdict(list)
    for number, text in lines_of(path, Counter()):
        try:
            turns = WholeDialogue.model_validate_json(text).dialogue
        except ValidationError:
            form = 'write {"dialogue": [{"text": "...", "responses": ["..."]}, ...]}'
            raise StageError(f"{path}:{number}", "references of another form", form) from None
        key = _key(turn.text for turn in turns)
        unmatched += [number] if key not in known else []
        for at, turn in enumerate(turns):
            given[key, at] += filter(None, (clean(each, Counter()) for each in turn.responses))
    records = []
    for pair in pairs:
        first = {letters(pair.response, LETTERS + SYMBOLS): pair.response}
        for text in sorted(given[keys[pair.dialogue], pair.position]):
            first.setdefault(letters(text, LETTERS + SYMBOLS), text)
        if further := [*first.values()][1:]:
            records.append(References(pair.dialogue, pair.position, further))
    if not records:
        remedy = "check that they are those of this corpus's test set, and pairs.stride"
        raise StageError(path, "not one reference belongs to a test pair", remedy)
    count = sum(len(each.references) for each in records)
    told = {"unmatched": len(unmatched), "first_unmatched_lines": unmatched[:NAMED]}
    return records, {"references": count, "pairs": len(records), **told}


def _key(turns: Iterable[str]) -> tuple[str, ...]:
    return tuple(letters(clean(turn, Counter())) for turn in turns)
