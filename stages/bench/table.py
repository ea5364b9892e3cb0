"""The benchmark's results as Markdown."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from stages.bench import explanations

Cells = list[list[str]]
AIMED_SIZE = 5_000_000  # pairs


def number(value: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(summary: Mapping[str, Any], scale: float = 1.0) -> str:
    """The median, with the lowest and the highest repeat."""
    return "{} ({}..{})".format(*(number(scale * summary[name]) for name in ("median", "min", "max")))


def side(own: Mapping[str, Any]) -> str:
    """One side of a comparison; on a GPU with the most memory that it took beside the models, which stay loaded."""
    peak = f", {own['peak_bytes'] / 2**30:.1f} GiB" if own.get("peak_bytes") else ""
    return f"{own['label']}: {spread(own)}{peak}"


def markdown(head: Sequence[str], cells: Cells) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rates(lines: Sequence[Mapping[str, Any]], aims: Mapping[str, float] | None = None) -> str:
    """One line per comparison; aims: for each subject, how many times faster than theirs ours should be."""
    aims = aims or {}
    cells = []
    for line in lines:
        ours, theirs = line["ours"], line["theirs"]
        subject, ratio = line["subject"], line["ratio"]
        aim = _against_aim(ratio["median"], aims[subject]) if subject in aims else "-"
        if "mean_tokens" in line:
            taken = number(line["responses"] / ours["median"])
            subject += f", {line['responses']:,} responses of {line['mean_tokens']:.1f} tokens in {taken} s; "
            subject += f"{line['differing_responses']} differ from theirs"
        times = f"**{ratio['median']:.2f}x** ({spread_of(ratio)})"
        cells.append([subject, side(ours), side(theirs), times, *([aim] if aims else [])])
    unit = lines[0]["unit"]
    return markdown(["", f"ours, {unit}", f"theirs, {unit}", "ratio", *(["aim"] if aims else [])], cells)


def _against_aim(ratio: float, aim: float) -> str:
    return f"{aim:g}x, {'reached' if ratio >= aim else 'missed'}"


def spread_of(ratio: Mapping[str, float]) -> str:
    """The lowest and the highest ratio of a repeat."""
    return f"{ratio['min']:.1f}..{ratio['max']:.1f}"


def _products(lines: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [
            line["subject"], line["precision"], f"{line['products_share']:.0%}", number(line["floor_ms"]),
            f"{line['products_share'] * line['operators_ms'] / line['floor_ms']:.1f}x", number(line["measured_ms"]),
            f"{line['peak_flop_per_second'] / 1e9:,.0f}",
            ", ".join(f"{operator(name)} {share:.0%}" for name, share in line["largest_others"][:3]),
        ]
        for line in lines
    ]  # fmt: skip
    head = ["", "precision", "products", "floor, ms", "products / floor", "measured, ms"]
    return markdown([*head, "large product, GFLOP/s", "largest others"], cells)


def operator(name: str) -> str:
    """A PyTorch operator in words, or its own name."""
    short = name.removeprefix("aten::")
    return explanations.OPERATORS.get(short, f"`{short}`")


def _growth(found: Mapping[str, Any]) -> str:
    trials = [
        [
            str(line["trials"]),
            spread(line, 1e3),
            number(1e3 * line["median"] / line["trials"]),
            f"{line['times_one']:.2f}x",
        ]
        for line in found["trials"]
    ]
    pairs = [[f"{line['pairs']:,}", str(line["trials"]), number(line["estimated_s"] / 60)] for line in found["pairs"]]
    models = [
        [
            line["model"],
            f"{line['parameters'] / 1e6:.0f}M",
            spread(line, 1e3),
            f"{line['median'] / found['models'][0]['median']:.2f}x",
        ]
        for line in found["models"]
    ]
    return "\n\n".join(
        [
            markdown([f"trials of {found['method']}", "step, ms", "per trial, ms", "times one trial"], trials),
            markdown(["pairs", "trials", "training time of an epoch, minutes, estimated from a step"], pairs),
            markdown(["model's shape", "parameters", "step of one trial, ms", "times the first"], models),
        ]
    )


def _decoding(lines: Sequence[Mapping[str, Any]]) -> str:
    sizes = ", ".join(lines[0]["batch_sizes_tried"])
    table = _rates(lines, {line["subject"]: explanations.DECODING_AIM for line in lines})
    return f"{table}\n\nBatch sizes tried for `generate`: {sizes}."


def _engines(found: Mapping[str, Any]) -> str:
    local = found["real"][0]["seconds"]
    real = [
        [
            line["engine"], str(line["slots"]), number(line["seconds"]), number(line["ideal"]),
            f"{(line['seconds'] - line['ideal']) / line['units']:+.2f}" if line["seconds"] != local else "-",
        ]
        for line in found["real"]
    ]  # fmt: skip
    sleeping = [
        [
            f"{line['slots']}, {'threads' if line['threads'] else 'processes'}", f"{line['units']:,}",
            f"{line['seconds']:.1f}", f"{line['ideal']:.1f}", f"{line['seconds'] / line['ideal']:.3f}x",
        ]
        for line in found["sleeping"]
    ]  # fmt: skip
    queued = found["queued"]
    sizes = [f"{queued[f'{name}_bytes'] / 2**20:,.0f}" for name in ("driver_before", "driver_peak", "servers")]
    waiting = [f"{queued['queued']:,}", number(queued["submit_s"]), number(queued["look_s"] * 1e3), *sizes]
    head = ["units waiting", "to hand over, s", "a look at all, ms", "driver before, MiB", "driver at most, MiB"]
    return "\n\n".join(
        [
            markdown(["engine", "slots", "8 units, s", "ideal, s", "above it for each unit, s"], real),
            markdown(["slots", "sleeping units", "makespan, s", "ideal, s", "times the ideal"], sleeping),
            markdown([*head, "Ray's servers, MiB"], [waiting]),
        ]
    )


def _taken(own: Mapping[str, float]) -> str:
    return f"{number(own['seconds'])} s ({number(own['cpu_seconds'])} s), {own['peak_bytes'] / 2**30:.2f} GiB"


def _scale(found: Mapping[str, Any]) -> str:
    """A line for each size, a column for each stage."""
    sizes = found["sizes"]
    stages = [f"{stage}: time (of the CPU), peak of memory" for stage in sizes[0]["stages"]]
    cells = [
        [f"{line['pairs']:,}", *map(_taken, line["stages"].values()), f"{line['planted']:,}", f"{line['dropped']:,}"]
        for line in sizes
    ]
    notes = f"Validation and test have {sizes[0]['held_out']:,} pairs each."
    if sizes[-1]["pairs"] == AIMED_SIZE:
        most, peak = (max(own[key] for own in sizes[-1]["stages"].values()) for key in ("seconds", "peak_bytes"))
        notes += f" With {AIMED_SIZE:,} we aimed at 20 minutes and 4 GiB for each stage: "
        notes += f"it took at most {number(most / 60)} minutes and {peak / 2**30:.2f} GiB."
    return f"{markdown(['training pairs', *stages, 'planted', 'dropped'], cells)}\n\n{paragraph(notes)}"


# For each row: its heading, what it measures, and the function that makes its tables.
SECTIONS: dict[str, tuple[str, str, Callable[[Any], str]]] = {
    "a": ("Training, one trial", explanations.TRAINING, partial(_rates, aims=explanations.TRAINING_AIMS)),
    "b": ("Training, a sweep of learning rates", explanations.SWEEP, _rates),
    "c": ("Greedy decoding", explanations.DECODING, _decoding),
    "d": ("Where the time goes", explanations.PRODUCTS, _products),
    "e": ("How cost grows", explanations.GROWTH, _growth),
    "f": ("Engines: one process, or Ray", explanations.ENGINES, _engines),
    "g": ("Millions of pairs", explanations.SCALE, _scale),
}


def render(result: Mapping[str, Any]) -> str:
    """The complete report: of each run its machine and what it measured, then a section for each row."""
    runs = result["runs"]
    blocks = ["# How fast it is", paragraph(explanations.INTRODUCTION)]
    for run in runs:
        if len(runs) > 1:
            blocks.append(f"{'Rows' if len(run['rows']) > 1 else 'Row'} {', '.join(sorted(run['rows']))}:")
        blocks.append("\n".join(f"- {fact}" for fact in _facts(run)))
    for row, found in sorted((row, found) for run in runs for row, found in run["rows"].items()):
        title, explanation, tables = SECTIONS[row]
        blocks += [f"## {row}. {title}", paragraph(explanation), tables(found)]
    if any("model" in run and run["machine"]["device"] == "cpu" for run in runs):
        blocks += ["### Where the memory of the default run goes", paragraph(explanations.MEMORY)]
        head, *lines = map(list, explanations.MEMORY_TABLE)
        blocks += [paragraph(explanations.MEMORY_BEFORE), markdown(head, lines)]
        blocks += [paragraph(explanations.MEMORY_PRICE), paragraph(explanations.MEMORY_STEPS)]
    return "\n\n".join(blocks) + "\n"


def _facts(run: Mapping[str, Any]) -> list[str]:
    machine = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    facts = [
        *([f"measured on {machine['date']}"] if "date" in machine else []),  # older files have none
        f"machine: {machine['processor']}, {machine['cores']} cores ({machine['threads']} threads), "
        f"{machine['memory_gib']} GiB of memory, device: {machine['device']}",
        f"libraries: {versions}",
    ]
    if "model" not in run:  # row g needs none
        return facts
    return [
        *facts,
        f"model: {run['model']}; training in {run['precision']}",
        f"pairs: {run['data']}",
        f"repeats: {run['repeats']}; a repeat of training is {run['steps']} steps",
        f"the whole run: {number(run['seconds'] / 60)} minutes, at most {run['peak_memory_gib']} GiB of memory",
    ]


def paragraph(text: str) -> str:
    """The text, wrapped at 120 characters."""
    return textwrap.fill(" ".join(text.split()), width=120, break_long_words=False, break_on_hyphens=False)
