"""Chats as the hub and other programs keep them: lists of messages, each with its speaker and its text.

`messages` has messages {role, content}, `conversations` messages {from, value}; other fields are overlooked. What the
speakers are called makes no difference, but for a system turn: it says how to answer and is no part of the dialogue.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from stages.plumbing.errors import StageError

CHAT_KEYS = {"messages": ("role", "content"), "conversations": ("from", "value")}  # speaker and text of a message
SYSTEM = ("system", "developer")  # the second is a newer name of the first
SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'


def turns_of_chat(subject: str, key: str, chat: Any, joined: bool, counts: Counter[str]) -> list[str]:
    """The turns of a chat, without system turns, which are counted.

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
    messages = [_message(f"{subject}: {key}[{number}]", key, each) for number, each in enumerate(chat)]
    spoken = [(speaker, text) for speaker, text in messages if speaker not in SYSTEM]
    counts["system_turns"] += len(messages) - len(spoken)
    by_turn = groupby(spoken, key=lambda message: message[0])
    return [one_turn([text for _, text in turn], joined, counts) for _, turn in by_turn]


def one_turn(messages: Sequence[str], joined: bool, counts: Counter[str]) -> str:
    """What one speaker says in a row, as one text.

    Several messages in a row are not one utterance: joined, they can read like nothing anybody would say. `joined`:
    join them anyway. Otherwise such a turn becomes empty, so that it is in no pair. It is counted either way.
    """
    several = sum(bool(message.strip()) for message in messages) > 1
    counts["turns_of_several_messages"] += several
    return "" if several and not joined else " ".join(messages)


def _message(subject: str, key: str, value: Any) -> tuple[str, str]:
    """Speaker and text."""
    if not isinstance(value, dict):
        raise StageError(subject, f"not a message but {_kind(value)}", f"it must be like {SHAPE}")
    names = next((each for each in CHAT_KEYS.values() if each[0] in value), CHAT_KEYS[key])
    for name in names:
        if name not in value:
            raise StageError(subject, f"no {name}", f"a message has {names[0]} and {names[1]}")
        if not isinstance(value[name], str):
            remedy = "write it as a text, or leave that message or chat out"
            raise StageError(f"{subject}.{name}", f"not a text but {_kind(value[name])}", remedy)
    return value[names[0]], value[names[1]]


def _kind(value: Any) -> str:
    kinds = {type(None): "null", list: "a list", dict: "an object", str: "a text", bool: "true or false"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
