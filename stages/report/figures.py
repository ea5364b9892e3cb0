"""Figures 2 and 3 of the paper with our numbers, and the learning-rate curves, as SVG with the same bytes at every run.

Colour and marker show the method; dashes and the marker's fill show the model. So a grey print works, and so do the
eyes of the colour-blind; the colours are those of Okabe and Ito (jfly.uni-koeln.de/color).
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, product
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from stages.report import paper
from stages.report.lines import deviation
from stages.report.rates import Rates
from stages.report.settings import STYLES, Cell, Setting

OTHER_STYLES = (("#000000", "p"), ("#999933", "<"), ("#882255", "d"))
DASHES = {"gpt2": "-", "dialogpt": "--"}
OTHER_DASHES = ("-", "--", ":", "-.")
REFERENCES = {"human": ("#000000", (0, (7, 2, 1, 2))), "retrieval": ("#666666", (0, (1, 1)))}
FAINT: dict[str, Any] = {"alpha": 0.45, "linewidth": 1.0}
RING: dict[str, Any] = {"marker": "o", "markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}
BLEUS = {score for score in paper.SCORES if score.startswith("bleu")}
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
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.handlelength": 3.2,
}


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


def method_styles(methods: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method."""
    others, styles = iter(OTHER_STYLES * len(methods)), dict[str, tuple[str, str]]()
    for method in methods:
        known = STYLES.get(method.split(" ")[0])
        styles[method] = known if known and known not in styles.values() else next(others)
    return styles


def model_dashes(models: Sequence[str]) -> dict[str, Any]:
    """The dashes of each model; as in the paper, GPT-2's line is solid and DialoGPT's dashed."""
    taken = {model: DASHES[model] for model in models if model in DASHES}
    free = iter([each for each in OTHER_DASHES if each not in taken.values()] + list(OTHER_DASHES) * len(models))
    return {model: taken.get(model) or next(free) for model in models}


def fill(dash: Any, colour: str) -> dict[str, Any]:
    """The fill of a model's markers, full for a solid line, so that a point without a line also shows its model."""
    return {"markerfacecolor": colour if dash == "-" else "white"}


def papers_models(setting: Setting) -> list[str]:
    """The models for which the paper's values are drawn: those of the setting, or GPT-2 if it has none of them."""
    if not setting.on_papers_data:
        return []
    return [model for model in setting.models if model in paper.MODELS] or list(paper.MODELS[:1])


def scores_figure(setting: Setting, scores: Sequence[str], name: str) -> str:
    """One panel per score: the score of all test pairs against the regime."""
    methods, models = method_styles(setting.methods), model_dashes(setting.models)
    dashes = {**DASHES, **models}
    with matplotlib.rc_context(LOOK):
        columns = len(scores) if len(scores) < 4 else 2
        rows = len(scores) // columns
        legend_rows = max(4, len(methods))
        figure = Figure(figsize=(7.2, 0.28 + 0.18 * legend_rows + 2.4 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for panel, score in zip(panels.flat, scores, strict=True):
            draw_paper(panel, setting, score, dashes)
            draw_references(panel, setting, score)
            series = list(product(models.items(), methods.items()))
            for number, ((model, dash), (method, (colour, marker))) in enumerate(series):
                regimes = setting.regimes(model=model, method=method)
                aside = (number + 1) / (len(series) + 1) - 0.5 if len(setting.regimes()) == 1 else 0.0
                at = [regime + 8 * aside for regime in regimes]  # a single regime's series stand side by side
                of_seeds = [
                    [run.rows["test"][score] for run in setting.runs[Cell(model, method, regime)]] for regime in regimes
                ]
                panel.plot(
                    at, list(map(fmean, of_seeds)), linestyle=dash, color=colour, marker=marker, **fill(dash, colour)
                )
                draw_deviations(panel, at, of_seeds, colour)
            finish(panel, setting, score)
        lines = [[Line2D([], [], color=look[0], marker=look[1], label=each) for each, look in methods.items()]]
        lines += [
            [
                Line2D([], [], color="black", linestyle=dash, marker="o", label=each, **fill(dash, "black"))
                for each, dash in models.items()
            ]
        ]
        lines += [
            [Line2D([], [], color=look[0], linestyle=look[1], label=each) for each, look in drawn_references(scores)]
        ]
        if drawn := papers_models(setting):
            lines[2].append(Line2D([], [], color="black", label=f"the paper's values ({', '.join(drawn)})", **FAINT))
        for panel in panels[-1]:
            panel.set_xlabel("% of the training dialogues")
        longest = max(map(len, lines))
        padded = [[*column, *[Line2D([], [], linestyle="", label=" ")] * (longest - len(column))] for column in lines]
        figure.legend(handles=list(chain(*padded)), loc="outside lower center", ncols=len(lines))
        return to_svg(figure, name)


def draw_deviations(panel: Axes, at: Sequence[float], of_seeds: Sequence[Sequence[float]], colour: str) -> None:
    """Draw the standard deviation over seeds as a bar around each mean of several."""
    for x, values in zip(at, of_seeds, strict=True):
        if around := deviation(values):
            panel.errorbar(x, fmean(values), yerr=around, ecolor=colour, elinewidth=0.8, capsize=2, fmt="none")


def draw_paper(panel: Axes, setting: Setting, score: str, dashes: dict[str, Any]) -> None:
    """Draw the paper's values as faint lines."""
    known = paper.paper_scores()
    for model in papers_models(setting):
        for method in paper.METHODS:
            values = [known[model, method, regime][score] for regime in paper.REGIMES]
            panel.plot(paper.REGIMES, values, linestyle=dashes[model], color=STYLES[method][0], **FAINT)


def draw_references(panel: Axes, setting: Setting, score: str) -> None:
    """Draw the scores of people and of the lookup, which depend on the regime too."""
    for row, (colour, dash) in drawn_references([score]):
        values = [fmean(run.rows[row][score] for run in setting.at(regime)) for regime in setting.regimes()]
        if len(values) > 1:
            panel.plot(setting.regimes(), values, color=colour, linestyle=dash, linewidth=1.2)
        else:
            panel.axhline(values[0], color=colour, linestyle=dash, linewidth=1.2)


def drawn_references(scores: Sequence[str]) -> list[tuple[str, Any]]:
    """The reference lines in panels of these scores; the BLEU of people is 1 by definition, so it is not drawn."""
    return [(row, look) for row, look in REFERENCES.items() if row != "human" or not set(scores) <= BLEUS]


def finish(panel: Axes, setting: Setting, score: str) -> None:
    """Set title, ticks and limits."""
    ticks = sorted({*setting.regimes(), *(paper.REGIMES if papers_models(setting) else ())})
    panel.set(title=paper.SCORES[score])
    panel.set_xticks(ticks, [f"{each:g}" for each in ticks])
    panel.set_xlim(min(ticks) - 5, max(ticks) + 5)
    if score in BLEUS:
        panel.set_ylim(bottom=0)


def rates_figure(rates: Sequence[tuple[Cell, Rates]], name: str) -> str:
    """Each trial's validation BLEU-4 by learning rate: a panel per model and method, a line per regime and seed."""
    pairs = list(dict.fromkeys((cell.model, cell.method) for cell, _ in rates))
    columns = min(3, len(pairs))
    regimes = sorted({cell.regime for cell, _ in rates})
    colours = matplotlib.colormaps["viridis"]([0.8 * place / max(1, len(regimes) - 1) for place in range(len(regimes))])
    looks = dict(zip(regimes, zip(colours, "osv^DPX*" * len(regimes), strict=False), strict=True))
    with matplotlib.rc_context(LOOK):
        rows = -(-len(pairs) // columns)
        figure = Figure(figsize=(7.2, 0.7 + 2.2 * rows), layout="constrained")
        panels = list(chain.from_iterable(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)))
        for number, (panel, (model, method)) in enumerate(zip(panels, pairs, strict=False)):
            panel.set(title=f"{model}, {method}", xscale="log", xlabel="learning rate", ylabel="validation BLEU-4")
            panel.label_outer()
            if number + columns >= len(pairs):  # there is no panel below it
                panel.tick_params(labelbottom=True)
                panel.set_xlabel("learning rate")
            for cell, each in rates:
                if (cell.model, cell.method) == (model, method):
                    draw_rates(panel, each, *looks[cell.regime])
        for panel in panels[len(pairs) :]:
            panel.remove()
        handles = [Line2D([], [], color=look[0], marker=look[1], label=f"{at:g} %") for at, look in looks.items()]
        handles.append(Line2D([], [], label="the best trial", linestyle="", **RING))
        figure.legend(handles=handles, loc="outside lower center", ncols=7)
        return to_svg(figure, name)


def draw_rates(panel: Axes, rates: Rates, colour: Any, marker: str) -> None:
    """Draw one line, a ring around the best trial, and a cross for each trial that diverged."""
    finished = [trial for trial in rates.trials if trial["status"] == "finished"]
    diverged = [trial["learning_rate"] for trial in rates.trials if trial["status"] != "finished"]
    at, values = ([trial[name] for trial in finished] for name in ("learning_rate", "bleu4"))
    panel.plot(at, values, color=colour, marker=marker, markersize=4)
    panel.plot(diverged, [0.0] * len(diverged), color=colour, marker="x", linestyle="")
    panel.plot(rates.best["learning_rate"], rates.best["bleu4"], **RING)
