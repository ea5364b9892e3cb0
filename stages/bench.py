"""How fast it is, beside what a user would otherwise run: Trainer, PEFT and generate. `make bench` calls it.

Prints tables in Markdown and writes every repeat to a JSON file. Nothing here is a stage of the pipeline.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from stages.core.arguments import whole
from stages.core.base_model import Weights, load_base_model, load_tokenizer
from stages.core.bench import growth
from stages.core.bench.data import LENGTHS, SETTINGS, SHAPES, Bench, initial_weights, random_model
from stages.core.bench.decoding import decoding_rows
from stages.core.bench.growth import growth_rows
from stages.core.bench.products import products_rows
from stages.core.bench.table import describe_machine, render
from stages.core.bench.trainer import check_extras
from stages.core.bench.training import training_rows
from stages.core.corpora import END_OF_TURN
from stages.core.device import arithmetic, choose_device
from stages.core.encoding import encode_pairs
from stages.core.errors import StageError, run_stage
from stages.core.files import check_folder, write_json
from stages.core.methods import Method, build_method
from stages.core.params import Runtime
from stages.core.provenance import files_hash
from stages.core.records import Dialogue, Pair, read_records, single_line
from stages.core.trained import read_description, read_trained
from stages.pair_extract import extract

DAILYDIALOG = (Path("data/dailydialog"), Path("../shared/dailydialog"))
STEPS, QUERIES = {"cuda": 32}, {"cuda": None}  # None: all; on other devices:
SLOW_STEPS, SLOW_QUERIES = 4, 128
PRECISIONS = ("auto", "float32", "bfloat16")


def dailydialog_pairs(path: Path) -> list[Pair]:
    """The pairs (stride 2) of one of DailyDialog's own files: a dialogue a line, `__eou__` behind every turn."""
    lines = path.read_text(encoding="utf-8").splitlines()
    turns = ([single_line(turn) for turn in line.split(END_OF_TURN)[:-1]] for line in lines)
    return extract((Dialogue(str(number), own) for number, own in enumerate(turns)), stride=2)[0]


def read_pairs(arguments: argparse.Namespace) -> tuple[str, list[Pair], list[Pair]]:
    """Where the pairs come from, the training pairs and the test pairs.

    Raises:
        StageError: there are none.
    """
    dialogues = arguments.dialogues or next((each for each in DAILYDIALOG if each.is_dir()), None)
    if dialogues is not None and arguments.pairs is None:
        train, test = (dailydialog_pairs(dialogues / f"dialogues_{split}.txt") for split in ("train", "test"))
        return "DailyDialog", train, test
    folder = arguments.pairs or Path("data/pair_extract")
    if not folder.is_dir():
        raise StageError(folder, "missing", "run `dvc repro pair-extract`, or name DailyDialog's folder: --dialogues")
    check_folder(folder)
    train, test = (read_records(folder / f"{split}.jsonl", Pair) for split in ("train", "test"))
    return f"{folder}", train, test


def make_bench(arguments: argparse.Namespace, folder: Path, train: list[Pair], test: list[Pair]) -> Bench:
    """Load what the rows have in common."""
    runtime = Runtime(device=arguments.device, threads=arguments.threads, decode_rows=0)
    device = choose_device(runtime, asked_in="--device")
    base = load_base_model(folder, device, arithmetic(arguments.precision, device))
    tokenizer = load_tokenizer(folder)
    queries = encode_pairs(test[: arguments.queries or QUERIES.get(device.type, SLOW_QUERIES)], tokenizer, LENGTHS)[0]
    return Bench(
        folder=folder, base=base,
        decoding_base=base if base.dtype is torch.float32 else load_base_model(folder, device, torch.float32),
        end=tokenizer.eos_token_id, train=encode_pairs(train, tokenizer, LENGTHS)[0],
        queries=[pair.query for pair in queries], repeats=arguments.repeats,
        steps=arguments.steps or STEPS.get(device.type, SLOW_STEPS), trials=arguments.trials,
    )  # fmt: skip


def read_trained_for(bench: Bench, folder: Path) -> tuple[str, Method, Weights]:
    """What the stage train left, as (name, method in float32, weights).

    Raises:
        StageError: nothing, or something for another model.
    """
    check_folder(folder)
    description = read_description(folder, files_hash(check_folder(bench.folder)))
    return f"{description['method']['kind']}, trained", *read_trained(folder, bench.decoding_base, description)


def decoders(bench: Bench, trained: Path) -> Iterator[tuple[str, Method, Weights]]:
    """What row c decodes with: zero-shot, and the trained method if there is one, else an untrained dynamic prompt."""
    yield "zero-shot", build_method(bench.decoding_base, SETTINGS["zero-shot"]), {}
    try:
        found = read_trained_for(bench, trained)
    except StageError as error:
        print(f"no trained weights to decode with ({error}): an untrained prompt instead", file=sys.stderr)
        method = build_method(bench.decoding_base, SETTINGS["dynamic"])
        found = "dynamic, untrained", method, initial_weights(method)
    yield found


def measure(bench: Bench, arguments: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """The rows that were asked for."""
    wanted = set(arguments.only)
    rows: dict[str, Any] = {}
    if wanted & {"a", "b"}:
        rows |= training_rows(bench, wanted)
    if "c" in wanted:
        rows |= decoding_rows(bench, decoders(bench, arguments.trained))
    if "d" in wanted:
        *_, last = decoders(bench, arguments.trained)
        rows |= products_rows(bench, *last)
    if "e" in wanted:
        rows |= growth_rows(bench, arguments.grow_shapes, texts)
    return rows


def peak_memory() -> int:
    """Most bytes of main memory that this process has taken."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    check_extras()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    start = time.monotonic()
    source, train, test = read_pairs(arguments)
    texts = [text for pair in train for text in (pair.query, pair.response)]
    with ExitStack() as stack:
        if arguments.shape is None and not arguments.model.is_dir():
            raise StageError(
                arguments.model, "missing", "run `dvc repro download`, or take random weights: --shape gpt2"
            )
        folder = stack.enter_context(random_model(arguments.shape, texts)) if arguments.shape else arguments.model
        bench = make_bench(arguments, folder, train, test)
        rows = measure(bench, arguments, texts)
        result = {
            "machine": describe_machine(bench.device),
            "model": f"{arguments.shape}'s shape, random weights" if arguments.shape else str(arguments.model),
            "data": f"{source}, {len(train)} for training, {len(bench.queries)} test queries",
            "precision": str(bench.base.dtype).removeprefix("torch."),
            "repeats": bench.repeats,
            "steps": bench.steps,
            "seconds": round(time.monotonic() - start),
            "peak_memory_gib": round(peak_memory() / 2**30, 1),
            "rows": rows,
        }
    write_json(arguments.out, result)
    print(render(result))


def arguments_of() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("data/download/model"), help="folder (default: %(default)s)")
    parser.add_argument("--shape", choices=list(SHAPES), help="instead of --model: random weights of this shape")
    parser.add_argument(
        "--dialogues", type=Path, help="folder with DailyDialog's text files (default: where they may lie)"
    )
    parser.add_argument("--pairs", type=Path, help="instead: output of the stage pair-extract (data/pair_extract)")
    parser.add_argument(
        "--trained", type=Path, default=Path("data/train"), help="decoded with too (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("metrics/bench.json"), help="JSON to write (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", choices="abcde", default=list("abcde"), help="rows (default: all)")
    parser.add_argument("--repeats", type=whole(1), default=3, help="times that all take turns (default: 3)")
    parser.add_argument(
        "--steps", type=whole(0), default=0, help="training steps of a repeat (default: 4; on a GPU 32)"
    )
    parser.add_argument(
        "--queries", type=whole(0), default=0, help="test queries to decode (default: 128; on a GPU all)"
    )
    parser.add_argument("--trials", type=whole(1), default=12, help="trials of the sweep (default: 12)")
    parser.add_argument("--grow-shapes", nargs="+", choices=list(SHAPES), default=list(growth.SHAPES), help="of row e")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="(default: auto)")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of training (default: auto)")
    parser.add_argument("--threads", type=whole(0, 1024), default=0, help="of the CPU (default: all cores)")
    return parser


if __name__ == "__main__":
    run_stage("bench", arguments_of(), main)
