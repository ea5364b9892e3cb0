"""Answers for scripts: a line in, a line out."""

import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence

from stages.chat.conversation import Conversation
from stages.chat.speaker import Speaker
from stages.plumbing.errors import StageError

CHUNK = 1 << 16  # bytes that are read at a time


def answer_lines(speakers: Sequence[Speaker], descriptor: int) -> None:
    """Print an answer for each line that comes from a file descriptor; an empty line gets an empty one.

    Where more than one turn is read as the query, the lines are a conversation, and an empty line begins a new one.
    With several speakers each answer is a line of its own, behind the speaker's name and a tab.
    """
    conversation = Conversation()
    longest = max(speaker.params.pairs.history for speaker in speakers)
    for lines in line_groups(descriptor):
        for group in [lines] if longest == 1 else [[line] for line in lines]:
            print_answers(speakers, conversation, group)
            conversation.forget_but(longest - 1)  # a pipe may never end


def print_answers(speakers: Sequence[Speaker], conversation: Conversation, lines: Sequence[str]) -> None:
    """Print the answers to lines none of which is part of the query of another."""
    asked = [line for line in lines if line]
    given = [
        iter(speaker.trained.respond([speaker.query(conversation, line) for line in asked])) for speaker in speakers
    ]
    for line in lines:
        answers = [next(each) if line else "" for each in given]
        if line:
            conversation.add(line, answers[0])
        else:
            conversation.reset()
        for speaker, answer in zip(speakers, answers, strict=True):
            print(answer if len(speakers) == 1 else f"{speaker.name}\t{answer}")
    print(end="", flush=True)


def line_groups(descriptor: int) -> Iterator[list[str]]:
    """Lines without white space around them, as they come: those that are there already together, to be one batch.

    Raises:
        StageError: a line is not UTF-8.
    """
    rest, number = b"", 0
    while part := os.read(descriptor, CHUNK):
        *lines, rest = (rest + part).split(b"\n")
        if lines and number == 0:
            lines[0] = lines[0].removeprefix(BOM_UTF8)
        if lines:
            yield [_decode(line, number + place) for place, line in enumerate(lines, start=1)]
            number += len(lines)
    if rest:
        yield [_decode(rest if number else rest.removeprefix(BOM_UTF8), number + 1)]


def _decode(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise StageError(f"standard input:{number}", "not UTF-8", "save the text as UTF-8") from None
