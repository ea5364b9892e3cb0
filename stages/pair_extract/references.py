"""Further references of the test pairs: what other people answered to the same queries, from a file of JSON lines.

A line names a pair, or several, in one of these ways:

    {"query": "How are you ?", "references": ["Fine .", "Not too bad ."]}
    {"dialogue": ["How are you ?", "Fine , thanks .", "And you ?"], "position": 0, "references": ["Not too bad ."]}
    {"dialogue": [{"text": "How are you ?", "responses": ["Fine .", "Not too bad ."]}, {"text": "Fine , thanks ."}]}

- by its query: every test pair with that query gets the references;
- by its dialogue and its position, the number of the query's turn, from 0: the dialogue is the list of all its turns,
  or its id as in data/pair_extract/test.jsonl (a hash of the turns, so nobody knows it before a first run);
- a whole dialogue at once, with the responses to each turn. This is the form of DailyDialog's multi-reference test set
  (Gupta et al., "Investigating Evaluation of Open-Domain Dialogue Systems With Human Generated Multiple References",
  SIGdial 2019; github.com/prakharguptaz/multirefeval, multiref-dataset/multireftest.json, 1,000 dialogues). Its first
  response to each turn is DailyDialog's own. It has no license, so it is downloaded by whoever may use it.

Queries and turns are the same if their letters and digits are, in any case: that file has other apostrophes than
DailyDialog, and "do n't" for "don't". A reference that is the same as the pair's response, or as another one of the
pair, counts once; here symbols count too: "ok 😀" and "ok 😢" are two. What belongs to no test pair is counted, and
the first of it named.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.pair_extract.corpora import are_texts, clean, lines_of, parse_json
from stages.plumbing.errors import StageError
from stages.records import Dialogue, Pair, References

NAMED = 10  # references that are not used, in the report, of each kind
UNUSED = ("unmatched", "no_pair_at_position", "duplicate", "empty")
FORM = (
    'write {"query": "...", "references": ["..."]}, {"dialogue": ["turn", ...] or "id", "position": 0, "references": '
    '["..."]} or {"dialogue": [{"text": "...", "responses": ["..."]}, ...]}'
)

LETTERS, SYMBOLS = "LMN", "S"
NAMES_A_PAIR = {"query", "position", "references"}  # beside a whole dialogue they would be overlooked

Texts = list[str]


def letters(text: str, kinds: str = LETTERS) -> str:
    """What two texts must share to be the same: letters, their marks, digits, case overlooked; without any, all of it.

    kinds: the characters that count, by the first letter of their Unicode category.

    >>> letters("do n't !") == letters("Don't")
    True
    """
    text = unicodedata.normalize("NFC", text.casefold())
    return "".join(each for each in text if unicodedata.category(each)[0] in kinds) or text


@dataclass(frozen=True)
class Entry:
    """Some references, and the pair that the file says they belong to."""

    place: str  # line, and turn, of the file: for the report
    query: str | None  # by query, or else
    dialogue: str | tuple[str, ...]  # by id or by the `letters` of the turns,
    position: int  # and position
    references: Texts


@dataclass
class Report:
    """What was counted; of what a user may want to correct, the first places by name."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, Texts] = field(default_factory=lambda: defaultdict(list))

    def note(self, what: str, place: str, count: int = 1) -> None:
        """Count something that is not used, and name it if it is among the first."""
        self.counts[what] += count
        if len(self.named[what]) < NAMED:
            self.named[what].append(place)

    def table(self, found: Sequence[References]) -> dict[str, Any]:
        """The report as a table: how many there were, and what became of them."""
        used = {"pairs": len(found), "references": sum(len(each.references) for each in found)}
        unused = {what: {"references": self.counts[what], "first": self.named[what]} for what in UNUSED}
        return {"lines": self.lines, **used, **unused}


def match_references(
    path: Path, dialogues: Sequence[Dialogue], pairs: Sequence[Pair]
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
    report, wanted = Report(), _Test(dialogues, pairs)
    found: dict[Pair, list[tuple[str, str]]] = defaultdict(list)  # pair -> (reference, place)
    for number, line in lines_of(path, Counter()):
        report.lines += 1
        for entry in _entries(f"{path}:{number}", number, parse_json(f"{path}:{number}", line)):
            kept = [text for text in (clean(each, Counter()) for each in entry.references) if text]
            if len(kept) < len(entry.references):
                report.note("empty", entry.place, len(entry.references) - len(kept))
            for pair in wanted.pairs_of(entry, len(kept), report):
                found[pair] += [(text, entry.place) for text in kept]
    if not found:
        remedy = "check that they are those of this corpus's test set, and pairs.stride"
        raise StageError(path, f"not one reference of {report.lines} lines belongs to a test pair", remedy)
    records = []
    for pair in pairs:
        if texts := _different(pair, found.get(pair, []), report):
            records.append(References(pair.dialogue, pair.position, texts))
    return records, report.table(records)


def summary(report: dict[str, Any]) -> str:
    """The report of `match_references` in a line."""
    unused = ", ".join(f"{report[what]['references']} {what.replace('_', ' ')}" for what in UNUSED)
    return f"{report['references']} further references for {report['pairs']} test pairs; not used: {unused}"


def _different(pair: Pair, found: Sequence[tuple[str, str]], report: Report) -> Texts:
    """The references of a pair, each once, sorted."""
    known, kept = {letters(pair.response, LETTERS + SYMBOLS)}, []
    for text, place in sorted(found):
        if (same := letters(text, LETTERS + SYMBOLS)) in known:
            report.note("duplicate", f"{place}: {text}")
        else:
            known.add(same)
            kept.append(text)
    return kept


class _Test:
    """Finds test pairs by what a file of references says of them."""

    def __init__(self, dialogues: Sequence[Dialogue], pairs: Sequence[Pair]) -> None:
        self.by_query: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            self.by_query[letters(pair.query)].append(pair)
        self.by_place = {(pair.dialogue, pair.position): pair for pair in pairs}
        self.ids: dict[str | tuple[str, ...], Texts] = defaultdict(list)
        for each in dialogues:
            self.ids[each.dialogue].append(each.dialogue)
            self.ids[tuple(map(letters, each.turns))].append(each.dialogue)  # equal dialogues share their turns

    def pairs_of(self, entry: Entry, count: int, report: Report) -> list[Pair]:
        """The pairs that an entry is about; if there are none, its `count` references are noted."""
        if entry.query is not None:
            found, lacking = self.by_query.get(letters(entry.query), []), "unmatched"
        else:
            ids = self.ids.get(entry.dialogue, [])
            places = [(name, entry.position) for name in ids]
            found = [self.by_place[place] for place in places if place in self.by_place]
            lacking = "no_pair_at_position" if ids else "unmatched"
        if not found and count:
            report.note(lacking, entry.place, count)
        return found


def _entries(subject: str, number: int, value: Any) -> Iterator[Entry]:
    """The entries of a line; `subject` is what errors name."""
    place = f"line {number}"
    match value:
        case {"query": str(query), "references": texts} if len(value) == 2 and are_texts(texts):
            yield Entry(place, query, "", 0, texts)
        case {"dialogue": name, "position": at, "references": texts} if (
            len(value) == 3 and (isinstance(name, str) or are_texts(name)) and type(at) is int and are_texts(texts)
        ):
            yield Entry(place, None, name if isinstance(name, str) else _key(name), at, texts)
        case {"dialogue": [*utterances]} if all(map(_is_utterance, utterances)) and not {*value} & NAMES_A_PAIR:
            key = _key([each["text"] for each in utterances])
            for at, each in enumerate(utterances):
                yield Entry(f"{place}, turn {at}", None, key, at, each.get("responses", []))
        case _:
            raise StageError(subject, "references of another form", FORM)


def _key(turns: Texts) -> tuple[str, ...]:
    return tuple(letters(clean(turn, Counter())) for turn in turns)


def _is_utterance(value: Any) -> bool:
    """Whether it is a turn with text and, perhaps, responses; what else is said of it is overlooked."""
    return isinstance(value, dict) and isinstance(value.get("text"), str) and are_texts(value.get("responses", []))
