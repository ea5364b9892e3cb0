"""Train one method on one base model: the learning-rate trials, the best epoch of the best one kept (Sec. 3, App. B).

A run that was stopped goes on where it was: its state is under .state/train, or where DIALOG_PROMPTING_STATE says.
Nothing but the result of each sweep stays there; the folder may be removed whenever no training is at work.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from stages.language_model.device import versions
from stages.language_model.loading import load_tokenizer
from stages.language_model.row_format import build_row_format
from stages.methods.decoding import RowLimit
from stages.methods.trained_method import write_trained
from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, files_hash, output_folder, state_folder, write_json
from stages.train.checkpoint import TrainingState, code_hash, fingerprint_of
from stages.train.examples import hash_of_examples, load_examples
from stages.train.preparation import check_fit, load_methods
from stages.train.results import best_by_rate, curves, describe, summary
from stages.train.search import best_trial, range_end, run_trials, untrained
from stages.train.sweep import Sweep


def main(arguments: argparse.Namespace) -> None:
    """Read, train, write."""
    params = load_params()
    protocol = params.chosen_protocol
    data_hash = hash_of_examples(check_folder(arguments.subset))
    base_hash = files_hash(check_folder(arguments.model))
    check_fit(arguments.model, params)
    tokenizer = load_tokenizer(arguments.model)
    row_format = build_row_format(
        tokenizer, params.chosen_model.row_format, protocol.lengths, f"params.yaml: models.{params.model}.row_format"
    )
    method, decoding_method, initial = load_methods(arguments.model, params)
    base = method.base
    examples, cuts = load_examples(arguments.subset, tokenizer, row_format, protocol.lengths)
    sweep = Sweep(
        method, decoding_method, tokenizer, row_format.end, examples, protocol.training,
        protocol.lengths.response_tokens, RowLimit(params.runtime.decode_rows), params.seed,
    )  # fmt: skip
    parameters = sum(value.numel() for value in initial.values())
    print(f"{params.method} on {base.device}: {parameters:,} trained parameters")
    if parameters:
        facts = {
            "data": data_hash, "model": base_hash, "method": params.chosen_method.model_dump(), "seed": params.seed,
            "row_format": asdict(row_format),
            "protocol": protocol.model_dump(exclude={"data"}),
            "code": code_hash(), "environment": versions(base.device, base.dtype),
        }  # fmt: skip
        state = TrainingState(state_folder() / "train", fingerprint_of(facts))
        trials, weights = run_trials(sweep, initial, state), state.result_weights
    else:
        trials, weights = [untrained(sweep)], None
    best = best_trial(trials, protocol.training.select_by)
    end = range_end(best, trials)
    with output_folder(arguments.trained) as folder:
        write_trained(folder, weights, describe(params, base_hash, best, end, base))
    write_json(arguments.curves, curves(trials))
    write_json(arguments.learning_rates, best_by_rate(trials))
    write_json(arguments.summary, summary(trials, best, {"trained_parameters": parameters, **cuts}))
    if end:
        said = f"the {end} learning rate is the best one: the optimum may lie outside the range"
        print(f"WARNING train: {said}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder to write what was trained to")
    parser.add_argument("--curves", type=Path, required=True, help="JSON to write each trial's epochs to")
    parser.add_argument("--learning-rates", type=Path, required=True, help="JSON to write each trial's best epoch to")
    parser.add_argument("--summary", type=Path, required=True, help="JSON to write the choice to")
    run_stage("train", parser, main)
