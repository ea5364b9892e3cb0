"""The figures, as SVG with the same bytes at every run.

Colour and marker show the method, so that a grey print works and so do the eyes of the colour-blind.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stages.report.answer import Gap
from stages.report.frame import best_of, by_loss, run_numbers, trials_of
from stages.report.markdown import count, percent
from stages.report.settings import Setting, method_styles, paper_scores

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
WIDTH = 7.2  # inches
RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}


@dataclass(frozen=True)
class Picture:
    """A figure: the name of its file, what it shows, the SVG."""

    name: str
    caption: str
    svg: str


def to_svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: no date, and ids that are not random and unique on the page."""
    buffer = io.StringIO()
    matplotlib.rcParams["svg.hashsalt"] = name
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # a style would apply to the whole page
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", svg[svg.index("<svg") :])
    return re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE).strip() + "\n"


def canvas(panels: int, height: float, columns: int = 2, legend: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure with so many panels of a height in inches, and room for a legend below."""
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure(figsize=(WIDTH, rows * height + legend), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.remove()
    return figure, axes[:panels]


def legend_of(figure: Figure, axes: Sequence[Axes]) -> None:
    """One legend for all panels."""
    handles: dict[str, Any] = {}
    for panel in axes:
        handles |= {str(label): handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8)


def forest(groups: Sequence[tuple[str, str, list[Gap]]], name: str) -> str:
    """A panel for each (title, reference, gaps): a row a method, how far its test loss is above the reference's."""
    with matplotlib.rc_context(LOOK):
        height = 0.8 + 0.27 * max(len(gaps) for _, _, gaps in groups)
        figure, axes = canvas(len(groups), height, columns=1)
        for panel, (title, reference, gaps) in zip(axes, groups, strict=True):
            styles = method_styles([gap.cell.method for gap in gaps])
            ordered = sorted(gaps, key=lambda gap: gap.value, reverse=True)
            for place, gap in enumerate(ordered):
                colour, marker = styles[gap.cell.method]
                ends = [gap.found.found.low, gap.found.found.high] if gap.found else [0.0, 0.0]
                panel.plot(ends, [place, place], color=colour)
                panel.plot(gap.value, place, color=colour, marker=marker, linestyle="")
                numbers = count(run_numbers(gap.runs[0])["parameters"])
                panel.annotate(numbers, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            panel.annotate("trained", (1.01, len(ordered) - 0.3), xycoords=("axes fraction", "data"), fontsize=8)
            panel.axvline(0, color="#444444", linewidth=1)
            panel.set_yticks(range(len(ordered)), [gap.cell.method for gap in ordered])
            panel.set_title(title, loc="left")
            panel.set_xlabel(f"test loss above {reference}, nats a token (lower is better)")
        return to_svg(figure, name)


def by_regime(frame: pd.DataFrame, name: str) -> str:
    """The test loss of each method against the fraction of the data, a panel a model."""
    own = frame[frame["row"] == "test"]
    styles = method_styles(list(dict.fromkeys(own["method"])))
    with matplotlib.rc_context(LOOK):
        figure, axes = canvas(own["model"].nunique(), 3.0, legend=0.6)
        for panel, (model, rows) in zip(axes, own.groupby("model", sort=False), strict=True):
            for method, some in rows.groupby("method", sort=False):
                means = some.groupby("regime")["loss"].agg(["mean", "std"]).fillna(0)
                colour, marker = styles[str(method)]
                panel.errorbar(means.index, means["mean"], means["std"], color=colour, marker=marker, label=str(method))
            panel.set_title(str(model), loc="left")
            panel.set_xlabel("training dialogues, %")
            panel.set_ylabel("test loss")
        legend_of(figure, axes)
        return to_svg(figure, name)


def scatter(frame: pd.DataFrame, x: str, y: str, words: tuple[str, str], name: str) -> str:
    """One number against another, a mark a configuration: the mean over its seeds, with their spread."""
    own = frame[frame["row"] == "test"].dropna(subset=[x, y])
    styles = method_styles(list(dict.fromkeys(own["method"])))
    groups = list(own.groupby(["model", "regime"], sort=False))
    with matplotlib.rc_context(LOOK):
        figure, axes = canvas(len(groups), 3.2, legend=0.6)
        for panel, ((model, regime), rows) in zip(axes, groups, strict=True):
            for method, some in rows.groupby("method", sort=False):
                colour, marker = styles[str(method)]
                across, up = (some[key].astype(float) for key in (x, y))
                spreads = {"xerr": across.std(), "yerr": up.std()} if len(some) > 1 else {}
                panel.errorbar(
                    across.mean(), up.mean(), **spreads, color=colour, marker=marker, linestyle="", label=str(method)
                )
            panel.set_title(f"{model}, {percent(regime)}", loc="left")
            panel.set_xlabel(words[0])
            panel.set_ylabel(words[1])
            panel.margins(0.12)
        legend_of(figure, axes)
        return to_svg(figure, name)


def leak(frame: pd.DataFrame, name: str, papers: bool) -> str:
    """BLEU-4 of all test pairs and of those unlike training, a row a method, on a logarithmic axis."""
    groups = list(frame[frame["row"] != "human"].groupby(["model", "regime"], sort=False))
    best = max(scores["bleu4"] for scores in paper_scores().values())
    with matplotlib.rc_context(LOOK):
        figure, axes = canvas(len(groups), 2.9, legend=0.5)
        for panel, ((model, regime), rows) in zip(axes, groups, strict=True):
            means = rows.groupby("method", sort=False)[["bleu4", "bleu4_unlike"]].mean().dropna(how="all")[::-1]
            for place, (_, row) in enumerate(means.iterrows()):
                panel.plot(row.tolist(), [place, place], color="#999999", linewidth=1)
            for column, look, word in (
                ("bleu4", "o", "all test pairs"),
                ("bleu4_unlike", "D", "pairs unlike training"),
            ):
                panel.plot(
                    means[column], range(len(means)), look, label=word, color="#0072B2" if look == "o" else "#D55E00"
                )
            if papers:
                panel.axvline(best, color="#444444", linestyle=":", label="the paper's best")
            panel.set_xscale("log")
            panel.set_yticks(range(len(means)), [str(each) for each in means.index])
            panel.set_title(f"{model}, {percent(regime)}", loc="left")
            panel.set_xlabel("BLEU-4")
        legend_of(figure, axes)
        return to_svg(figure, name)


def rates(setting: Setting, name: str) -> str:
    """What selected, against the learning rate: a panel a model and fraction, a line a method; rings mark the best."""
    styles = method_styles(setting.methods)
    groups = [each for each in setting.groups() if any(len(trials_of(setting.runs[cell][0])) > 1 for cell in each[2])]
    with matplotlib.rc_context(LOOK):
        figure, axes = canvas(len(groups), 3.0, legend=0.6)
        for panel, (model, regime, cells) in zip(axes, groups, strict=True):
            for cell in cells:
                for run in setting.runs[cell]:
                    key = "validation_loss" if by_loss(run) else "bleu4"
                    found = [trial for trial in trials_of(run) if trial["learning_rate"] and trial.get(key) is not None]
                    if found:
                        colour, marker = styles[cell.method]
                        points = [[trial[at] for trial in found] for at in ("learning_rate", key)]
                        panel.plot(*points, color=colour, marker=marker, label=cell.method, alpha=0.8)
                        best = best_of(run, found)
                        panel.plot(best["learning_rate"], best[key], linestyle="", **RING)
            panel.set_xscale("log")
            panel.set_title(f"{model}, {percent(regime)}", loc="left")
            panel.set_xlabel("learning rate")
            panel.set_ylabel("validation loss" if by_loss(setting.any_run) else "validation BLEU-4")
        legend_of(figure, axes)
        return to_svg(figure, name)


def curves(setting: Setting, name: str) -> str:
    """Validation loss by epoch of the chosen trial, the mean over seeds, a line a method."""
    styles, groups = method_styles(setting.methods), setting.groups()
    with matplotlib.rc_context(LOOK):
        figure, axes = canvas(len(groups), 3.0, legend=0.6)
        for panel, (model, regime, cells) in zip(axes, groups, strict=True):
            for cell in cells:
                points: dict[int, list[float]] = {}
                for run in setting.runs[cell]:
                    rate = best_of(run, trials_of(run)).get("learning_rate")
                    for each in run.metrics("curves") or []:
                        if each["learning_rate"] == rate and each.get("validation_loss") is not None:
                            points.setdefault(each["epoch"], []).append(each["validation_loss"])
                if points:
                    colour, marker = styles[cell.method]
                    at = sorted(points)
                    panel.plot(at, [fmean(points[each]) for each in at], color=colour, marker=marker, label=cell.method)
            panel.set_title(f"{model}, {percent(regime)}", loc="left")
            panel.set_xlabel("epoch")
            panel.set_ylabel("validation loss")
        legend_of(figure, axes)
        return to_svg(figure, name)
