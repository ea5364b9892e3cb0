"""Chats as the hub and other programs keep them: lists of messages, each with its speaker and its text.

`messages` has messages {role, content}, `conversations` messages {from, value}. A text can be a list of parts, as
{"type": "text", "text": "hi"}; parts of other types (images, ...) are left out. What the speakers are called makes no
difference, but for those who are no part of the dialogue: system turns say how to answer, tool turns are what a tool
gave back. A message that only calls a tool is no turn either. Other fields are overlooked.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from stages.plumbing.errors import StageError

CHAT_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}  # speaker and text of a message
# Whose turns are left out, and as what they are counted. `developer` and `tool` are newer names.
LEFT_OUT = {"system": "system_turns", "developer": "system_turns", "function": "tool_turns", "tool": "tool_turns"}
CALLS = ("tool_calls", "function_call")  # fields of a message that calls a tool
TEXT_PARTS = ("text", "input_text", "output_text")
TOOL_PARTS = ("tool_use", "tool_result")
COUNTED_IN_CHATS = (
    "tool_turns",  # left out
    "tool_calls",  # messages that only call a tool, or only have parts of one; left out
    "other_parts",  # parts of messages that are no text; left out
)
SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


def turns_of_chat(subject: str, key: str, chat: Any, joined: bool, counts: Counter[str]) -> list[str]:
    """The turns of a chat, without what is no part of the dialogue, which is counted.

    Args:
        subject: the place of the chat, for errors.
        key: where its messages stand, of `CHAT_KEYS`.
        chat: its messages.
        joined: what becomes of a turn that was sent as several messages: see `one_turn`.
        counts: what is counted.

    Raises:
        StageError: a message has no speaker, or no text.
    """
    if not isinstance(chat, list):
        raise StageError(f"{subject}: {key}", f"not a list of messages but {_kind(chat)}", f"it must be like {SHAPE}")
    messages = (_message(f"{subject}: {key}[{number}]", key, each, counts) for number, each in enumerate(chat))
    by_turn = groupby((each for each in messages if each is not None), key=lambda message: message[0])
    return [one_turn([text for _, text in turn], joined, counts) for _, turn in by_turn]


def left_out(read: Iterable[Counter[str]]) -> list[str]:
    """Lines that say what was left out of the chats of some files."""
    whole: Counter[str] = sum(read, Counter())
    names = ("system_turns", *COUNTED_IN_CHATS)
    return [f"{whole[name]} {name.replace('_', ' ')} left out" for name in names if whole[name]]


def one_turn(messages: Sequence[str], joined: bool, counts: Counter[str]) -> str:
    """What one speaker says in a row, as one text.

    Several messages in a row are not one utterance: joined, they can read like nothing anybody would say. `joined`:
    join them anyway. Otherwise such a turn becomes empty, so that it is in no pair. It is counted either way.
    """
    several = sum(bool(message.strip()) for message in messages) > 1
    counts["turns_of_several_messages"] += several
    return "" if several and not joined else " ".join(messages)


def _message(subject: str, key: str, value: Any, counts: Counter[str]) -> tuple[str, str] | None:
    """Speaker and text; None if it is no part of the dialogue."""
    if not isinstance(value, dict):
        raise StageError(subject, f"not a message but {_kind(value)}", f"it must be like {SHAPE}")
    who, what = _names(key, value)
    speaker, content = value.get(who), value.get(what)
    calls = _calls_a_tool(value, content)
    if missing := next((name for name in (who, what) if name not in value and not (name == what and calls)), None):
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
    return speaker, text


def _names(key: str, value: dict[str, Any]) -> tuple[str, str]:
    """What speaker and text of a message are called: the first names that are not null.

    In Parquet all messages of a file have the same fields, so one can have the other names too, with nulls.
    """
    pairs = tuple(CHAT_KEYS.values())
    filled = [pair for pair in pairs if all(value.get(name) is not None for name in pair)]
    spoken = [pair for pair in pairs if value.get(pair[0]) is not None]
    named = [pair for pair in pairs if pair[0] in value]
    return next(iter((*filled, *spoken, *named)), CHAT_KEYS[key])


def _text(subject: str, content: Any, counts: Counter[str]) -> str:
    """The text of a message; if it is a list of parts, the texts among them, joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise _no_text(subject, content)
    texts = [_part(f"{subject}[{number}]", part, counts) for number, part in enumerate(content)]
    return " ".join(text for text in texts if text)


def _part(subject: str, part: dict[str, Any], counts: Counter[str]) -> str:
    kind, text = part.get("type") or TEXT_PARTS[0], part.get("text")
    if kind not in TEXT_PARTS:
        counts["other_parts"] += 1
        return ""
    if not isinstance(text, str):
        raise _no_text(f"{subject}.text", text)
    return text


def _calls_a_tool(message: dict[str, Any], content: Any) -> bool:
    """Whether it calls a tool or has what one gave back, by a field of its own or by one of its parts."""
    fields = (message.get(name) for name in CALLS)
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return any(map(_is_filled, fields)) or any(part.get("type") in TOOL_PARTS for part in parts)


def _is_filled(value: Any) -> bool:
    """Whether there is anything in it; in Parquet an object that is not there can be one of nulls."""
    return any(each is not None for each in value.values()) if isinstance(value, dict) else bool(value)


def _no_text(subject: str, value: Any) -> StageError:
    return StageError(
        subject, f"not a text but {_kind(value)}", "write it as a text, or leave that message or chat out"
    )


def _kind(value: Any) -> str:
    kinds = {type(None): "null", list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
