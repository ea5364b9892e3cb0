"""A conversation in the terminal, and answers for scripts: a line in, a line out."""

import os
import signal
import sys
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.chat.speakers import Conversation, Speaker, load_speakers
from stages.plumbing.errors import StageError, one_line

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
        self.root, self.speakers = root, list(speakers)
        self.conversation = Conversation()

    def run(self) -> None:
        """Talk until Ctrl-D, or until Ctrl-C where nothing is being answered."""
        import readline  # noqa: F401  # its import lets input() edit lines and recall earlier ones

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C counts as much as the first
        print(*(speaker.introduction() for speaker in self.speakers), HELP, sep="\n")
        while True:
            try:
                said = input("you> ").strip()
            except (EOFError, KeyboardInterrupt):
                print("\nBye.")
                return
            self.turn(said)

    def turn(self, said: str) -> None:
        """One line of the person: a command, something to answer, or nothing."""
        try:
            if said.startswith("/"):
                self.command(*said.split())
            elif said:
                self.answer(said)
        except KeyboardInterrupt:
            print("\n(stopped; as if it had not been asked)")
        except StageError as error:
            print(one_line(str(error)))

    def command(self, name: str, *words: str) -> None:
        """/compare, /reset or /help."""
        if name == "/reset":
            self.conversation = Conversation()
            print("A new conversation.")
        elif name == "/compare":
            first = self.speakers[0]
            known = {speaker.name: speaker for speaker in self.speakers}
            fresh = load_speakers(self.root, [word for word in words if word not in known], self.speakers)
            known |= {speaker.name: speaker for speaker in fresh}
            self.speakers = [first, *(known[word] for word in dict.fromkeys(words) if word != first.name)]
            print(*(speaker.introduction() for speaker in self.speakers), sep="\n")
        else:
            print(HELP if name == "/help" else f"no command {name}; {HELP}")

    def answer(self, said: str) -> None:
        """Print each speaker's answer as it comes; that of the first is then part of the conversation."""
        answers = []
        for speaker in self.speakers:
            print(f"{speaker.name}> ", end="", flush=True)
            answers.append(speaker.answer(speaker.query(self.conversation, said), show))
            print("" if printable(answers[-1]) else "(empty)")
        self.conversation.add(said, answers[0])


def show(piece: str) -> None:
    """Print a piece of an answer at once."""
    print(printable(piece), end="", flush=True)


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
            del conversation.turns[: max(0, len(conversation.turns) - longest + 1)]  # a pipe may never end


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
            conversation.turns.clear()
        for speaker, answer in zip(speakers, answers, strict=True):
            shown = printable(answer) if sys.stdout.isatty() else answer
            print(shown if len(speakers) == 1 else f"{speaker.name}\t{shown}")
    print(end="", flush=True)


def line_groups(descriptor: int) -> Iterator[list[str]]:
    """Lines without white space around them, as they come: those that are there already together, to be one batch.

    Raises:
        StageError: a line is not UTF-8.
    """
    decoder, rest, number = getincrementaldecoder("utf-8-sig")(), "", 1
    try:
        while part := os.read(descriptor, CHUNK):
            *lines, rest = (rest + decoder.decode(part)).split("\n")
            if lines:
                yield [line.strip() for line in lines]
                number += len(lines)
        rest += decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        number += error.object[: error.start].count(b"\n")
        raise StageError(f"standard input:{number}", "not UTF-8", "save the text as UTF-8") from None
    if rest:
        yield [rest.strip()]
