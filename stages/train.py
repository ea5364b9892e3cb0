"""Train one method on one base model: the learning-rate trials, the best epoch of the best one kept (Sec. 3, App. B).

A run that was stopped goes on where it was: its state is under .state/train, or where DIALOG_PROMPTING_STATE says.
Nothing but the result of each sweep stays there; the folder may be removed whenever no training is at work.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.core.base_model import BaseModel, Weights, check_row_length, load_base_model, load_config, load_tokenizer
from stages.core.checkpoint import TrainingState, fingerprint_of
from stages.core.decoding import Room
from stages.core.device import arithmetic, choose_device
from stages.core.encoding import encode_pairs
from stages.core.errors import StageError, run_stage
from stages.core.files import check_folder, output_folder, state_folder, write_json
from stages.core.methods import METHODS, Method, build_method
from stages.core.params import Dynamic, Params, Training, load_params
from stages.core.provenance import code_hash, files_hash, versions
from stages.core.records import Pair, read_records
from stages.core.stopping import StopRequest
from stages.core.sweep import Examples, Sweep
from stages.core.trained import write_trained
from stages.core.trials import Passes, Trial, new_trial

PAIRS = ("train.jsonl", "validation.jsonl")  # all that is read of the subset; the deps in dvc.yaml too


def load_methods(folder: Path, params: Params) -> tuple[Method, Method, dict[str, Tensor]]:
    """The method in the precision of training and in that of decoding, and the weights from which trials start.

    The base model is held once in each precision; what is trained starts from its float32 weights in any case.
    """
    device = choose_device(params.runtime)
    training, settings = params.chosen_protocol.training, params.chosen_method
    wanted = [arithmetic(one, device) for one in (training.precision, params.chosen_protocol.decoding_precision)]
    methods = {
        dtype: build_method(load_base_model(folder, device, dtype, training.dropout), settings)
        for dtype in {*wanted, torch.float32}
    }
    initial = methods[torch.float32].initial_weights(torch.Generator().manual_seed(params.seed))
    return methods[wanted[0]], methods[wanted[1]], initial


def check_fit(folder: Path, params: Params) -> None:
    """Refuse what the base model cannot take, before its weights are read.

    Raises:
        StageError: rows are longer than its positions, or a controller is to start from more layers than it has.
    """
    config, lengths, settings = load_config(folder), params.chosen_protocol.lengths, params.chosen_method
    slots = METHODS[settings.kind].prompt_slots * lengths.query_tokens
    check_row_length(config, slots + lengths.query_tokens + lengths.response_tokens)
    there = config.num_hidden_layers
    if isinstance(settings, Dynamic) and settings.initial == "first-layers" and settings.layers > there:
        found = f"{settings.layers} first layers of a model that has {there}"
        raise StageError(f"params.yaml: methods.{params.method}.layers", found, "lower it or set initial to random")


def hash_of_examples(manifest: dict[str, Any]) -> str:
    """The identity of the training and validation pairs: another test part is no reason to train again."""
    return files_hash({"files": {name: facts for name, facts in manifest["files"].items() if name in PAIRS}})


def load_examples(subset: Path, tokenizer: PreTrainedTokenizerBase, params: Params) -> tuple[Examples, dict[str, int]]:
    """Training and validation pairs of the regime, as tokens; and how many texts of each had to be cut."""
    lengths = params.chosen_protocol.lengths
    train, validation = (read_records(subset / name, Pair) for name in PAIRS)
    (trained, cuts), (validated, others) = (encode_pairs(pairs, tokenizer, lengths) for pairs in (train, validation))
    print(
        f"{len(train)} training pairs, {len(validation)} validation pairs; cut to the protocol's lengths in training: "
        f"{cuts.queries} queries, {cuts.responses} responses"
    )
    examples = Examples(trained, validated, [pair.response for pair in validation])
    counted = {"train": asdict(cuts), "validation": asdict(others)}
    return examples, {f"cut_{split}_{side}": count for split in counted for side, count in counted[split].items()}


def groups_of_trials(method: Method, training: Training) -> list[list[tuple[int, float]]]:
    """(number, learning rate) of the trials, grouped by pass: all together where the layers are shared, else alone."""
    numbered = list(enumerate(training.learning_rates.values()))
    return [numbered] if method.shares_layers else [[one] for one in numbered]


def run_trials(sweep: Sweep, initial: Weights, state: TrainingState) -> list[Trial]:
    """Train every trial, or find it finished; `state` has the best one's weights at the end.

    Raises:
        StageError: every trial diverged, or another process trains the same.
    """
    with state.lock():
        trials = state.read_result()
        if not trials:
            for numbered in groups_of_trials(sweep.method, sweep.training):
                group = [new_trial(initial, *one, sweep.training, sweep.method.base.device) for one in numbered]
                sweep.run(group, state)
                trials += group
            state.write_result(trials, best_trial(trials))
        state.keep_result_only()
    return trials


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest validation BLEU-4 at any epoch; of equals the lowest learning rate (App. B).

    Raises:
        StageError: every trial diverged.
    """
    sound = [trial for trial in trials if trial.status == "finished"]
    if not sound:
        steps = ", ".join(f"{trial.learning_rate:.2g} at {trial.diverged_at}" for trial in trials)
        raise StageError(
            "training", f"every trial diverged ({steps})", "lower protocols.<name>.training.learning_rates"
        )
    return max(sound, key=lambda trial: (trial.best_bleu4, -trial.index))


def untrained(sweep: Sweep) -> Trial:
    """The one trial of a method that trains nothing: only validated, as epoch 0."""
    trial = Trial(0, 0.0, {}, None)
    with StopRequest() as stop:
        loss, score = sweep.validate([trial], Passes(1), stop, "untrained")[0]
    trial.record_epoch(0, loss, score, patience=0, last_epoch=0)
    return trial


def range_end(trial: Trial, trials: Sequence[Trial]) -> str | None:
    """Which end of the range of learning rates the best trial stands at, if any: the range should then be wider."""
    if len(trials) < 2 or trial.index not in (0, len(trials) - 1):
        return None
    return "lowest" if trial.index == 0 else "highest"


def write_metrics(arguments: argparse.Namespace, trials: Sequence[Trial], best: Trial, counts: dict[str, int]) -> None:
    """The curves of all trials, the best BLEU-4 by learning rate, and the choice that was made."""
    write_json(arguments.curves, [row for trial in trials for row in trial.curve])
    rates = [
        {
            "trial": trial.index,
            "learning_rate": trial.learning_rate,
            "bleu4": max(trial.best_bleu4, 0.0),
            "epoch": trial.best_epoch,
            "status": trial.status if trial.diverged_at is None else f"diverged at {trial.diverged_at}",
        }
        for trial in trials
    ]
    write_json(arguments.learning_rates, rates)
    end = range_end(best, trials)
    if end:
        print(
            f"WARNING train: the {end} learning rate is the best one: the optimum may lie outside the range",
            file=sys.stderr,
        )
    summary = {
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best_bleu4,
        "best_at_range_end": end,
        "trials": len(trials),
        "diverged": sum(trial.status == "diverged" for trial in trials),
        **counts,
    }
    write_json(arguments.summary, summary)


def describe(params: Params, base_hash: str, best: Trial, end: str | None, base: BaseModel) -> dict[str, Any]:
    """What stands beside the trained weights."""
    protocol = params.chosen_protocol
    return {
        "method": params.chosen_method.model_dump(),
        "base_model": base_hash,
        "learning_rate": best.learning_rate,
        "epoch": best.best_epoch,
        "validation_bleu4": best.best_bleu4,
        "best_at_range_end": end,
        "seed": params.seed,
        "training": protocol.training.model_dump(),
        "lengths": protocol.lengths.model_dump(),
        "environment": versions(base.device, base.dtype),
    }


def main(arguments: argparse.Namespace) -> None:
    """Read, train, write."""
    params = load_params()
    protocol = params.chosen_protocol
    data_hash = hash_of_examples(check_folder(arguments.subset))
    base_hash = files_hash(check_folder(arguments.model))
    check_fit(arguments.model, params)
    tokenizer = load_tokenizer(arguments.model)
    method, decoder, initial = load_methods(arguments.model, params)
    base = method.base
    examples, cuts = load_examples(arguments.subset, tokenizer, params)
    sweep = Sweep(
        method, decoder, tokenizer, examples, protocol.training,
        protocol.lengths.response_tokens, Room(params.runtime.decode_rows), params.seed,
    )  # fmt: skip
    parameters = sum(value.numel() for value in initial.values())
    print(f"{params.method} on {base.device}: {parameters:,} trained parameters")
    if parameters:
        facts = {
            "data": data_hash, "model": base_hash, "method": params.chosen_method.model_dump(), "seed": params.seed,
            "protocol": protocol.model_dump(exclude={"data"}),
            "code": code_hash(), "environment": versions(base.device, base.dtype),
        }  # fmt: skip
        state = TrainingState(state_folder() / "train", fingerprint_of(facts))
        trials, weights = run_trials(sweep, initial, state), state.result_weights
    else:
        trials, weights = [untrained(sweep)], None
    best = best_trial(trials)
    with output_folder(arguments.trained) as folder:
        write_trained(folder, weights, describe(params, base_hash, best, range_end(best, trials), base))
    write_metrics(arguments, trials, best, {"trained_parameters": parameters, **cuts})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder to write what was trained to")
    parser.add_argument("--curves", type=Path, required=True, help="JSON to write each trial's epochs to")
    parser.add_argument("--learning-rates", type=Path, required=True, help="JSON to write each trial's best epoch to")
    parser.add_argument("--summary", type=Path, required=True, help="JSON to write the choice to")
    run_stage("train", parser, main)
