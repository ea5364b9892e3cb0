"""Load what the benchmark needs, and measure its rows."""

import argparse
import sys
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from stages.bench.data import LENGTHS, ROW_FORMAT, SETTINGS, Bench, initial_weights, random_model
from stages.bench.decoding import decoding_rows
from stages.bench.engines import engine_rows
from stages.bench.growth import growth_rows
from stages.bench.machine import describe_machine
from stages.bench.products import products_rows
from stages.bench.training import training_rows
from stages.language_model.base_model import Weights
from stages.language_model.device import arithmetic, choose_device
from stages.language_model.encoding import EncodedPair, encode_pairs, encode_queries
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.prompt_template import build_prompt_template
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.methods.trained_method import read_description, read_trained
from stages.pair_extract.corpora import END_OF_TURN
from stages.pair_extract.pairs import extract
from stages.params.schema import Pairs, Runtime
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, files_hash
from stages.plumbing.peak import peak_memory
from stages.records import Dialogue, Pair, read_records, single_line

DAILYDIALOG = (Path("data/dailydialog"), Path("../shared/dailydialog"))
STEPS, QUERIES = {"cuda": 32}, {"cuda": None}  # None: all
SLOW_STEPS, SLOW_QUERIES = 4, 128  # on other devices


def dailydialog_pairs(path: Path) -> list[Pair]:
    """The pairs (stride 2) of one of DailyDialog's own files: one dialogue per line, `__eou__` after each turn."""
    lines = path.read_text(encoding="utf-8").splitlines()
    turns = ([single_line(turn) for turn in line.split(END_OF_TURN)[:-1]] for line in lines)
    dialogues = (Dialogue(str(number), own) for number, own in enumerate(turns))
    return extract(dialogues, Pairs(stride=2, history=1, joined_by=" "))[0]


def read_pairs(arguments: argparse.Namespace) -> tuple[str, list[Pair], list[Pair]]:
    """The name of the source, the training pairs and the test pairs.

    Raises:
        StageError: there are no pairs.
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
    """Load what the rows share."""
    runtime = Runtime(
        device=arguments.device, threads=arguments.threads, generation_batch_size=0,
        engine="local", address=None, gpus_per_unit=1.0, checkpoints=None,
    )  # fmt: skip
    device = choose_device(runtime, asked_in="--device")
    base = load_base_model(folder, device, arithmetic(arguments.precision, device))
    tokenizer = load_tokenizer(folder)
    prompt_template = build_prompt_template(tokenizer, ROW_FORMAT, LENGTHS, "the prompt template of the benchmark")
    tokens, _ = encode_pairs(train, tokenizer, prompt_template, LENGTHS)
    asked = test[: arguments.queries or QUERIES.get(device.type, SLOW_QUERIES)]
    return Bench(
        folder=folder, base=base,
        decoding_base=base if base.dtype is torch.float32 else load_base_model(folder, device, torch.float32),
        end=prompt_template.end, train=list(map(EncodedPair, tokens["query"], tokens["response"])),
        queries=encode_queries([pair.query for pair in asked], tokenizer, prompt_template, LENGTHS)[0],
        repeats=arguments.repeats,
        steps=arguments.steps or STEPS.get(device.type, SLOW_STEPS), trials=arguments.trials,
    )  # fmt: skip


def read_trained_for(bench: Bench, folder: Path) -> tuple[str, Method, Weights]:
    """The trained method in `folder`, as (name, method in float32, weights).

    Raises:
        StageError: there is none, or it was trained on another model.
    """
    check_folder(folder)
    description = read_description(folder, files_hash(check_folder(bench.folder)))
    return f"{description['method']['kind']}, trained", *read_trained(folder, bench.decoding_base, description)


def decoders(bench: Bench, trained: Path) -> Iterator[tuple[str, Method, Weights]]:
    """The methods that row c decodes with: zero-shot, and the trained method, or else an untrained dynamic prompt."""
    yield "zero-shot", build_method(bench.decoding_base, SETTINGS["zero-shot"]), {}
    try:
        found = read_trained_for(bench, trained)
    except StageError as error:
        print(f"no trained weights ({error}); decoding with an untrained prompt instead", file=sys.stderr)
        method = build_method(bench.decoding_base, SETTINGS["dynamic"])
        found = "dynamic, untrained", method, initial_weights(method)
    yield found


def measure_with_model(arguments: argparse.Namespace, wanted: Set[str]) -> dict[str, Any]:
    """The facts of a run and the requested rows.

    Raises:
        StageError: there is no model, or there are no pairs.
    """
    start = time.monotonic()
    source, train, test = read_pairs(arguments)
    texts = [text for pair in train for text in (pair.query, pair.response)]
    with ExitStack() as stack:
        if arguments.shape is None and not arguments.model.is_dir():
            raise StageError(
                arguments.model, "missing", "run `dvc repro download`, or use random weights: --shape gpt2"
            )
        folder = stack.enter_context(random_model(arguments.shape, texts)) if arguments.shape else arguments.model
        bench = make_bench(arguments, folder, train, test)
        rows = measure(bench, arguments, wanted, train)
        return {
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


def measure(bench: Bench, arguments: argparse.Namespace, wanted: Set[str], train: list[Pair]) -> dict[str, Any]:
    """Measure the requested rows. train: the pairs that `bench.train` has as tokens."""
    texts = [text for pair in train for text in (pair.query, pair.response)]
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
    if "f" in wanted:
        rows |= engine_rows(bench.folder, train)
    return rows
