"""Train one method on one base model: the learning-rate trials, the best epoch of the best one kept (Sec. 3, App. B).

A run that was stopped goes on where it was: its state is under .state/train, or where DIALOG_PROMPTING_STATE says, or
in the folder that runtime.checkpoints names. Results of trials stay there, and checkpoints of what was stopped; the
folder may be removed whenever no training is at work.
"""

import argparse
import sys
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import output_folder, write_json


def main(arguments: argparse.Namespace) -> None:
    """Read, train, write."""
    params = load_params()
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong parameter waits.
    from stages.language_model.device import load_transformers

    load_transformers()
    from stages.methods.trained_method import write_trained
    from stages.train.examples import PAIRS
    from stages.train.job import read_job
    from stages.train.search import best_by_rate, cost_of, curves, describe, search, summary
    from stages.train.trial import SELECTS

    job = read_job(arguments.subset, arguments.model, params)
    trials, best, state = search(job)
    selects = SELECTS[params.chosen_protocol.training.metric_for_best_model]
    weights, chosen = state.weights if state.weights.exists() else None, summary(best, trials)
    with output_folder(arguments.trained) as folder:
        write_trained(folder, weights, describe(job, best, trials), arguments.subset / PAIRS[0])
    write_json(arguments.curves, curves(trials, selects))
    write_json(arguments.learning_rates, best_by_rate(trials, selects))
    own = [path.stat().st_size for path in arguments.trained.iterdir() if path.suffix != ".json"]
    write_json(arguments.cost, cost_of(trials, sum(own)))
    write_json(arguments.summary, chosen)
    if end := chosen["best_at_range_end"]:
        what = "number of examples" if best.examples else "learning rate"
        said = f"the {end} {what} is the best one: the optimum may lie outside the range"
        print(f"WARNING train: {said}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder to write what was trained to")
    parser.add_argument("--curves", type=Path, required=True, help="JSON to write each trial's epochs to")
    parser.add_argument("--learning-rates", type=Path, required=True, help="JSON to write each trial's best epoch to")
    parser.add_argument("--cost", type=Path, required=True, help="JSON to write times and memory to")
    parser.add_argument("--summary", type=Path, required=True, help="JSON to write the choice to")
    run_stage("train", parser, main)
