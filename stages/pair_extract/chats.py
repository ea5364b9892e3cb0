"""The turns of a row: texts, or messages as the hub and other programs keep them, each with its speaker and its text.

A row is a list of turns, or an object with one under a key of `KEYS`; the first list counts. A turn is a text, or a
message {role, content}, {from, value} or {speaker, text}, mixed as you like. A text can be a list of parts, as
{"type": "text", "text": "hi"}; parts of other types (images, ...) are left out. Other fields are overlooked.

Messages of one speaker in a row are one turn. System turns say how to answer (but for the partner of a user who begins:
corpora of tasks call their two speakers USER and SYSTEM), tool turns are what a tool gave back, and a message may only
call a tool: these are no part of the dialogue. Beyond that the speakers' names make a difference in one case: of two
speakers, one of them an assistant, the assistant is the one who answers, whoever begins.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from stages.plumbing.errors import StageError

KEYS = ("turns", "dialog", "utterances", "dialogue", "conversation", "messages", "conversations")
NAMES = (("role", "content"), ("from", "value"), ("speaker", "text"))  # of speaker and text of a message
# Whose turns are left out, and as what they are counted.
LEFT_OUT = {
    "system": "system_turns", "developer": "system_turns", "function": "tool_turns", "tool": "tool_turns",
    "function_call": "tool_calls", "observation": "tool_turns",  # ShareGPT's
}  # fmt: skip
ASSISTANT = "assistant"
SAME = {"human": "user", **dict.fromkeys(("gpt", "chatgpt", "bot", "chatbot", "model", "ai"), ASSISTANT)}
CALLS = ("tool_calls", "function_call")  # fields of a message that calls a tool
TEXT_PARTS = (None, "text", "input_text", "output_text")
TOOL_PARTS = ("tool_use", "tool_result")
UNSEEN = {"Cc", "Cf", "Mn", "Zl", "Zp", "Zs"}  # Unicode's categories of characters that show nothing by themselves
FILLERS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a Braille pattern by their categories, but blank
SHAPE = (
    'write one dialogue per row: ["turn", "turn"], {"turns": ["turn", "turn"]} or '
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}; '
    "in the format eou a line with __eou__ after each turn"
)
KINDS = {type(None): "null", list: "a list", dict: "an object", str: "a text", int: "a number", float: "a number"}


def turns_of(place: str, row: Any, joined: bool, counts: Counter[str]) -> tuple[list[str], bool]:
    """The turns of a row, and whether an assistant says every second one of them.

    Args:
        place: where the row is, for errors.
        row: what stands there.
        joined: what becomes of a turn that was sent as several messages. Joined, they can read like nothing anybody
            would say; if they are not, the turn is empty, so that it is in no pair.
        counts: what is counted.

    Raises:
        StageError: it is no list of turns, or a message has no speaker or no text.
    """
    if isinstance(row, dict) and (key := next((key for key in KEYS if isinstance(row.get(key), list)), None)):
        place, row = f"{place}: {key}", row[key]
    if not isinstance(row, list):
        raise _not("a list of turns", place, row)
    messages = groupby(_messages(place, row, counts), key=lambda each: each[0])
    by_speaker = [(who, [text for _, text in own]) for who, own in messages]
    roles = len({who for who, _ in by_speaker}) == 2 and ASSISTANT in dict(by_speaker)
    if roles and by_speaker[0][0] == ASSISTANT:
        counts["turns_before_the_user"] += 1
        del by_speaker[0]
    seen = [[text for text in texts if is_seen(text)] or texts[:1] for _, texts in by_speaker]
    counts["turns_of_several_messages"] += sum(len(texts) > 1 for texts in seen)
    return ["" if len(texts) > 1 and not joined else " ".join(texts) for texts in seen], roles


def is_seen(text: str) -> bool:
    """Whether it has anything to read: not only white space, control characters and such as the zero-width space."""
    return any(unicodedata.category(each) not in UNSEEN and each not in FILLERS for each in text)


def _messages(place: str, row: list[Any], counts: Counter[str]) -> Iterator[tuple[str | int, str]]:
    """Speaker and text of each that is part of the dialogue. A text has a speaker of its own: its number."""
    people = dict.fromkeys(str(turn.get("speaker")).strip().lower() for turn in row if isinstance(turn, dict))
    for number, turn in enumerate(row):
        if isinstance(turn, str):
            yield number, turn
            continue
        if not isinstance(turn, dict):
            raise _not("a turn", f"{place}[{number}]", turn)
        # In Parquet all messages of a file have the same fields, with nulls where they have no value.
        who, what = next((names for names in NAMES if turn.get(names[0]) is not None), NAMES[0])
        if not isinstance(turn.get(who), str):
            raise _not("a text", f"{place}[{number}].{who}", turn.get(who))
        speaker = turn[who].strip().lower()
        if speaker in LEFT_OUT and [*people] != ["user", "system"]:
            counts[LEFT_OUT[speaker]] += 1
            continue
        text, calls = _text(f"{place}[{number}].{what}", turn, turn.get(what), counts)
        if calls and not text.strip():
            counts["tool_calls"] += 1
        else:
            yield SAME.get(speaker, speaker), text


def _text(place: str, message: dict[str, Any], content: Any, counts: Counter[str]) -> tuple[str, bool]:
    """The text of a message, of several parts joined; and whether it calls a tool or has what one gave back."""
    calls = any(_is_filled(message.get(name)) for name in CALLS)
    if calls and content is None:
        return "", True
    texts = []
    for part in content if isinstance(content, list) else [{"text": content}]:
        if not isinstance(part, dict):
            raise _not("a part of a message", place, part)
        kind = part.get("type")
        calls = calls or kind in TOOL_PARTS
        if kind not in TEXT_PARTS:
            counts["other_parts"] += 1
        elif not isinstance(part.get("text"), str):
            raise _not("a text", place, part.get("text"))
        else:
            texts.append(part["text"])
    return " ".join(filter(None, texts)), calls


def _is_filled(value: Any) -> bool:
    """Whether there is anything in it; in Parquet an object that is not there can be one of nulls."""
    return any(each is not None for each in value.values()) if isinstance(value, dict) else bool(value)


def _not(wanted: str, place: str, value: Any) -> StageError:
    return StageError(place, f"not {wanted} but {KINDS.get(type(value), type(value).__name__)}", SHAPE)
