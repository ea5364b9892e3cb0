"""Other measures of how near responses are to their references, by sacrebleu: BLEU of changed texts, and chrF.

lower-case: the corpus BLEU of stages/similarity/bleu.py with case overlooked. normalised: with the same typesetting on
both sides.
chrF (Popovic, WMT 2015): the F-score of character n-grams, with all of sacrebleu's defaults, which the signature names.
It sees that "going" is nearly "goes", and depends less on how a text is cut into words than BLEU does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sacrebleu.metrics.chrf import CHRF

from stages.bootstrap import MATCHES, Table, bleu_of_sums, interval, sentence_counts
from stages.score.variety import DIGITS
from stages.similarity.bleu import MAX_ORDER, signature

QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201b\u2032`\u00b4", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
)
RULES = (  # a pattern, and what is put in its place, one after another
    (re.compile(r"(?<=\w) *' *(?=(?:s|t|m|d|ll|re|ve|clock)\b)", re.IGNORECASE), "'"),
    (re.compile(r"(?<=\w) +(?=n't\b)", re.IGNORECASE), ""),
    (re.compile(r"(?<!\w)'|'(?!\w)"), '"'),
)


def normalised(text: str) -> str:
    """A text with plain quotes and apostrophes, these without spaces around them, so that to copy others gains nothing.

    DailyDialog has typesetter's apostrophes between spaces. Spaces around other marks are nothing to BLEU's tokens.

    >>> normalised("I don \u2019 t .")
    "I don't ."
    """
    text = text.translate(QUOTES)
    for pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    return text


VARIANTS: dict[str, tuple[Callable[[str], str], str]] = {  # name -> what is done to texts, and the signature
    "lower-case": (str.lower, signature().replace("case:mixed", "case:lc")),
    "normalised": (normalised, f"{signature()}, apostrophes and quotes normalised"),
}


def bleus(counts: Table) -> dict[str, float]:
    """BLEU-1 to BLEU-4 by name; `counts` [N, 10] of `sentence_counts`."""
    sums = counts.sum(axis=0)
    return {f"bleu{order}": round(float(bleu_of_sums(sums, order)), DIGITS) for order in range(1, MAX_ORDER + 1)}


def bleu4_interval(counts: Table, dialogues: Sequence[str], seed: int) -> list[float] | None:
    """The 95 % interval of BLEU-4; None of a single dialogue, or if no 4-gram matches: all draws are smoothing alone.

    If m of D dialogues have a match, a draw lacks one with (1 - m / D) ** D: less than half of them for any m from 1.
    """
    if not counts[:, MATCHES][:, -1].any():
        return None
    ends = interval(counts, dialogues, bleu_of_sums, seed)
    return ends and [round(end, DIGITS) for end in ends]


def bleu_variants(rows: Mapping[str, Sequence[str]], references: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For each variant its label and, for each row (name -> N responses), its BLEU-1 to BLEU-4."""
    found: dict[str, dict[str, Any]] = {}
    for name, (change, label) in VARIANTS.items():
        changed = [[change(each)] for each in references]
        found[name] = {"label": label}
        for row, texts in rows.items():
            found[name][row] = bleus(sentence_counts([change(each) for each in texts], changed))
    return found


def chrf(responses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus chrF of N responses against their N references, from 0 to 1.

    >>> chrf(["the cat"], ["the cat"])
    1.0
    """
    return float(CHRF().corpus_score(responses, [references]).score) / 100
