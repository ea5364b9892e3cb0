"""A conversation in the terminal, and answers for scripts: a line in, a line out."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from stages.chat.speakers import Speaker, load_speakers
from stages.plumbing.errors import StageError, describe, is_out_of_memory
from stages.records import single_line

HELP = "/compare NAME...: experiments answer too (/compare alone: no longer)  /reset: begin anew  Ctrl-D: end"
JOINERS = "\u200c\u200d"
CHUNK = 1 << 16  # bytes that are read at a time


def printable(text: str) -> str:
    r"""Text with `\x1b` for a control character: a byte-level model can say those that move a terminal's cursor.

    The two joiners stay: Persian, Hindi and families of emoji are other texts without them.
    """
    return "".join(each if each.isprintable() or each in JOINERS else ascii(each)[1:-1] for each in text)


class TerminalChat:
    """One speaker's conversation with a person; others answer too if they are asked to."""

    def __init__(self, root: Path, speakers: Sequence[Speaker]) -> None:
        self.root, self.speakers, self.turns = root, list(speakers), list[str]()

    def run(self) -> None:
        """Talk until Ctrl-D, or until Ctrl-C where nothing is being answered."""
        with suppress(ImportError):  # some builds of Python come without it
            import readline  # noqa: F401  # its import lets input() edit lines and recall earlier ones

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C counts as much as the first
        print(*(speaker.introduction() for speaker in self.speakers), HELP, sep="\n")
        while True:
            try:
                said = input("you> ").strip()
            except (EOFError, KeyboardInterrupt):
                print("\nBye.")
                return
            except UnicodeDecodeError:
                print("what was said: not UTF-8; set the terminal to UTF-8")
                continue
            try:
                if said.startswith("/"):
                    self.command(*said.split())
                elif said:
                    self.answer(said)
            except KeyboardInterrupt:
                print("\n(stopped; as if it had not been asked)")
            except (StageError, OSError, MemoryError, RuntimeError) as error:
                if not isinstance(error, StageError | OSError) and not is_out_of_memory(error):
                    raise
                print(f"\n{describe(error)}")

    def command(self, name: str, *words: str) -> None:
        """/compare, /reset or /help."""
        if name == "/reset":
            self.turns = []
            print("A new conversation.")
        elif name == "/compare":
            self.speakers = load_speakers(self.root, [self.speakers[0].name, *words], self.speakers)
            print(*(speaker.introduction() for speaker in self.speakers), sep="\n")
        else:
            print(HELP if name == "/help" else f"no command {name}; {HELP}")

    def answer(self, said: str) -> None:
        """Print each speaker's answer as it comes; that of the first is then part of the conversation."""
        answers = []
        for speaker in self.speakers:
            print(f"{speaker.name}> ", end="", flush=True)
            query = speaker.query(self.turns, said)
            answer, _ = speaker.answer(query, lambda piece: print(printable(piece), end="", flush=True))
            print("" if answer else "(empty)")
            answers.append(answer)
        self.turns += [single_line(said), answers[0]]


def answer_lines(speakers: Sequence[Speaker], groups: Iterable[list[str]]) -> None:
    """Print an answer for each line of some groups of lines; an empty line gets an empty one.

    Where more than one turn is read as the query, the lines are a conversation, and an empty line begins a new one.
    Otherwise the lines of a group are answered together. With several speakers each answer is a line of its own, behind
    the speaker's name and a tab.
    """
    turns, longest = list[str](), max(speaker.params.pairs.history for speaker in speakers)
    for group in groups:
        for lines in [group] if longest == 1 else [[line] for line in group]:
            columns = []
            for speaker in speakers:
                given = iter(speaker.trained.respond([speaker.query(turns, line) for line in lines if line]))
                columns.append([next(given) if line else "" for line in lines])
            for line, *answers in zip(lines, *columns, strict=True):
                turns = [*turns, single_line(line), answers[0]][-longest:] if line else []  # a pipe may never end
                for speaker, answer in zip(speakers, answers, strict=True):
                    shown = printable(answer) if sys.stdout.isatty() else answer
                    print(shown if len(speakers) == 1 else f"{speaker.name}\t{shown}")
            print(end="", flush=True)


def line_groups(descriptor: int) -> Iterator[list[str]]:
    """Lines without white space around them, as they come: those that are there already together, to be one batch.

    Raises:
        StageError: a line is not UTF-8.
    """
    rest, numbers = b"", count(1)
    while part := os.read(descriptor, CHUNK):
        *lines, rest = (rest + part).split(b"\n")
        if lines:
            yield [_text(line, next(numbers)) for line in lines]
    if rest:
        yield [_text(rest, next(numbers))]


def _text(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig").strip()  # some programs put a mark in front of the first line
    except UnicodeDecodeError:
        raise StageError(f"standard input:{number}", "not UTF-8", "save the text as UTF-8") from None
