"""The figures, as SVG with the same bytes at every run.

Colour and marker show the method, so that a grey print works and so do the eyes of the colour-blind.
"""

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.report.compare import Gap
from stages.report.markdown import count
from stages.report.settings import method_styles

LOOK: Any = {
    "svg.fonttype": "none",  # keeps text as text, so that it can be searched, selected and read aloud
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],  # matplotlib contains the first
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "lines.linewidth": 1.5,
    "lines.markersize": 6,
    "legend.frameon": False,
}
WIDTH, LETTERS = 7.2, 70  # inches; letters of a title in a line
LABELS = {"regime": "training dialogues, %", "loss": "test loss"}  # of axes; others are called as their column

Draw = Callable[[Axes, Any], None]
Texts = tuple[str, str]


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its file, what it shows, the SVG."""

    name: str
    caption: str
    svg: str


def to_svg(figure: Figure, name: str) -> str:
    """The figure as a small SVG element for a page: no date, and ids that are not random and unique on the page."""
    buffer = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    # A style would apply to the whole page; nothing refers to groups, and nobody sees thousandths of a point.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(
        r"<style.*?</style>|<!--.*?-->|(?<=<g) id=\"[^\"]*\"|transform=\"rotate\(-0 .*?\"", "", svg, flags=re.DOTALL
    )
    svg = re.sub(r"(\d\.\d\d)\d+(?=[^<>]*>)", r"\1", svg)  # inside tags, not in what is read
    family, *_ = re.findall(r"font-family: [^;]*; ", svg) or [""]  # once, not at each text
    svg = svg.replace(family, "").replace("<svg ", f'<svg style="{family.strip()}" ', 1)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>f{hashlib.sha256(name.encode()).hexdigest()[:6]}", svg)
    return re.sub(r"\s*\n\s*", "\n", svg).strip() + "\n"


def drawn(
    panels: dict[str, Any], draw: Draw, axes: Texts, picture: Texts, heights: Sequence[float] = (), columns: int = 2
) -> Picture:
    """A figure of `panels`: the title of each, and what `draw` draws into it.

    axes: what stands there. picture: name and caption. heights: of each row of panels, in inches; 3 if they are not
    given. columns: at most side by side.
    """
    name, caption = picture
    columns = min(columns, len(panels))
    heights = heights or [3.0] * -(-len(panels) // columns)
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(WIDTH, sum(heights) + 0.6), layout="constrained")
        every = list(figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).flat)
        for spare in every[len(panels) :]:
            spare.remove()
        handles: dict[str, Any] = {}
        for panel, (title, content) in zip(every, panels.items(), strict=False):
            draw(panel, content)
            panel.set_title(fill(title, LETTERS // columns), loc="left")
            panel.set(xlabel=axes[0], ylabel=axes[1])
            handles |= {str(label): handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)
        return Picture(name, caption, to_svg(figure, name))


def panels_of(frame: pd.DataFrame, by: Sequence[str] = ("model", "data")) -> dict[str, pd.DataFrame]:
    """The rows of each model and amount of data, by the title of their panel."""
    return {", ".join(map(str, names)): rows for names, rows in frame.groupby([*by], sort=False)}


def lines(frame: pd.DataFrame, x: str, y: str, picture: Texts) -> Picture:
    """A line a method: the mean of y at each x, with its deviation over seeds."""
    styles = method_styles(frame["method"].unique())

    def draw(panel: Axes, rows: pd.DataFrame) -> None:
        for method, some in rows.groupby("method", sort=False):
            colour, marker = styles[str(method)]
            means = some.groupby(x)[y].agg(["mean", "std"]).fillna(0)  # no deviation of one seed
            panel.errorbar(means.index, means["mean"], means["std"], color=colour, marker=marker, label=str(method))
        if x == "learning_rate":
            panel.set_xscale("log")
        else:
            panel.locator_params(axis="x", integer=True)  # no half epochs

    panels = panels_of(frame, ["model"] if x == "regime" else ["model", "data"])
    return drawn(panels, draw, (LABELS.get(x, x.replace("_", " ")), LABELS.get(y, y.replace("_", " "))), picture)


def forest(groups: dict[str, list[Gap]]) -> Picture:
    """A panel for each title: a row a method, how far its test loss is above the reference's."""

    def draw(panel: Axes, gaps: list[Gap]) -> None:
        styles = method_styles([gap.cell.method for gap in gaps])
        ordered = sorted(gaps, key=lambda gap: gap.value, reverse=True)
        beside: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "fontsize": 8}
        for row, gap in enumerate(ordered):
            colour, marker = styles[gap.cell.method]
            panel.plot(gap.interval, [row, row], color=colour)
            panel.plot(gap.value, row, color=colour, marker=marker, linestyle="")
            numbers = count(gap.runs[0].numbers.get("train.trained_parameters"))
            panel.annotate(numbers, (1.01, row), va="center", **beside)
        panel.annotate("trained", (1.01, len(ordered) - 0.3), **beside)
        panel.axvline(0, color="#444444", linewidth=1)
        panel.set_ylim(-0.6, len(ordered) - 0.4)
        panel.set_yticks(range(len(ordered)), [gap.cell.method for gap in ordered])

    picture = "forest", "How far the test loss of each method is above the reference's, with its 95 % interval"
    references = dict.fromkeys(gap.cell.method for gaps in groups.values() for gap in gaps if gap.is_reference)
    axes = f"test loss above {' or '.join(references)}, nats a token (lower is better)", ""
    return drawn(groups, draw, axes, picture, [0.8 + 0.27 * len(gaps) for gaps in groups.values()], columns=1)


def forgetting(frame: pd.DataFrame, picture: Texts) -> Picture:
    """What was forgotten against the test loss, a mark a configuration: the mean over its seeds, with their spread."""
    styles = method_styles(frame["method"].unique())

    def draw(panel: Axes, rows: pd.DataFrame) -> None:
        for method, some in rows.groupby("method", sort=False)[["loss", "forgetting.difference"]]:
            colour, marker = styles[str(method)]
            (x, y), (wide, high) = some.mean(), some.std().fillna(0)
            panel.errorbar(x, y, high, wide, color=colour, marker=marker, linestyle="", label=str(method))
        panel.margins(0.12)

    axes = "test loss", "forgetting: loss on other prose, rise in nats"
    return drawn(panels_of(frame), draw, axes, picture)
