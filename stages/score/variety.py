"""The paper's two scores of variety (Sec. 4, "Metrics"): shares from 0 to 1; higher means more variety.

Neither notices a response without words: an empty one is not a training turn, so it is novel. `empty` counts them.
"""

from collections.abc import Iterable, Sequence

from stages.records import single_line

DIGITS = 6  # decimals of every score in metrics/


def novelty(responses: Sequence[str], turns: Iterable[str]) -> float:
    """Share of the responses that are not, word for word, a turn of the training regime.

    "The proportion of model outputs on the test set that are not found in the training set": all turns count, queries
    and responses. The amount of white space makes no difference; case and punctuation do.

    >>> novelty(["Yes .", "yes .", "No ."], ["Yes  .", "Why ?"])
    0.6666666666666666
    """
    known = {single_line(turn) for turn in turns}
    return sum(single_line(response) not in known for response in responses) / len(responses)


def diversity(responses: Sequence[str]) -> float:
    """Distinct responses over responses: "the number of unique model outputs divided by the total number".

    >>> diversity(["Yes .", "Yes  .", "No .", "no ."])
    0.75
    """
    return len({single_line(response) for response in responses}) / len(responses)


def empty(responses: Sequence[str]) -> float:
    """Share of the responses that have no words.

    >>> empty(["", " ", "No .", "."])
    0.5
    """
    return sum(not response.strip() for response in responses) / len(responses)
