"""The paper's grid: models x methods x regimes (x seeds) as DVC experiments, restartable, several at a time if asked.

    python -m stages.grid -S dataset=dailydialog -S protocol=paper
    python -m stages.grid --models gpt2 --methods soft dynamic --regimes 10 100 -S runtime.engine=ray
    python -m stages.grid --status       what runs, is done, failed or waits, of all that was started

Experiments start from the last commit and are named after what they change (`gpt2-dynamic-100`, and then the -S);
`dvc exp show` lists them as they end. What is done is skipped, so after a kill, a failure or a power cut the same
command goes on. What configurations share (download, pairs, subset) runs once, before them; the smallest regimes come
first. Several run at a time with -S runtime.engine=ray, on the GPUs of this machine or of a cluster
(stages/grid/README.md), or with --jobs N, on a CPU whose cores you divide with -S runtime.threads=M, or on the one GPU
that CUDA_VISIBLE_DEVICES names.
"""

import argparse
from pathlib import Path

from stages.grid.configurations import METHODS, MODELS, REGIMES, wanted
from stages.grid.experiments import check_committed, check_configurations, check_jobs
from stages.grid.pool import Pool, engine, summary, table
from stages.plumbing.command import run_stage, whole_number
from stages.plumbing.files import lock, state_folder


def main(arguments: argparse.Namespace) -> None:
    """Check, then show or run."""
    root, state = Path.cwd(), state_folder().resolve()
    if arguments.status:
        started = sorted((state / "grid/logs").glob("*/"), key=lambda folder: folder.stat().st_mtime)
        for pool in [Pool(root, state, folder.name) for folder in started]:
            print(f"from commit {pool.baseline[:10]}", table(found := pool.standing()), summary(found), sep="\n")
        return
    baseline = check_committed(root)
    configurations = wanted(arguments.models, arguments.methods, arguments.regimes, arguments.set, arguments.seeds)
    runtime = check_configurations(root, baseline, configurations)
    check_jobs(runtime, arguments.jobs or 1)
    with lock(state / "grid" / "lock"), engine(runtime) as at_once:
        Pool(root, state, baseline).run(configurations, arguments.jobs or at_once)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, help=f"keys (default: {' '.join(MODELS)})")
    parser.add_argument("--methods", nargs="+", default=METHODS, help=f"keys (default: {' '.join(METHODS)})")
    regimes = " ".join(f"{each:g}" for each in REGIMES)
    parser.add_argument("--regimes", nargs="+", type=float, default=REGIMES, help=f"percent (default: {regimes})")
    seed = whole_number(0, 2**32 - 1)
    parser.add_argument("--seeds", nargs="+", type=seed, default=[], help="default: params.yaml's")
    jobs = "experiments at a time (default: 1; with runtime.engine=ray as many as it has GPUs)"
    parser.add_argument("--jobs", type=whole_number(1), help=jobs)
    parser.add_argument("-S", dest="set", action="append", default=[], metavar="KEY=VALUE", help="another parameter")
    parser.add_argument("--status", action="store_true", help="show where the grid stands and run nothing")
    run_stage("grid", parser, main, alone=False)  # --status looks at one that runs
