"""What went wrong with the responses: shares of them, from 0 to 1.

`loops`, `echoes` and `unended` see what greedy decoding of an undertrained model does; `empty` and `exact` say how far
to trust two other scores: an empty response counts as novel, and on a corpus that leaks most of BLEU-4 comes from
responses that equal their reference.

People do none of it: of 35,024 different responses in DailyDialog's training dialogues none loops, of 129,974 turns in
ChitChat 0.1 %; 0.1 % of DailyDialog's and 0.3 % of ChitChat's responses echo their query.
"""

import re
from collections.abc import Sequence
from operator import eq

from stages.overlap import LONG, SHARED, words
from stages.records import single_line

WORD = re.compile(r"\w+|[^\w\s]")  # a word, or one punctuation mark
LONG_UNIT, FULL_TIMES = 4, 2  # an n-gram of at least 4 is a loop when it stands there twice,
SHORT_FULL_TIMES, SHORTEST_LOOP = 3, 6  # a shorter one three times, and with at least 6 words and marks in all


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
    units = (unit for unit in range(1, len(tokens) // 2 + 1) if tokens[-unit - 1].startswith(tokens[-1]))
    return any(_loops_by(tokens, unit) for unit in units)


def _loops_by(tokens: Sequence[str], unit: int) -> bool:
    """Whether the end of a response repeats with a period of `unit` tokens, often enough to be a loop."""
    earlier, later = tokens[-unit - 1 :: -1], tokens[::-1]
    same = [earlier[0].startswith(later[0]), *map(eq, earlier[1:], later[1:]), False]
    repeated = unit + same.index(False)
    return repeated >= (FULL_TIMES * unit if unit >= LONG_UNIT else max(SHORT_FULL_TIMES * unit, SHORTEST_LOOP))


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


def diagnostics(
    queries: Sequence[str], references: Sequence[str], responses: Sequence[str], unended: Sequence[bool | None]
) -> dict[str, float | None]:
    """Shares of N responses by their names.

    `empty`: without words. `loops`, `echoes`: by `is_loop` and `is_echo`. `unended`: those that met the length limit
    before they ended; None if that was not recorded for all. `exact`: the reference, but for white space.
    """
    counts = {
        "empty": sum(not response.strip() for response in responses),
        "loops": sum(map(is_loop, responses)),
        "echoes": sum(map(is_echo, queries, responses)),
        "unended": None if None in unended else sum(map(bool, unended)),
        "exact": sum(map(eq, map(single_line, references), map(single_line, responses))),
    }
    return {name: None if count is None else count / len(responses) for name, count in counts.items()}
