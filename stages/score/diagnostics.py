"""What went wrong with the responses: shares of them, from 0 to 1.

`loops`, `echoes` and `unended` see what greedy decoding of an undertrained model does; `empty` and `exact` say how far
to trust two other scores: an empty response counts as novel, and on a corpus that leaks most of BLEU-4 comes from
responses that equal their reference.

People do none of it: of 35,024 different responses in DailyDialog's training dialogues none loops, of 129,974 turns in
ChitChat 0.1 %; 0.1 % of DailyDialog's and 0.3 % of ChitChat's responses echo their query.
"""

import re
from collections.abc import Sequence

from stages.overlap import LONG, SHARED, words
from stages.records import single_line

WORD = re.compile(r"\w+|[^\w\s]")  # a word, or one punctuation mark
LONG_UNIT, FULL_TIMES = 4, 2  # an n-gram of at least 4 is a loop when it stands there twice,
SHORT_FULL_TIMES, SHORTEST_LOOP = 3, 6  # a shorter one three times, and with at least 6 words and marks in all
NAMES = ("empty", "loops", "echoes", "unended", "exact")


def is_loop(response: str) -> bool:
    """Whether a response ends in an n-gram that is repeated up to the end.

    Words and punctuation marks are compared in lower case. The n-gram must stand there in full at least twice if it has
    at least 4 of them; if it is shorter, at least three times and with at least 6 of them in all, so that "..." and
    "no no no" are no loops. Behind the full ones a last one may be cut, even inside a word, as the length limit does.

    >>> is_loop("Oh , I'm sorry . I'm sorry . I'm so")
    True
    >>> is_loop("No , no , no !")
    False
    """
    tokens = WORD.findall(response.lower())
    return any(_loops_by(tokens, unit) for unit in range(1, len(tokens) // 2 + 1))


def _loops_by(tokens: Sequence[str], unit: int) -> bool:
    """Whether the end of a response repeats with a period of `unit` tokens, often enough to be a loop."""
    last = len(tokens) - 1
    start = last - unit
    while start >= 0 and (
        tokens[start] == tokens[start + unit] or (start == last - unit and tokens[start].startswith(tokens[last]))
    ):
        start -= 1
    repeated = last - start
    if unit >= LONG_UNIT:
        return repeated >= FULL_TIMES * unit
    return repeated >= max(SHORT_FULL_TIMES * unit, SHORTEST_LOOP)


def is_echo(query: str, response: str) -> bool:
    """Whether a response repeats its query.

    It does when both are the same words in the same order (case, punctuation and white space are overlooked), or when
    both have at least 6 different words and at least 0.8 of those of one stand in the other: the response copies a part
    of the query, or has the query in it. Words, 6 and 0.8 are those of stages/overlap.py.

    >>> is_echo("That's a good point.", "that 's a good point !")
    True
    """
    if not response.strip():
        return False
    asked, answered = words(query), words(response)
    different = set(asked), set(answered)
    fewer = min(map(len, different))
    return asked == answered or (fewer >= LONG and len(different[0] & different[1]) >= SHARED * fewer)


def empty(responses: Sequence[str]) -> float:
    """Share of the responses that have no words.

    >>> empty(["", " ", "No .", "."])
    0.5
    """
    return sum(not response.strip() for response in responses) / len(responses)


def loops(responses: Sequence[str]) -> float:
    """Share of the responses that end in a loop (`is_loop`)."""
    return sum(map(is_loop, responses)) / len(responses)


def echoes(queries: Sequence[str], responses: Sequence[str]) -> float:
    """Share of the responses that repeat their query (`is_echo`)."""
    return sum(map(is_echo, queries, responses)) / len(responses)


def unended(flags: Sequence[bool | None]) -> float | None:
    """Share of the responses that met the length limit before they ended; None if that was not recorded for all."""
    known = [flag for flag in flags if flag is not None]
    return sum(known) / len(flags) if len(known) == len(flags) else None


def exact(references: Sequence[str], responses: Sequence[str]) -> float:
    """Share of the responses that are their reference, word for word; only white space is overlooked."""
    same = (single_line(one) == single_line(other) for one, other in zip(references, responses, strict=True))
    return sum(same) / len(responses)
