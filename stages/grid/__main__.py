"""The paper's grid: models x methods x regimes as DVC experiments, restartable, several at a time if asked.

    python -m stages.grid -S dataset=dailydialog -S protocol=paper
    python -m stages.grid --models gpt2 --methods soft dynamic --regimes 10 100 --jobs 2
    python -m stages.grid --status       all that was started; with the options above, what they ask for

Experiments start from the last commit and are named after what they change (`gpt2-dynamic-100`, and then the -S);
`dvc exp show` lists them as they end.
What is done is skipped, so after a kill, a failure or a power cut the same command goes on: finished stages come from
DVC's cache, an unfinished training from its last checkpoint. What configurations share (download, pairs, subset) runs
once, before them. The smallest regimes come first, so that there is soon something to judge the rest by. Several at a
time share the machine: on a CPU, divide its cores among them with -S runtime.threads=N.
"""

import argparse
from pathlib import Path

from stages.grid.configurations import METHODS, MODELS, REGIMES, wanted
from stages.grid.experiments import check_committed, check_configurations
from stages.grid.scheduler import Grid, status
from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.files import state_folder
from stages.plumbing.locks import lock


def main(arguments: argparse.Namespace) -> None:
    """Check, then show or run."""
    root, state = Path.cwd(), state_folder().resolve()
    configurations = wanted(arguments.models, arguments.methods, arguments.regimes, arguments.set)
    if arguments.status and not (arguments.models or arguments.methods or arguments.regimes or arguments.set):
        print(status(root, state, arguments.jobs) or "no grid was started here")
        return
    baseline = check_committed(root)
    check_configurations(root, baseline, configurations)
    grid = Grid(root, state, baseline, configurations, arguments.jobs)
    if arguments.status:
        print(grid.table())
        return
    with lock(grid.folder / "lock"):
        grid.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", help=f"keys of models (default: {' '.join(MODELS)})")
    parser.add_argument("--methods", nargs="+", help=f"keys of methods (default: {' '.join(METHODS)})")
    regimes = " ".join(f"{each:g}" for each in REGIMES)
    parser.add_argument("--regimes", nargs="+", type=float, help=f"percent (default: {regimes})")
    parser.add_argument("--jobs", type=whole_number(1), default=1, help="experiments at a time (default: 1)")
    parser.add_argument("-S", dest="set", action="append", default=[], metavar="KEY=VALUE", help="another parameter")
    parser.add_argument(
        "--status",
        action="store_true",
        help="show where the grid stands and run nothing; without a choice, all that was started",
    )
    run_stage("grid", parser, main, alone=False)  # --status looks at one that runs
