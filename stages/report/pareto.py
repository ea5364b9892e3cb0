"""Quality beside cost: validation loss and BLEU-4 of unseen pairs against trained parameters, as one figure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from stages.plumbing.progress import duration
from stages.report.cost import device_of, mean_cost, usual_device
from stages.report.figures import LOOK, fill, method_styles, model_dashes, to_svg
from stages.report.lines import deviation, mean
from stages.report.rates import validation_loss
from stages.report.runs import Run, Runs
from stages.report.settings import Setting

PANELS: dict[str, Callable[[Run], float | None]] = {
    "validation loss (lower is better)": validation_loss,
    "BLEU-4 of unseen pairs (higher is better)": lambda run: run.rows["unseen"].get("bleu4"),
}
LARGEST, SMALLEST = 260.0, 14.0  # area of the marks, square points
Side = Literal["left", "right", "center"]
UNITS = ((9, "G"), (6, "M"), (3, "k"), (0, ""))
FONT_SIZE = 7.5
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
    device = usual_device([run for cell, runs in setting.runs.items() if cell.regime == regime for run in runs])
    styles, dashes = method_styles(setting.methods), model_dashes(setting.models)
    marks = []
    for cell in setting.cells():
        runs = setting.runs[cell]
        parameters = mean([trained_parameters(run) for run in runs])
        if cell.regime == regime and parameters is not None:
            colour, marker = styles[cell.method]
            look = {"marker": marker, "markeredgecolor": colour, **fill(dashes[cell.model], colour)}
            name = cell.method if len(setting.models) == 1 else f"{cell.method}, {cell.model}"
            seconds = mean_cost([run for run in runs if device_of(run) == device], "train", "seconds")
            marks.append(Mark(name, parameters, seconds, runs, look))
    return regime, marks


def explanation(marks: Sequence[Mark]) -> str:
    """What the caption says about how the figure is drawn."""
    said = ["Bars are the standard deviation over seeds."]
    unknown = [mark.name for mark in marks if mark.seconds is None]
    if len(unknown) < len(marks):
        said.append("The area of a mark is the time in training steps.")
    if unknown:
        said.append(f"Not measured, or on another device than most: the time of {', '.join(unknown)}.")
    if not all(mark.parameters for mark in marks):
        said.append("What trains nothing is left of the dotted line, because a logarithmic axis has no zero.")
    return " ".join(said)


def pareto_figure(marks: Sequence[Mark], name: str) -> str:
    """Two panels with one mark for each method, as `explanation` says."""
    longest = max((mark.seconds or 0.0 for mark in marks), default=0.0)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(7.2, 3.7), layout="constrained")
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
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels are placed in the final layout
        for panel, points in drawn:
            place_labels(panel, points, figure.dpi / 72)
        return to_svg(figure, name)


def area(seconds: float | None, longest: float) -> float:
    """The area of a mark: in proportion to the time, but never too small to be seen."""
    return max(SMALLEST, LARGEST * (seconds or 0.0) / longest) if longest else SMALLEST * 3


def size_handle(seconds: float, longest: float) -> Line2D:
    """The legend of one size."""
    size = area(seconds, longest) ** 0.5
    return Line2D([], [], linestyle="none", marker="o", color="#999999", markersize=size, label=duration(seconds))


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


def offsets(size: float) -> Iterator[tuple[float, float, Side]]:
    """Where a label may stand around a mark, best first: x and y in points, the side that is at that place."""
    near = size / 2 + 3
    yield from ((near, 0.0, "left"), (-near, 0.0, "right"), (0.0, near + 4, "center"), (0.0, -near - 4, "center"))
    for step in range(1, 9):
        for y in (near + 11.0 * step, -near - 11.0 * step):
            yield from ((near + 4, y, "left"), (-near - 4, y, "right"), (0.0, y, "center"))


def place_labels(panel: Axes, points: Sequence[tuple[str, float, float, float]], scale: float) -> None:
    """Write the name of each (name, x, y, diameter in points) where it covers no mark, label or edge of the panel."""
    frame = panel.get_window_extent()
    frame = Bbox(frame.get_points() / scale)  # in points, like all sizes here
    marks, taken = [], []
    for name, x, y, size in sorted(points, key=lambda point: point[1:3]):
        across, up = panel.transData.transform((x, y)) / scale
        marks.append((name, (x, y), (across, up), size))
        taken.append(box_at(across, up, size, size, "center"))
    for name, place, (across, up), size in marks:
        measured = panel.text(place[0], place[1], name, fontsize=FONT_SIZE)
        extent = measured.get_window_extent()
        measured.remove()
        for right, above, side in offsets(size):
            box = box_at(across + right, up + above, extent.width / scale + 2, extent.height / scale + 2, side)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        leader = LEADER if abs(above) > size / 2 + 8 else None
        look: dict[str, Any] = {"horizontalalignment": side, "verticalalignment": "center", "fontsize": FONT_SIZE}
        panel.annotate(name, place, (right, above), textcoords="offset points", arrowprops=leader, **look)


def box_at(x: float, y: float, width: float, height: float, side: Side) -> Bbox:
    """A box around a height y whose left or right side, or centre, is at x."""
    left = {"left": x, "right": x - width, "center": x - width / 2}[side]
    return Bbox.from_bounds(left, y - height / 2, width, height)
