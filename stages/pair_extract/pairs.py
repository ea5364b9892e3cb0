"""Pairs of a query and its response: "every two steps in a conversation" (Sec. 4)."""

from collections.abc import Iterable, Iterator

from stages.params.schema import Pairs
from stages.records import Dialogue, Pair, single_line


def pairs_of(dialogue: Dialogue, settings: Pairs) -> tuple[list[Pair], int]:
    """The pairs of one dialogue, and the number of pairs skipped because one of their two turns is empty.

    Turns t0 t1 t2 t3 t4 give (t0, t1), (t2, t3) with stride 2 and (t0, t1), (t1, t2), (t2, t3), (t3, t4) with
    stride 1; where an assistant answers (`roles`), the stride is always 2. Skipping a pair does not change the
    positions of the others. With a history of h, the query is the last h turns before the response, joined; empty turns
    are left out.
    """
    turns, pairs = dialogue.turns, []
    positions = range(0, len(turns) - 1, 2 if getattr(dialogue, "roles", False) else settings.stride)
    for at in positions:
        if turns[at] and turns[at + 1]:
            before = filter(None, turns[max(0, at + 1 - settings.history) : at + 1])
            query = single_line(settings.joined_by.join(before))
            pairs.append(Pair(dialogue.dialogue, at, query, turns[at + 1]))
    return pairs, len(positions) - len(pairs)


def each_pair(dialogues: Iterable[Dialogue], settings: Pairs, counts: dict[str, int]) -> Iterator[Pair]:
    """The pairs of one split, one after another; what is counted for the report is added to `counts`."""
    names = ("dialogues", "turns", "pairs", "dialogues_without_pair", "pairs_skipped_for_empty_turn")
    counts |= dict.fromkeys(names, 0)
    for dialogue in dialogues:
        found, skipped = pairs_of(dialogue, settings)
        counts["dialogues"] += 1
        counts["turns"] += sum(1 for turn in dialogue.turns if turn)
        counts["pairs"] += len(found)
        counts["dialogues_without_pair"] += not found
        counts["pairs_skipped_for_empty_turn"] += skipped
        yield from found
