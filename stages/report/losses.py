"""The loss of the test references: what each model gives, and how far it is above the best one."""

from collections.abc import Iterator
from itertools import groupby

from stages.report.answers import Answers, NotMeasured
from stages.report.lines import FIRST, LAST, Line, Scores, interval, lines_of, mean, spread
from stages.report.markdown import NONE, SPACE, table
from stages.report.scores import parts_of
from stages.report.settings import Setting

LOSS = """How likely a model finds what people answered: the mean loss of a token of the test references, in nats, the
lower the better. Nothing was chosen with these pairs. *Above the best*: the difference to the lowest loss of the same
model and regime on all pairs, with the middle 95 % of a bootstrap that draws test pairs, and seeds if there are
several. With one seed it is about these training runs."""


def losses_table(setting: Setting, answers: Answers) -> Iterator[str]:
    """A row for each configuration whose loss is known; the best of its model and regime in bold."""
    known = [line for line in lines_of(setting, baselines=False) if None not in losses_of(line)]
    if not known:
        yield "Not measured: these runs are older than this loss."
        return
    rows = []
    for _, group in groupby(known, lambda line: (line.regime, line.model)):
        lines = list(group)
        best = min(lines, key=lambda line: mean(losses_of(line)) or 0.0)
        for line in lines:
            parts = zip(*(parts_of(run, "test") for run in line.runs), strict=True)
            cells = [with_interval(list(each)) for each in parts]
            gap = "**the best**" if line is best else above(line, best, answers)
            rows.append([*line.words, *cells, gap, line.link])
    yield LOSS
    header = ["loss of all", "of unseen", "of unlike", "above the best", LAST]
    yield table([*FIRST, *header], rows, left=len(FIRST))


def losses_of(line: Line) -> list[float | None]:
    """The loss on all test pairs of each run."""
    return [file.get("loss") for file in line.files]


def above(line: Line, best: Line, answers: Answers) -> str:
    """How far a loss is above the best one, with its interval; a dash if their answers are not at hand."""
    try:
        found = answers.compare_losses(line.runs, best.runs, "all")
    except NotMeasured:
        return NONE
    return f"{found.first - found.second:.4f} ({found.low:.4f}{SPACE}to{SPACE}{found.high:.4f})"


def with_interval(parts: list[Scores]) -> str:
    """The loss; of a single run also its interval."""
    bounds = parts[0].get("loss_interval") if len(parts) == 1 else None
    return spread([each.get("loss") for each in parts]) + (f" ({interval(bounds)})" if bounds else "")
