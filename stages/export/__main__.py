"""What was trained as a folder for plain transformers: no code of this project is needed to use it.

    python -m stages.export --to FOLDER                      the results in the workspace
    python -m stages.export --to FOLDER --experiment NAME    those of an experiment, from DVC's cache

The folder's README.md says what it is, how good, under which license, and how to ask it. Nothing is published: for that
there is `hf upload OWNER/NAME FOLDER --private`, of huggingface_hub. Without --private everybody may read it.
"""

import argparse
from pathlib import Path

from stages.plumbing.command import run_stage


def main(arguments: argparse.Namespace) -> None:
    """Open, check, write."""
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong option waits.
    from stages.language_model.device import load_transformers

    load_transformers()
    from stages.export.write import write_export
    from stages.report.results import open_results

    with open_results(Path.cwd(), arguments.experiment) as results:
        results.check_fresh()
        write_export(results, arguments.to)
        print(f"{results.name} in {arguments.to}; its README.md says how to use it")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder to write; an earlier export there is replaced")
    parser.add_argument("--experiment", metavar="NAME", help="an experiment's results; else those in the workspace")
    run_stage("export", parser, main)
