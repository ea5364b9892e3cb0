"""Greedy responses to the test queries (App. B: "To generate the model output, we always use only greedy decoding")."""

import argparse
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, output_folder, write_json
from stages.records import Pair, read_records, write_records


def main(arguments: argparse.Namespace) -> None:
    """Read, decode, write."""
    params = load_params()
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong parameter waits.
    from stages.language_model.device import load_transformers

    load_transformers()
    from stages.greedy_generate.forgetting import read_text
    from stages.greedy_generate.generation import generate, generate_on_ray

    check_folder(arguments.subset)
    pairs = read_records(arguments.subset / "test.jsonl", Pair)
    work = generate_on_ray if params.runtime.engine == "ray" else generate
    made = work(params, pairs, read_text(params.forgetting), arguments.model, arguments.trained)
    with output_folder(arguments.responses, **made.facts) as folder:
        write_records(folder / "responses.jsonl", made.responses)
        write_records(folder / "fits.jsonl", made.fits)
    write_json(arguments.cost, made.cost)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder of the stage train")
    parser.add_argument("--responses", type=Path, required=True, help="folder to write the responses to")
    parser.add_argument("--cost", type=Path, required=True, help="JSON to write times and memory to")
    run_stage("greedy-generate", parser, main)
