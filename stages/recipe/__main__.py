"""The recipe study: row format x start x rates on validation pairs, the basis of the defaults in params.yaml.

    dvc repro subset                       # with protocol: recipe in params.yaml
    python -m stages.recipe --corpus ChitChat
    dvc repro subset                       # with dataset: dailydialog-files and train_dialogues: 250 besides
    python -m stages.recipe --corpus DailyDialog --first 12

It reads the training and validation pairs of a subset and no test pair. A cell that was measured is not measured again,
and a training that was stopped goes on where it was. Writes metrics/recipe.json and, from it, metrics/recipe.md.
"""

import argparse
import json
from pathlib import Path

from stages.language_model.libraries import load_transformers
from stages.params.schema import load_params
from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.files import check_folder, write_bytes


def main(arguments: argparse.Namespace) -> None:
    """Check, measure, write."""
    for folder in (arguments.subset, arguments.model):
        check_folder(folder)
    params = load_params()
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong parameter waits.
    load_transformers()
    from stages.recipe.cells import CELLS
    from stages.recipe.study import Study
    from stages.recipe.table import render

    study = Study(params, arguments.subset, arguments.model, arguments.out, arguments.corpus)
    study.run(CELLS[: arguments.first], lambda said: print(said, flush=True))
    write_bytes(arguments.out.with_suffix(".md"), render(json.loads(arguments.out.read_bytes())).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, help="what the table calls the corpus of the subset")
    parser.add_argument("--first", type=whole_number(1), help="how many of the cells (default: all)")
    parser.add_argument("--subset", type=Path, default=Path("data/subset"), help="folder (default: %(default)s)")
    parser.add_argument("--model", type=Path, default=Path("data/download/model"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("metrics/recipe.json"),
        help="JSON to write; .md too (default: %(default)s)",
    )
    run_stage("recipe", parser, main)
