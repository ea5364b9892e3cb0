"""What was said, and what of it a method reads as its query: as many turns as it was trained with."""

from dataclasses import dataclass, field

from stages.params.schema import Pairs
from stages.records import composed, single_line


@dataclass
class Conversation:
    """The turns so far, the person's and the model's in turn."""

    turns: list[str] = field(default_factory=list)

    def query(self, text: str, settings: Pairs) -> str:
        """What stands before the next response: the last `history` turns, `text` the last of them, joined.

        Built as stages/pair_extract/pairs.py builds the queries of training.
        """
        before = [*self.turns, text][-settings.history :]
        return single_line(composed(settings.joined_by.join(turn for turn in before if turn)))

    def add(self, text: str, answer: str) -> None:
        """A turn of the person and the answer to it."""
        self.turns += [single_line(text), answer]

    def forget_but(self, turns: int) -> None:
        """Keep only so many of the last turns."""
        del self.turns[: max(0, len(self.turns) - turns)]

    def reset(self) -> None:
        """Begin anew."""
        self.turns.clear()
