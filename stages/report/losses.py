"""The loss of the test references: what each model gives, and how far it is above the best one."""

from collections.abc import Iterator
from itertools import groupby

from stages.report.answers import Answers, NotMeasured
from stages.report.claims import counted
from stages.report.lines import FIRST, LAST, Line, lines_of, mean
from stages.report.markdown import NONE, table
from stages.report.scores import parts_of, with_interval
from stages.report.settings import Setting

LOSS = """How likely a model finds what people answered: the mean loss of a token of the test references, in nats, the
lower the better. Nothing was chosen with these pairs. *Above the best*: the difference on all pairs to the lowest loss
of the same model and regime, among the configurations with the most seeds, with the middle 95 % of a bootstrap that
draws test pairs, and seeds if there are several. Only seeds that both were run with count. With one seed it is about
these training runs."""


def losses_table(setting: Setting, answers: Answers) -> Iterator[str]:
    """A row for each configuration; the best of its model and regime is named."""
    lines = lines_of(setting, baselines=False)
    if not any(loss_of(line) for line in lines):
        yield "Not measured: these runs are older than this loss."
        return
    rows = []
    for _, group in groupby(lines, lambda line: (line.regime, line.model)):
        own = list(group)
        best = best_of(own)
        for line in own:
            parts = zip(*(parts_of(run, "test") for run in line.runs), strict=True)
            gap = "**the best**" if line is best else above(line, best, answers)
            rows.append([*line.words, *(with_interval(list(each), "loss") for each in parts), gap, line.link])
    yield LOSS
    header = ["loss of all", "of unseen", "of unlike", "above the best", LAST]
    yield table([*FIRST, *header], rows, left=len(FIRST))


def loss_of(line: Line) -> float | None:
    """The mean over seeds of the loss on all test pairs; None if it is not known of each."""
    found = [parts_of(run, "test")[0].get("loss") for run in line.runs]
    return None if None in found else mean(found)


def best_of(lines: list[Line]) -> Line | None:
    """The line with the lowest loss, of those with the most seeds: a mean over few may be luck."""
    known = [(-len(line.runs), loss, at) for at, line in enumerate(lines) if (loss := loss_of(line)) is not None]
    return lines[min(known)[-1]] if known else None


def above(line: Line, best: Line | None, answers: Answers) -> str:
    """How far a loss is above the best one; a dash if it cannot be said, as with other test pairs."""
    if best is None:
        return NONE
    try:
        found, seeds = answers.compare_losses(line.runs, best.runs, "all")
    except NotMeasured:
        return NONE
    shared = "" if seeds == len(line.runs) == len(best.runs) else f", {counted(seeds)}"
    return f"{found.first - found.second:.4f} ({found.low:.4f} to {found.high:.4f}{shared})"
