"""Further references of the test pairs: what other people answered to the same queries, from a file of JSON lines.

A line names a pair by its query, which may be that of several pairs; by its dialogue (all its turns, or its id as in
data/pair_extract/test.jsonl) and the number of the query's turn; or has a whole dialogue with responses to each turn:

    {"query": "How are you ?", "references": ["Fine .", "Not too bad ."]}
    {"dialogue": ["How are you ?", "Fine , thanks .", "And you ?"], "position": 0, "references": ["Not too bad ."]}
    {"dialogue": [{"text": "How are you ?", "responses": ["Fine .", "Not too bad ."]}, {"text": "Fine , thanks ."}]}

The last is the form of DailyDialog's multi-reference test set (Gupta et al., "Investigating Evaluation of Open-Domain
Dialogue Systems With Human Generated Multiple References", SIGdial 2019; github.com/prakharguptaz/multirefeval,
multiref-dataset/multireftest.json, 1,000 dialogues). It has no license, so it is downloaded by whoever may use it.

Queries and turns are the same if their letters and digits are, in any case: that file has other apostrophes than
DailyDialog, and "do n't" for "don't". A reference that is the same as the pair's response, or as another one of the
pair, counts once; here symbols count too: "ok 😀" and "ok 😢" are two.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.pair_extract.corpora import clean
from stages.pair_extract.formats import lines_of, parse_json
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, References

NAMED = 10  # references that are not used, in the report, of each kind
UNUSED = ("unmatched", "no_pair_at_position", "duplicate", "empty")
FORM = (
    'write {"query": "...", "references": ["..."]}, {"dialogue": ["turn", ...] or "id", "position": 0, "references": '
    '["..."]} or {"dialogue": [{"text": "...", "responses": ["..."]}, ...]}'
)
LETTERS, SYMBOLS = "LMN", "S"

Name = str | tuple[str, ...]  # of a dialogue: its id, or the `letters` of its turns
Entry = tuple[str, Name, int | None, list[str]]  # place in the file; a query, or a dialogue and a position; references


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
    """The further references of the test pairs.

    Args:
        path: the file, as the download stage leaves it.
        dialogues: the dialogues of the test set.
        pairs: its pairs.

    Returns:
        A record for each pair that has any, in the order of the pairs; and the report: `unmatched` (no such query or
        dialogue in the test set), `no_pair_at_position` (no pair of that dialogue has its query there), `duplicate` and
        `empty` references. The order of the lines makes no difference to the records.

    Raises:
        StageError: a line is not of one of the forms, or not one reference belongs to a test pair.
    """
    lines = 0
    unused: list[tuple[str, str, int]] = []  # of `UNUSED`, place in the file, how many
    wanted: dict[tuple[Name, int | None], list[Pair]] = defaultdict(list)
    names: dict[str, list[Name]] = {each.dialogue: [each.dialogue, _key(each.turns)] for each in dialogues}
    for pair in pairs:
        wanted[letters(pair.query), None].append(pair)
        for name in names[pair.dialogue]:  # equal dialogues share their turns
            wanted[name, pair.position].append(pair)
    known = {name for both in names.values() for name in both}
    found: dict[Pair, list[tuple[str, str]]] = defaultdict(list)  # pair -> (reference, place)
    for number, line in lines_of(path, Counter()):
        lines += 1
        for place, name, position, references in _entries(path, number, line):
            kept = [text for text in (clean(each, Counter()) for each in references) if text]
            unused.append(("empty", place, len(references) - len(kept)))
            matched = wanted.get((name, position), [])
            if not matched:
                lacking = "no_pair_at_position" if position is not None and name in known else "unmatched"
                unused.append((lacking, place, len(kept)))
            for pair in matched:
                found[pair] += [(text, place) for text in kept]
    if not found:
        remedy = "check that they are those of this corpus's test set, and pairs.stride"
        raise StageError(path, f"not one reference of {lines} lines belongs to a test pair", remedy)
    records = []
    for pair in filter(found.get, pairs):
        same, texts = {letters(pair.response, LETTERS + SYMBOLS)}, []
        for text, place in sorted(found[pair]):
            if (key := letters(text, LETTERS + SYMBOLS)) in same:
                unused.append(("duplicate", f"{place}: {text}", 1))
            else:
                same.add(key)
                texts.append(text)
        records += [References(pair.dialogue, pair.position, texts)] if texts else []
    report: dict[str, Any] = {"lines": lines, "pairs": len(records)}
    report["references"] = sum(len(each.references) for each in records)
    for what in UNUSED:
        own = [(place, count) for kind, place, count in unused if kind == what and count]
        report[what] = {"references": sum(count for _, count in own), "first": [place for place, _ in own[:NAMED]]}
    return records, report


def summary(report: dict[str, Any]) -> str:
    """The report of `match_references` in a line."""
    unused = ", ".join(f"{report[what]['references']} {what.replace('_', ' ')}" for what in UNUSED)
    return f"{report['references']} further references for {report['pairs']} test pairs; not used: {unused}"


def _entries(path: Path, number: int, line: str) -> Iterator[Entry]:
    """The entries of a line."""
    place, value = f"line {number}", parse_json(f"{path}:{number}", line)
    match value:
        case {"query": str(query), "references": texts} if len(value) == 2 and _are_texts(texts):
            yield place, letters(query), None, texts
        case {"dialogue": name, "position": int(at), "references": texts} if (
            len(value) == 3 and (isinstance(name, str) or _are_texts(name)) and at is not True and _are_texts(texts)
        ):
            yield place, name if isinstance(name, str) else _key(name), at, texts
        case {"dialogue": [*turns]} if all(map(_is_turn, turns)) and not {*value} & {"query", "position", "references"}:
            key = _key(turn["text"] for turn in turns)
            for at, turn in enumerate(turns):
                yield f"{place}, turn {at}", key, at, turn.get("responses", [])
        case _:
            raise StageError(f"{path}:{number}", "references of another form", FORM)


def _key(turns: Iterable[str]) -> tuple[str, ...]:
    return tuple(letters(clean(turn, Counter())) for turn in turns)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_turn(value: Any) -> bool:
    """Whether it is a turn with text and, perhaps, responses; what else is said of it is overlooked."""
    return isinstance(value, dict) and isinstance(value.get("text"), str) and _are_texts(value.get("responses", []))
