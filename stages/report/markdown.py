"""Small pieces of Markdown (CommonMark), how numbers are written, and tables of results as lists of columns.

A row of such a table is a configuration; a cell sums up its rows in the frame. All text from data or models goes
through `plain`.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import pandas as pd

from stages.params.validation import redact
from stages.score.diagnostics import is_loop

NONE = "-"
SPACE = "\u00a0"  # a no-break space
CUT, LOOPS = "(cut)", "(repeats itself)"


def plain(text: str) -> str:
    """Escape a text so that Markdown shows it as it is, in a table too."""
    one_line = re.sub(rf"[^\S{SPACE}]+", " ", text).strip()
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", one_line)


def marks(response: str, cut: bool | None) -> list[str]:
    """What is wrong with a response: it met the length limit, it ends in a loop."""
    return [CUT] * bool(cut) + [LOOPS] * is_loop(response)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; its first `left` columns are aligned left, the others right."""
    lines = [header, ["---" if column < left else "---:" for column in range(len(header))], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def items(lines: Iterable[str]) -> str:
    """A list."""
    return "\n".join(f"- {line}" for line in lines)


def slug(text: str) -> str:
    """Its letters and digits, for the name of a file or the id of a heading.

    A hash is added to a long text, and to one with brackets, as `labels` puts them: it may differ in other signs alone.
    """
    ending = f"-{hashlib.sha256(text.encode()).hexdigest()[:8]}" * ("(" in text or len(text) > 80)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80] + ending


def number(value: float | None, digits: int = 4) -> str:
    """A score, or a dash if there is none; zero has no sign."""
    return NONE if value is None or math.isnan(value) else f"{value:z.{digits}f}"


def percent(share: float) -> str:
    """A percentage with its sign, without a line break between."""
    return f"{share:g}{SPACE}%"


def value(each: object) -> str:
    """A parameter or a metric as it is written in its file; in quotes if white space in it is easily overlooked."""
    if each is None:
        return "null"
    if isinstance(each, str) and (each != each.strip() or "\n" in each):
        return json.dumps(each, ensure_ascii=False)
    return str(each).lower() if isinstance(each, bool) else redact(str(each))


def digits_for(width: float, most: int = 4) -> int:
    """How many digits a number may have whose uncertainty is `width`, those that it does not blur: 2 for 0.09."""
    return most if not width else max(0, min(most, -math.floor(math.log10(width))))


def spread(values: Iterable[float | None], digits: int = 3) -> str:
    """One number as it is; the mean of several with their standard deviation: two digits, and more if it is small."""
    known = [each for each in values if each is not None and not math.isnan(each)]
    around = stdev(known) if len(known) > 1 else 0.0
    if around < 10**-digits / 2:
        return number(known[0] if known else None, digits)
    digits = max(min(2, digits), digits_for(around, digits))  # two, since differences of means are looked at too
    return f"{number(fmean(known), digits)}{SPACE}±{SPACE}{number(around, digits)}"


def ends(low: float, high: float) -> str:
    """An interval: `0.07 to 0.16`, as precise as it is narrow."""
    digits = max(2, digits_for((high - low) / 2))
    return f"{number(low, digits)} to {number(high, digits)}"


def above(difference: float, low: float, high: float) -> str:
    """A difference with its interval: `0.11 above (0.07 to 0.16)`."""
    digits = max(2, digits_for((high - low) / 2))
    return f"{number(abs(difference), digits)} {'above' if difference > 0 else 'below'} ({ends(low, high)})"


def count(value: float | None) -> str:
    """A large number in words of four letters: `1.5M`."""
    if value is None or math.isnan(value):
        return NONE
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.0f}"


def fence(language: str, text: str) -> str:
    """A block of code, in a fence that is longer than any run of backticks in it."""
    marks = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text) or [""]))
    return f"{marks}{language}\n{text.rstrip()}\n{marks}"


MIB, GIB = 2**20, 2**30


class Column(NamedTuple):
    """A column: its title, and the cell of a configuration, from its rows in the frame (a row a seed)."""

    title: str
    cell: Callable[[pd.DataFrame], str]


def mean(name: str, title: str = "", digits: int = 3, unit: float = 1) -> Column:
    """The mean over seeds with its deviation; in a unit of so many."""
    return Column(title or name, lambda rows: spread((rows[name] / unit).tolist() if name in rows else [], digits))


def ranged(name: str, title: str, digits: int = 0) -> Column:
    """The lowest and the highest of the seeds: of machines that differ, and were busy, a mean says nothing."""

    def cell(rows: pd.DataFrame) -> str:
        known = sorted(rows[name].dropna()) if name in rows else []
        told = dict.fromkeys(number(each, digits) for each in (known[:1] + known[-1:]))
        return " to ".join(told) or NONE

    return Column(title, cell)


def bleu(part: str = "", title: str = "BLEU-4") -> Column:
    """BLEU-4, or why there is none: too few 4-grams of the responses stand in their references."""

    def cell(rows: pd.DataFrame) -> str:
        scores, matches = rows[f"{part}bleu4"].dropna().tolist(), rows[f"{part}matches"].dropna().tolist()
        if len(scores) == len(rows):
            return spread(scores, 4)
        few = ", ".join(f"{each:.0f}" for each in matches)
        return f"{NONE} ({few}{SPACE}matching 4-grams)" if few else NONE

    return Column(title, cell)


def counted(name: str, title: str) -> Column:
    """A large number that the seeds share."""
    return Column(title, lambda rows: count(rows[name].max()) if name in rows else NONE)


MODEL = Column("model", lambda rows: plain(rows["model"].iloc[0]))
DATA = Column("data", lambda rows: rows["data"].iloc[0])
METHOD = Column("method", lambda rows: plain(rows["method"].iloc[0]))
SEEDS = Column("seeds", lambda rows: ", ".join(map(str, rows["seed"])))
DECISION = (
    counted("train.trained_parameters", "trained numbers"), mean("train.bytes", "MiB on disk", 1, MIB),
    mean("loss", "test loss"),
)  # fmt: skip
FURTHER = (mean("forgetting.difference", "forgets"), bleu(), mean("novelty"), SEEDS)
COST = (
    counted("train.trained_parameters", "trained numbers"), ranged("train.seconds", "training, s"),
    ranged("train.validation_seconds", "validation, s"), ranged("train.pairs_per_second", "pairs/s", 1),
    mean("train.peak_memory_bytes", "peak memory, GiB", 1, GIB), ranged("decode.responses_per_second", "answers/s", 1),
)  # fmt: skip
LEAK = (
    bleu(), bleu("unseen.", "BLEU-4 of unseen"), bleu("unlike.", "BLEU-4 of unlike"),
    mean("unseen.loss", "loss of unseen"), mean("unlike.loss", "loss of unlike"),
)  # fmt: skip
PAPERS = ("bleu1", "bleu2", "bleu3", "novelty", "diversity")
FURTHER_SCORES = ("distinct1", "distinct2", "ead", "chrf", "relevance", "hits")
OTHERS = tuple(mean(name) for name in (*PAPERS, "empty"))
WENT_WRONG = tuple(mean(name) for name in ("loops", "echoes", "unended", "exact", "mean_words"))
VARIETY = tuple(mean(name) for name in FURTHER_SCORES)
EACH_SEED = (SEEDS, mean("loss", "test loss", 4), bleu(), *OTHERS)
SEARCH = (
    mean("train.learning_rate", "best learning rate", 6), ranged("train.rates", "rates tried"),
    ranged("train.epoch", "epoch"), mean("train.validation_loss", "validation loss"),
    mean("forgetting.difference", "forgetting"),
)  # fmt: skip


def show(frame: pd.DataFrame, columns: Sequence[Column], by: Sequence[str] = ()) -> str:
    """A table: a row a configuration, or each of its parts `by`.

    Model and amount of data are columns only where they differ.
    """
    groups = [rows for _, rows in frame.groupby(["model", "regime", "row", "method", *by], sort=False)]
    differing = [each for each in (MODEL, DATA) if len({each.cell(rows) for rows in groups}) > 1]
    head = [*differing, METHOD]
    cells = ([column.cell(rows) for column in (*head, *columns)] for rows in groups)
    return table([column.title for column in (*head, *columns)], cells, left=len(head))
