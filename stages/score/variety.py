"""Variety: the paper's two scores (Sec. 4, "Metrics"), then distinct-n and EAD; higher means more variety.

Novelty and diversity look at whole responses. Neither notices a response without words: an empty one is not a training
turn, so it is novel (diagnostics.py counts them as `empty`). distinct-n and EAD look at words.
"""

from collections.abc import Iterable, Sequence, Set

from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from stages.records import single_line

DIGITS = 6  # decimals of every score in metrics/
VOCABULARY = 50_257  # for EAD: that of GPT-2 and DialoGPT. The same for all runs, so that they can be compared


def novelty(responses: Sequence[str], turns: Iterable[str]) -> float:
    """Share of the responses that are not, word for word, a turn of the training regime.

    "The proportion of model outputs on the test set that are not found in the training set": all turns count, queries
    and responses. The amount of white space makes no difference; case and punctuation do.

    >>> novelty(["Yes .", "yes .", "No ."], ["Yes  .", "Why ?"])
    0.6666666666666666
    """
    known = known_turns(turns)
    return sum(is_novel(response, known) for response in responses) / len(responses)


def known_turns(turns: Iterable[str]) -> Set[str]:
    """The turns of the training regime, in the form that `is_novel` compares."""
    return set(map(single_line, turns))


def is_novel(response: str, known: Set[str]) -> bool:
    """Whether a response is not, word for word, one of the known turns: what `novelty` counts."""
    return single_line(response) not in known


def diversity(responses: Sequence[str]) -> float:
    """Distinct responses over responses: "the number of unique model outputs divided by the total number".

    >>> diversity(["Yes .", "Yes  .", "No .", "no ."])
    0.75
    """
    return len({single_line(response) for response in responses}) / len(responses)


def ngrams(responses: Sequence[str], order: int) -> list[tuple[str, ...]]:
    """All n-grams of the responses, of words as BLEU counts them (13a, case kept); none goes from one to the next."""
    tokenize = Tokenizer13a()  # type: ignore[no-untyped-call]
    tokenized = (tokenize(response).split() for response in responses)
    return [tuple(words[at : at + order]) for words in tokenized for at in range(len(words) - order + 1)]


def distinct(responses: Sequence[str], order: int) -> float:
    """distinct-n (Li et al., NAACL 2016): different n-grams of all responses over their n-grams; 0 if there are none.

    >>> distinct(["I am .", "I do ."], order=1)  # I am . do
    0.6666666666666666
    """
    found = ngrams(responses, order)
    return len(set(found)) / len(found) if found else 0.0


def expectation_adjusted_distinct(responses: Sequence[str], vocabulary: int = VOCABULARY) -> float:
    """EAD (Liu et al., "Rethinking and Refining the Distinct Metric", ACL 2022, arXiv 2202.13587); 0 without words.

    distinct-1 falls as texts get longer, however varied they are. EAD divides the N different words by how many are
    expected of C words drawn evenly from a vocabulary of V: N / (V (1 - ((V - 1) / V) ** C)), which is hardly ever
    above 1. Only methods with the same V can be compared; the authors advise the largest of their models'.

    >>> expectation_adjusted_distinct(["a a a"], vocabulary=2)  # 1 / (2 (1 - 1/8))
    0.5714285714285714
    """
    found = ngrams(responses, 1)
    expected = vocabulary * (1 - ((vocabulary - 1) / vocabulary) ** len(found))
    return len(set(found)) / expected if found else 0.0
