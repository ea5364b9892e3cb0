"""The benchmark's results as Markdown, and on what they were measured."""

import argparse
import re
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stages.bench.data import Bench
from stages.language_model.device import versions


def facts(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """The day, the machine, the libraries and what was measured."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)", info.read_text(encoding="utf-8") if info.exists() else "", re.MULTILINE)
    return {
        "measured on": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{names[0]}, {len(names)} cores" if names else "unknown",
        **versions(bench.base.device, bench.base.dtype),
        "peft": version("peft"),
        "model": str(arguments.model),
        "pairs": f"{arguments.pairs}, {len(bench.train)} for training, {len(bench.queries)} test queries",
        "repeats": f"{bench.repeats}, of {bench.steps} steps of training; {arguments.trials} rates in the sweep",
    }


def render(result: Mapping[str, Any]) -> str:
    """The complete page."""
    rate = "{median:,.4g} ({min:,.4g}..{max:,.4g})".format_map
    times = "**{median:.2f}x** ({min:.1f}..{max:.1f})".format_map
    blocks = ["# Speed", "Made by `python -m stages.bench`; [bench.md](bench.md) says how to read it."]
    blocks.append("\n".join(f"- {name}: {fact}" for name, fact in result["facts"].items()))
    for row, lines in result["rows"].items():
        table = ["| | ours | theirs | ratio |", "| --- | --- | --- | --- |"]
        for line in lines:
            theirs = f"{line['theirs']['name']}: {rate(line['theirs'])}"
            table.append(f"| {line['subject']} | {rate(line['ours'])} | {theirs} | {times(line['ratio'])} |")
        blocks += [f"## {row.capitalize()}", "\n".join(table)]
    return "\n\n".join(blocks) + "\n"
