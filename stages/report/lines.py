"""The rows that most tables have: a configuration in all its seeds, and below each regime the lookup and people."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from stages.report.markdown import NONE, SPACE, anchor, link, number, percent, plain
from stages.report.runs import Run, Runs
from stages.report.settings import Setting

FIRST = ["regime", "model", "method", "seed"]  # the columns of `Line.words`
LAST = "experiment"  # the column of `Line.link`

Scores = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """A row of a table; the scores in it are means over seeds."""

    regime: float
    model: str  # empty for the lookup and people
    method: str
    row: str  # test | retrieval | human
    runs: Runs

    @property
    def words(self) -> list[str]:
        """The cells at the left."""
        return [percent(self.regime), plain(self.model), plain(self.method), seeds_of(self.runs)]

    @property
    def link(self) -> str:
        """Links to the runs."""
        return links(self.runs) if self.row == "test" else ""

    @property
    def files(self) -> list[Scores]:
        """metrics/scores.json of each run; empty if it is not in DVC's cache."""
        return [run.files.json("metrics/scores.json") or {} for run in self.runs]

    @property
    def scores(self) -> list[Scores]:
        """The scores of all test pairs in `files`, for each run."""
        return [file if self.row == "test" else file.get(self.row, {}) for file in self.files]

    def cell(self, look: Callable[[Run], float | None], digits: int = 4) -> str:
        """A number of each run, as `spread` shows it."""
        return spread([look(run) for run in self.runs], digits)


def lines_of(setting: Setting, baselines: bool = True) -> list[Line]:
    """Every configuration; below each regime, if `baselines`, what the lookup and people score there."""
    lines = []
    for regime in setting.regimes():
        cells = [cell for cell in setting.cells() if cell.regime == regime]
        lines += [Line(regime, cell.model, cell.method, "test", setting.runs[cell]) for cell in cells]
        if baselines:
            lines += [Line(regime, "", row, row, setting.at(regime)) for row in ("retrieval", "human")]
    return lines


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of the numbers that there are."""
    known = [each for each in values if each is not None]
    return fmean(known) if known else None


def deviation(values: Sequence[float | None]) -> float | None:
    """The standard deviation (n - 1) of the numbers that there are; None if there are fewer than two."""
    known = [each for each in values if each is not None]
    return stdev(known) if len(known) > 1 else None


def spread(values: Sequence[float | None], digits: int = 4) -> str:
    """One number as it is; the mean of several, ± their standard deviation."""
    around = deviation(values)
    return number(mean(values), digits) + ("" if around is None else f"{SPACE}±{SPACE}{number(around, digits)}")


def seeds_of(runs: Runs) -> str:
    """The seeds of some runs: `0, 1, 2`."""
    return ", ".join(str(run.switch("seed")) for run in runs)


def links(runs: Runs) -> str:
    """A link to each run: by its name, or, if there are several, by its seed."""
    if len(runs) == 1:
        return link(runs[0].name)
    return ", ".join(f"[seed{SPACE}{run.switch('seed')}](#{anchor(run.name)})" for run in runs)


def interval(bounds: Sequence[float] | None, digits: int = 4) -> str:
    """The bounds of an interval, or a dash."""
    return NONE if not bounds else " to ".join(number(each, digits) for each in bounds)
