"""Compare the speed with what a user would otherwise run: Trainer, PEFT and generate. `make bench` calls it.

Writes every repeat to a JSON file and tables to a Markdown file next to it, and prints the tables. What was measured
besides is in metrics/bench.md. It is not a stage of the pipeline.
"""

import argparse
from functools import partial
from pathlib import Path

from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes, write_json


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    if arguments.out.suffix != ".json":
        raise StageError(f"--out {arguments.out}", "not a name of a JSON file", "make it end in .json")
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong option waits.
    from transformers.utils import logging

    from stages.bench.data import load
    from stages.bench.decoding import decoding_rows
    from stages.bench.table import facts, render
    from stages.bench.training import training_rows

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bench = load(arguments)
    measures = {
        "training": partial(training_rows, bench, 1),
        "sweep": partial(training_rows, bench, arguments.trials),
        "decoding": partial(decoding_rows, bench),
    }
    rows = {name: measures[name]() for name in arguments.only}
    result = {"facts": facts(bench, arguments), "rows": rows}
    text = render(result)
    write_json(arguments.out, result)
    write_bytes(arguments.out.with_suffix(".md"), text.encode())
    print(text)


def arguments_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", type=Path, default="data/download/model", help="folder of a model")
    parser.add_argument("--pairs", type=Path, default="data/pair_extract", help="output of pair-extract")
    parser.add_argument("--out", type=Path, default="metrics/speed.json", help="the Markdown goes next to it")
    rows = ("training", "sweep", "decoding")
    parser.add_argument("--only", nargs="+", choices=rows, default=rows, help="what is measured")
    count = whole_number(1)
    parser.add_argument("--repeats", type=count, default=3, help="how often all take turns")
    parser.add_argument("--steps", type=whole_number(0), default=0, help="of training; 0: 4, on a GPU 32")
    parser.add_argument("--queries", type=whole_number(0), default=0, help="to decode; 0: 128, on a GPU all")
    parser.add_argument("--trials", type=count, default=12, help="learning rates in the sweep, one after another")
    return parser


if __name__ == "__main__":
    run_stage("bench", arguments_of(), main)
