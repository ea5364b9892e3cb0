"""Tables of results, declared as lists of columns: a row is a configuration, a cell sums up its rows in the frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from stages.report.markdown import NONE, SPACE, count, plain, spread, table
from stages.report.settings import rates_of

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True)
class Column:
    """A column: its title, and the cell of a configuration, from its rows in the frame (a row a seed)."""

    title: str
    cell: Callable[[pd.DataFrame], str]


def mean(name: str, title: str = "", digits: int = 3, unit: float = 1) -> Column:
    """The mean over seeds with its deviation; in a unit of so many."""
    return Column(title or name, lambda rows: spread((rows[name] / unit).tolist() if name in rows else [], digits))


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
    counted("train.trained_parameters", "trained numbers"), mean("train.seconds", "training, s", 0),
    mean("train.validation_seconds", "validation, s", 0), mean("train.pairs_per_second", "pairs/s", 1),
    mean("train.peak_memory_bytes", "peak memory, GiB", 1, GIB), mean("decode.responses_per_second", "answers/s", 1),
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
RUNS = (
    SEEDS,
    Column("experiment", lambda rows: plain(rows["run"].iloc[0].name)),
    Column("commit", lambda rows: f"`{rows['run'].iloc[0].commit or 'workspace'}`"),
    Column("learning rates", lambda rows: ", ".join(f"{rate:.3g}" for rate in rates_of(rows["run"].iloc[0])) or NONE),
)
SEARCH = (
    mean("search.learning_rate", "best learning rate", 6), counted("search.rates", "rates tried"),
    counted("search.epoch", "epoch"), mean("search.validation_loss", "validation loss"),
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
