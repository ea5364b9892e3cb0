"""The turns of a row: texts, or messages as the hub and other programs keep them, each with its speaker and its text.

A row is a list of turns, or an object with one under a key of `KEYS`; the first list counts. A turn is a text, or a
message {role, content}, {from, value} or {speaker, text}, mixed as you like. A text can be a list of parts, as
{"type": "text", "text": "hi"}; parts of other types (images, ...) are left out. Other fields are overlooked.

Messages of one speaker in a row are one turn. System turns say how to answer, tool turns are what a tool gave back, and
a message may only call a tool: these are no part of the dialogue. Beyond that the speakers' names make a difference in
one case: of two speakers, one of them an assistant, the assistant is the one who answers, whoever begins.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from stages.plumbing.errors import StageError

KEYS = ("turns", "dialog", "utterances", "dialogue", "conversation", "messages", "conversations")
NAMES = (("role", "content"), ("from", "value"), ("speaker", "text"))  # of speaker and text of a message
# Whose turns are left out, and as what they are counted. `developer` and `tool` are newer names.
LEFT_OUT = {"system": "system_turns", "developer": "system_turns", "function": "tool_turns", "tool": "tool_turns"}
ASSISTANT = "assistant"
SAME = {"human": "user", "gpt": ASSISTANT, "chatgpt": ASSISTANT, "bot": ASSISTANT, "model": ASSISTANT}
CALLS = ("tool_calls", "function_call")  # fields of a message that calls a tool
TEXT_PARTS = ("text", "input_text", "output_text")
TOOL_PARTS = ("tool_use", "tool_result")
COUNTED_IN_CHATS = (
    "tool_turns",  # left out
    "tool_calls",  # messages that only call a tool, or only have parts of one; left out
    "other_parts",  # parts of messages that are no text; left out
    "turns_before_the_user",  # what the assistant says before it is asked; left out
)
SHAPE = (
    'write one dialogue per row: ["turn", "turn"], {"turns": ["turn", "turn"]} or '
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
)

Turns = tuple[list[str], bool]


def turns_key(row: Any) -> str | None:
    """The first key of `KEYS` under which an object has a list; if there is none, the first that it has at all."""
    there = [key for key in KEYS if key in row] if isinstance(row, Mapping) else []
    return next((key for key in there if isinstance(row[key], list)), there[0] if there else None)


def turns_of(subject: str, row: Any, joined: bool, counts: Counter[str]) -> Turns:
    """The turns of a row, and whether an assistant says every second one of them.

    Args:
        subject: the place of the row, for errors.
        row: what stands there.
        joined: what becomes of a turn that was sent as several messages: see `one_turn`.
        counts: what is counted.

    Raises:
        StageError: it is no list of turns, or a message has no speaker or no text.
    """
    key = turns_key(row)
    turns, place = (row, subject) if key is None else (row[key], f"{subject}: {key}")
    if not isinstance(turns, list):
        raise StageError(place, f"not a list of turns but {_kind(turns)}", SHAPE)
    if all(isinstance(turn, str) for turn in turns):
        return turns, False
    found = [_message(f"{place}[{number}]", number, turn, counts) for number, turn in enumerate(turns)]
    messages = [each for each in found if each is not None]
    by_speaker = [(who, [text for _, text in own]) for who, own in groupby(messages, key=lambda each: each[0])]
    roles = len({who for who, _ in by_speaker}) == 2 and ASSISTANT in dict(by_speaker)
    if roles and by_speaker[0][0] == ASSISTANT:
        counts["turns_before_the_user"] += 1
        del by_speaker[0]
    return [one_turn(texts, joined, counts) for _, texts in by_speaker], roles


def one_turn(messages: Sequence[str], joined: bool, counts: Counter[str]) -> str:
    """What one speaker says in a row, as one text.

    Several messages in a row are not one utterance: joined, they can read like nothing anybody would say. `joined`:
    join them anyway. Otherwise such a turn becomes empty, so that it is in no pair. It is counted either way.
    """
    several = sum(bool(message.strip()) for message in messages) > 1
    counts["turns_of_several_messages"] += several
    return "" if several and not joined else " ".join(messages)


def _message(subject: str, number: int, turn: Any, counts: Counter[str]) -> tuple[str | int, str] | None:
    """Speaker and text; None if it is no part of the dialogue. A text has a speaker of its own: its number."""
    if isinstance(turn, str):
        return number, turn
    if not isinstance(turn, dict):
        raise StageError(subject, f"not a turn but {_kind(turn)}", SHAPE)
    who, what = max(NAMES, key=lambda names: _known(turn, names))  # the first of the best
    speaker, content = turn.get(who), turn.get(what)
    calls = _calls_a_tool(turn, content)
    if missing := next((name for name in (who, what) if name not in turn and not (name == what and calls)), None):
        raise StageError(subject, f"no {missing}", f"a message has {who} and {what}")
    if not isinstance(speaker, str):
        raise _no_text(f"{subject}.{who}", speaker)
    speaker = speaker.strip().lower()
    if speaker in LEFT_OUT:
        counts[LEFT_OUT[speaker]] += 1
        return None
    text = _text(f"{subject}.{what}", "" if calls and content is None else content, counts)
    if calls and not text.strip():
        counts["tool_calls"] += 1
        return None
    return SAME.get(speaker, speaker), text


def _known(turn: dict[str, Any], names: tuple[str, str]) -> tuple[bool, bool, bool]:
    """How well two names fit a message. In Parquet all messages of a file have the same fields, often with nulls."""
    who, what = (turn.get(name) is not None for name in names)
    return who and what, who, names[0] in turn or names[1] in turn


def _text(subject: str, content: Any, counts: Counter[str]) -> str:
    """The text of a message; if it is a list of parts, the texts among them, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _no_text(subject, content)
    texts = []
    for number, part in enumerate(content):
        if (part.get("type") or TEXT_PARTS[0]) not in TEXT_PARTS:
            counts["other_parts"] += 1
        elif not isinstance(part.get("text"), str):
            raise _no_text(f"{subject}[{number}].text", part.get("text"))
        else:
            texts.append(part["text"])
    return " ".join(text for text in texts if text)


def _calls_a_tool(message: dict[str, Any], content: Any) -> bool:
    """Whether it calls a tool or has what one gave back, by a field of its own or by one of its parts."""
    fields = (message.get(name) for name in CALLS)
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return any(map(_is_filled, fields)) or any(part.get("type") in TOOL_PARTS for part in parts)


def _is_filled(value: Any) -> bool:
    """Whether there is anything in it; in Parquet an object that is not there can be one of nulls."""
    return any(each is not None for each in value.values()) if isinstance(value, dict) else bool(value)


def _no_text(subject: str, value: Any) -> StageError:
    return StageError(subject, f"not a text but {_kind(value)}", "write it as a text, or leave that turn out")


def _kind(value: Any) -> str:
    kinds = {type(None): "null", list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
