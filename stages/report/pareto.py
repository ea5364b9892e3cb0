"""Quality beside cost: validation loss and BLEU-4 of unseen pairs against trained parameters, as one figure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from stages.report.cost import mean_cost
from stages.report.figures import LOOK, fill, method_styles, model_dashes, to_svg
from stages.report.lines import deviation, mean
from stages.report.rates import validation_loss
from stages.report.runs import Run, Runs
from stages.report.settings import Setting

PANELS = {
    "validation loss (lower is better)": validation_loss,
    "BLEU-4 of unseen pairs (higher is better)": lambda run: run.rows["unseen"]["bleu4"],
}
LARGEST, SMALLEST = 260.0, 14.0  # area of the marks, square points
UNITS = ((9, "G"), (6, "M"), (3, "k"), (0, ""))
LABEL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "annotation_clip": False}
PARETO = """The area of a mark is the training time; bars are the standard deviation over seeds. What trains nothing
stands left of the dotted line, because a logarithmic axis has no zero."""
LEADER = {"arrowstyle": "-", "linewidth": 0.5, "color": "#666666"}


@dataclass(frozen=True)
class Mark:
    """A method of a model: what is drawn in each panel."""

    name: str
    parameters: float
    seconds: float | None
    runs: Runs
    look: dict[str, Any]  # colours and marker


def trained_parameters(run: Run) -> float | None:
    """How many numbers training changed; None if no file says so."""
    for path in ("metrics/cost/train.json", "metrics/train.json"):
        found = (run.files.json(path) or {}).get("trained_parameters")
        if found is not None:
            return float(found)
    return None


def marks_of(setting: Setting) -> tuple[float, list[Mark]]:
    """The regime with the most methods (the largest of several), and its marks."""
    regime = max(setting.regimes(), key=lambda each: (sum(cell.regime == each for cell in setting.runs), each))
    styles, dashes = method_styles(setting.methods), model_dashes(setting.models)
    marks = []
    for cell in setting.cells():
        runs = setting.runs[cell]
        parameters = mean([trained_parameters(run) for run in runs])
        if cell.regime == regime and parameters is not None:
            colour, marker = styles[cell.method]
            look = {"marker": marker, "markeredgecolor": colour, **fill(dashes[cell.model], colour)}
            name = cell.method if len(setting.models) == 1 else f"{cell.method}, {cell.model}"
            marks.append(Mark(name, parameters, mean_cost(runs, "train", "seconds"), runs, look))
    return regime, marks


def pareto_figure(marks: Sequence[Mark], name: str) -> str:
    """Two panels, one mark per method: its area is the training time, its error bar the deviation over seeds.

    A logarithmic axis has no zero: what trains nothing is drawn left of a dotted line, at a tick of its own.
    """
    longest = max((mark.seconds or 0.0 for mark in marks), default=0.0)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.2, 3.7), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(PANELS))
        drawn = []
        for panel, (title, look) in zip(panels, PANELS.items(), strict=True):
            zero = draw_axis(panel, [mark.parameters for mark in marks])
            panel.set(title=title, xlabel="trained parameters")
            points = []
            for mark in sorted(marks, key=lambda each: -(each.seconds or 0.0)):
                values = [look(run) for run in mark.runs]
                if (y := mean(values)) is not None:
                    at, size = mark.parameters or zero, area(mark.seconds, longest) ** 0.5
                    panel.errorbar(
                        at, y, yerr=deviation(values), ecolor="#666666", elinewidth=0.8, capsize=2, fmt="none"
                    )
                    panel.plot(at, y, linestyle="none", markersize=size, alpha=0.8, **mark.look)
                    points.append((mark.name, at, y, size))
            panel.margins(y=0.22)
            drawn.append((panel, points))
        if longest:
            handles = [size_handle(seconds, longest) for seconds in (longest, longest / 4)]
            figure.legend(handles=handles, loc="outside lower center", ncols=2, title="training time", title_fontsize=8)
        canvas.draw()
        figure.set_layout_engine("none")  # labels are placed in the final layout
        for panel, points in drawn:
            place_labels(panel, points, canvas)
        return to_svg(figure, name)


def area(seconds: float | None, longest: float) -> float:
    """The area of a mark: in proportion to the time, but never too small to be seen."""
    return max(SMALLEST, LARGEST * (seconds or 0.0) / longest) if longest else SMALLEST * 3


def size_handle(seconds: float, longest: float) -> Line2D:
    """The legend of one size."""
    size = area(seconds, longest) ** 0.5
    return Line2D([], [], linestyle="none", marker="o", color="#999999", markersize=size, label=f"{seconds:.3g} s")


def draw_axis(panel: Axes, parameters: Sequence[float]) -> float:
    """Set a logarithmic axis for these numbers; returns where a zero is drawn."""
    positive = [each for each in parameters if each]
    low, high = (floor(log10(min(positive))), ceil(log10(max(positive)))) if positive else (0, 1)
    ticks = {10.0**power: engineering(power) for power in range(low, max(high, low + 1) + 1)}
    zero = 10.0 ** (low - 1)
    if len(positive) < len(parameters):
        panel.axvline(10.0 ** (low - 0.5), color="#666666", linestyle=":", linewidth=1.0)
        ticks = {zero: "0", **ticks}
    panel.set_xscale("log")
    panel.set_xticks(list(ticks), list(ticks.values()))
    panel.minorticks_off()
    panel.set_xlim(min(ticks) / 10**0.5, max(ticks) * 10**0.5)
    return zero


def engineering(power: int) -> str:
    """A power of ten: `10k` for 4."""
    exponent, letter = next((each for each in UNITS if power >= each[0]), UNITS[-1])
    return f"{10 ** (power - exponent)}{letter}"


def offsets(size: float) -> Iterator[tuple[float, float, str]]:
    """Where a label may stand around a mark, best first: x and y in points, the side that is at that place."""
    near = size / 2 + 3
    yield from ((near, 0.0, "left"), (-near, 0.0, "right"), (0.0, near + 4, "center"), (0.0, -near - 4, "center"))
    for step in range(1, 9):
        for y in (near + 11.0 * step, -near - 11.0 * step):
            yield from ((near + 4, y, "left"), (-near - 4, y, "right"), (0.0, y, "center"))


def place_labels(panel: Axes, points: Sequence[tuple[str, float, float, float]], canvas: FigureCanvasAgg) -> None:
    """Write the name of each (name, x, y, diameter in points) where it covers no mark, label or edge of the panel."""
    frame, scale, taken = panel.get_window_extent(), panel.get_figure(root=True).dpi / 72, []
    for _, x, y, size in points:
        left, bottom = panel.transData.transform((x, y)) - size * scale / 2
        taken.append(Bbox.from_bounds(left, bottom, size * scale, size * scale))
    for name, x, y, size in sorted(points, key=lambda point: point[1:3]):
        for number, (right, up, side) in enumerate(offsets(size)):
            leader = LEADER if number >= 4 else None
            label = panel.annotate(
                name,
                (x, y),
                (right, up),
                horizontalalignment=side,
                verticalalignment="center",
                arrowprops=leader,
                **LABEL,
            )
            box = Text.get_window_extent(label, canvas.get_renderer())  # without the leader
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
            label.remove()
        else:
            continue
        taken.append(box)
