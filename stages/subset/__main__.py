"""Choose the data regime: a seeded, nested part of the training dialogues. The protocol decides validation and test.

Writes {train,validation,test}.jsonl (one Pair per line), turns.jsonl (the turns of the chosen training dialogues) and,
if there are any, references.jsonl (the further references of the chosen test pairs). The report says how much was
chosen out of how much. The manifest has it too, and the stage score reads it there.
"""

import argparse
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, output_folder, write_json
from stages.records import SPLITS, write_records


def main(arguments: argparse.Namespace) -> None:
    """Read the pairs, choose, write."""
    params = load_params()
    from stages.subset.regime import choose  # it needs scipy, for which --help does not wait

    check_folder(arguments.pairs)
    chosen, report = choose(arguments.pairs, params)
    with output_folder(arguments.subset, **report) as folder:
        for name, records in chosen.items():
            write_records(folder / f"{name}.jsonl", records)
    write_json(arguments.report, report)
    counts = ", ".join(f"{report[split]['pairs']} {split} pairs" for split in SPLITS)
    print(f"{report['train']['dialogues']} dialogues, {counts}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the pair-extract stage")
    parser.add_argument("--subset", type=Path, required=True, help="folder to write")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write: what was chosen and dropped")
    run_stage("subset", parser, main)
