"""The benchmark's results as Markdown, and a description of the machine."""

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers

TITLES = {
    "a": "Training, batch size 8, one trial",
    "b": "A sweep of learning rates: all trials in one pass, compared with one run after another",
    "c": "Greedy decoding in float32",
    "d": "Matrix products: their share of the time, and the time they would need at the speed of a large one",
    "e": "How the cost grows",
}
Cells = list[list[str]]


def processor() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, memory, device and libraries."""
    import accelerate
    import peft  # only with the extra `bench`

    libraries = (torch, transformers, peft, accelerate)
    gpu = torch.cuda.get_device_properties(device) if device.type == "cuda" else None
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" if gpu else device.type,
        "versions": {"python": platform.python_version()} | {each.__name__: each.__version__ for each in libraries},
    }


def number(value: float) -> str:
    """Three significant digits, never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def spread(summary: Mapping[str, Any], scale: float = 1.0) -> str:
    """The median, with the lowest and the highest repeat."""
    return "{} ({}..{})".format(*(number(scale * summary[name]) for name in ("median", "min", "max")))


def markdown(head: Sequence[str], cells: Cells) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _rates(lines: Sequence[Mapping[str, Any]]) -> str:
    cells = []
    for line in lines:
        ours, theirs = line["ours"], line["theirs"]
        subject = line["subject"]
        if "mean_tokens" in line:
            subject += f", {line['responses']:,} responses of {line['mean_tokens']:.1f} tokens in "
            subject += (
                f"{number(line['responses'] / ours['median'])} s; {line['differing_responses']} differ from theirs"
            )
        sides = [f"{ours['label']}: {spread(ours)}", f"{theirs['label']}: {spread(theirs)}"]
        cells.append([subject, *sides, f"**{line['ratio']['median']:.1f}x** ({spread_of(line['ratio'])})"])
    unit = lines[0]["unit"]
    return markdown(["", f"ours, {unit}", f"theirs, {unit}", "ratio"], cells)


def spread_of(ratio: Mapping[str, float]) -> str:
    """The lowest and the highest ratio of a repeat."""
    return f"{ratio['min']:.1f}..{ratio['max']:.1f}"


def _products(lines: Sequence[Mapping[str, Any]]) -> str:
    cells = [
        [
            line["subject"], line["precision"], f"{line['products_share']:.0%}", number(line["floor_ms"]),
            number(line["measured_ms"]), number(line["operators_ms"]), f"{line['peak_flop_per_second'] / 1e9:,.0f}",
            ", ".join(f"{name.removeprefix('aten::')} {share:.0%}" for name, share in line["largest_others"][:3]),
        ]
        for line in lines
    ]  # fmt: skip
    head = [
        "",
        "precision",
        "products",
        "floor, ms",
        "measured, ms",
        "operators, ms",
        "large product, GFLOP/s",
        "largest others",
    ]
    return markdown(head, cells)


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


RENDER: dict[str, Callable[[Any], str]] = {"a": _rates, "b": _rates, "c": _rates, "d": _products, "e": _growth}


def render(result: Mapping[str, Any]) -> str:
    """The whole report: the machine, what was measured, a section for each row."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    head = [
        f"{machine['processor']}, {machine['cores']} cores ({machine['threads']} threads), "
        f"{machine['memory_gib']} GiB, device: {machine['device']}; {versions}.",
        f"Model: {result['model']}; pairs: {result['data']}; training in {result['precision']}; "
        f"medians of {result['repeats']} repeats in turns (lowest..highest); ratios are of medians.",
    ]
    sections = [f"### {name}. {TITLES[name]}\n\n{RENDER[name](found)}" for name, found in result["rows"].items()]
    return "\n\n".join(["\n".join(head), *sections])
