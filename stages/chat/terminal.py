"""A conversation in the terminal."""

import signal
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stages.chat.conversation import Conversation
from stages.chat.speaker import Speaker, load_speakers
from stages.plumbing.errors import StageError, one_line

HELP = "/compare NAME...: experiments answer beside it (/compare alone: no longer)  /reset: begin anew  Ctrl-D: end"
YOU = "you> "
JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    """Text without control characters: a byte-level model can say those that move a terminal's cursor.

    The two joiners stay: Persian, Hindi and families of emoji are other texts without them.
    """
    return "".join(character for character in text if character.isprintable() or character in JOINERS)


class TerminalChat:
    """One speaker's conversation with a person, others answering beside it if asked to."""

    def __init__(self, root: Path, speakers: Sequence[Speaker], console: Console | None = None) -> None:
        self.root, self.speakers = root, list(speakers)
        self.console = console or Console(highlight=False, markup=False, emoji=False)
        self.conversation = Conversation()
        self.last = ""  # what the person said last

    def run(self) -> None:
        """Talk until Ctrl-D, or until Ctrl-C where nothing is being answered."""
        import readline  # noqa: F401  # its import lets input() edit lines and recall earlier ones

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C counts as much as the first
        for speaker in self.speakers:
            self.console.print(Text(speaker.introduction(), style="bold"))
        self.console.print(Text(HELP, style="dim"))
        while True:
            try:
                said = input(YOU).strip()
                said.encode()  # where the locale is not UTF-8, Python reads other bytes as lone surrogates
            except (EOFError, KeyboardInterrupt):
                self.console.print("\nBye.")
                return
            except UnicodeError:
                self.console.print("That line is not UTF-8.")
                continue
            self.turn(said)

    def turn(self, said: str) -> None:
        """One line of the person: a command, something to answer, or nothing."""
        try:
            if said.startswith("/"):
                self.command(said)
            elif said:
                self.answer(said)
        except KeyboardInterrupt:
            self.console.print(Text("(stopped; as if it had not been asked)", style="dim"))
        except StageError as error:
            self.console.print(Text(one_line(str(error)), style="red"))

    def command(self, said: str) -> None:
        """/compare, /reset or /help."""
        name, *words = said.split()
        if name == "/reset":
            self.conversation.reset()
            self.last = ""
            self.console.print(Text("A new conversation.", style="dim"))
        elif name == "/compare":
            self.compare(words)
        else:
            self.console.print(Text(HELP if name == "/help" else f"no command {name}; {HELP}", style="dim"))

    def compare(self, names: Sequence[str]) -> None:
        """Let experiments answer beside the first speaker from now on, what was said last included."""
        known = {speaker.name: speaker for speaker in self.speakers}
        fresh = [name for name in dict.fromkeys(names) if name not in known]
        if fresh:
            self.console.print(Text(f"loading {', '.join(fresh)} ...", style="dim"))
        known |= {speaker.name: speaker for speaker in load_speakers(self.root, fresh, self.speakers)}
        first = self.speakers[0]
        self.speakers = [first, *(known[name] for name in dict.fromkeys(names) if name != first.name)]
        if self.last and len(self.speakers) > 1:
            turns = self.conversation.turns.copy()
            del self.conversation.turns[-2:]  # they are answered once more, with the others beside them
            try:
                self.answer(self.last)
            finally:
                self.conversation.turns = turns

    def answer(self, said: str) -> None:
        """Print the answer as it comes, or all speakers' answers side by side; then it is part of the conversation."""
        first = self.speakers[0]
        if len(self.speakers) == 1:
            self.console.print(Text(f"{first.params.method}> ", style="cyan"), end="")
            try:
                answer = first.answer(first.query(self.conversation, said), self._show)
            finally:
                self.console.print()
            if not printable(answer):
                self.console.print(Text("(empty)", style="dim"))
        else:
            table = Table(expand=True, show_lines=False)
            answers = []
            for speaker in self.speakers:
                table.add_column(Text(speaker.label()), ratio=1, overflow="fold")
                answers.append(speaker.answer(speaker.query(self.conversation, said)))
            table.add_row(*(Text(printable(each) or "(empty)") for each in answers))
            self.console.print(table)
            answer = answers[0]
        self.conversation.add(said, answer)
        self.last = said

    def _show(self, piece: str) -> None:
        self.console.file.write(printable(piece))
        self.console.file.flush()
