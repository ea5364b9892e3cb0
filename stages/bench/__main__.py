"""Compare the speed with what a user would otherwise run: Trainer, PEFT and generate. `make bench` calls it.

Writes every repeat to a JSON file and tables to a Markdown file next to it, and prints the tables. Rows that were not
asked for stay in the files as they are, and so do other sizes of row g, which needs no model. It is not a stage of the
pipeline.
"""

import argparse
from importlib.metadata import distributions
from pathlib import Path

from stages.bench.scale import HELD_OUT, SCALE, SIZES, joined, scale_rows
from stages.bench.shapes import GROW_SHAPES, PRECISIONS, SHAPES
from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.errors import StageError
from stages.plumbing.files import write_bytes, write_json


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    if arguments.out.suffix != ".json":
        raise StageError(f"--out {arguments.out}", "not a name of a JSON file", "make it end in .json")
    if "f" in arguments.only and not any(distributions(name="ray")):
        remedy = "pip install -c constraints.txt -e '.[ray]', or leave the row out"
        raise StageError("--only f", "Ray is not installed", remedy)
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong option waits.
    import torch
    from transformers.utils import logging

    from stages.bench.machine import describe_machine
    from stages.bench.measure import measure_with_model
    from stages.bench.results import read_runs, sizes_before, with_run
    from stages.bench.table import render

    runs = read_runs(arguments.out)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if wanted := set(arguments.only) - {SCALE}:
        runs = with_run(runs, measure_with_model(arguments, wanted))
    if SCALE in arguments.only:
        machine = describe_machine(torch.device("cpu"))
        sizes = joined(sizes_before(runs, machine, SCALE), scale_rows(arguments.sizes, arguments.held_out))
        runs = with_run(runs, {"machine": machine, "rows": {SCALE: {"sizes": sizes}}})
    result = {"runs": runs}
    text = render(result)
    write_json(arguments.out, result)
    write_bytes(arguments.out.with_suffix(".md"), text.encode())
    print(text)


def arguments_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("data/download/model"), help="folder (default: %(default)s)")
    parser.add_argument("--shape", choices=list(SHAPES), help="instead of --model: random weights of this shape")
    parser.add_argument(
        "--dialogues", type=Path, help="folder with DailyDialog's text files (default: the usual places)"
    )
    parser.add_argument("--pairs", type=Path, help="instead: output of pair-extract, such as data/pair_extract")
    parser.add_argument(
        "--trained", type=Path, default=Path("data/train"), help="also decode with this (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("metrics/bench.json"),
        help="JSON to write; the Markdown goes next to it (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", choices="abcdefg", default=list("abcdefg"), help="rows (default: all)")
    parser.add_argument("--repeats", type=whole_number(1), default=3, help="how often all take turns (default: 3)")
    parser.add_argument(
        "--steps", type=whole_number(0), default=0, help="training steps per repeat (default: 4; on a GPU 32)"
    )
    parser.add_argument(
        "--queries", type=whole_number(0), default=0, help="test queries to decode (default: 128; on a GPU all)"
    )
    parser.add_argument("--trials", type=whole_number(1), default=12, help="trials in the sweep (default: 12)")
    parser.add_argument("--grow-shapes", nargs="+", choices=list(SHAPES), default=list(GROW_SHAPES), help="for row e")
    size = whole_number(100)
    parser.add_argument("--sizes", nargs="+", type=size, default=list(SIZES), help="for row g: training pairs")
    parser.add_argument("--held-out", type=size, default=HELD_OUT, help="for row g: pairs of validation and test")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="for training (default: auto)")
    parser.add_argument("--threads", type=whole_number(0, 1024), default=0, help="CPU threads (default: all cores)")
    return parser


if __name__ == "__main__":
    run_stage("bench", arguments_of(), main)
