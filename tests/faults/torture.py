"""Kill the stages at random moments, again and again, and compare what they end with, byte by byte.

    make torture                                     ten rounds; more: make torture TORTURE='--rounds 100 --seed 7'
    python -m tests.faults.torture --methods soft    of one method

A round is a fresh workspace. Each stage is started, stopped after a random part of the time that it takes undisturbed
or before a random thing that it does to a file, started again, ...; after every stop whatever has a final name must be
whole, and at the end all must have the bytes of the undisturbed run, with nothing left over. A failure says the seed
of its round: `--rounds 1 --seed SEED` repeats it.
"""

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import tests.conftest  # noqa: F401 - its settings, before any library reads them
from stages.core.progress import duration
from tests.faults.pipeline import STAGES, Undisturbed, check_tidy, check_whole, new_workspace, results, run_all
from tests.stage_runs import Run, finish, start
from tests.stops import Stop
from tests.tiny import tiny_project

METHODS = ("dynamic", "soft", "fine-tune")
# Signals to the process group, one behind the other: mostly the one that cannot be caught.
WAYS = [[signal.SIGKILL]] * 3 + [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]]
STOPS = {"train": 6, "greedy-generate": 2}  # in a round; of the other stages 1
# Stopped, or ended before; SIGTERM and SIGINT before the stage has begun end it as they end any Python.
CODES = (0, 130, 143, 1, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)


def stop_by_clock(run: Run, seconds: float, way: list[signal.Signals], chance: random.Random) -> None:
    """Signals after a random time of at most `seconds`; none if it has ended by then."""
    deadline = time.monotonic() + chance.uniform(0, seconds)
    while run.running() and time.monotonic() < deadline:
        time.sleep(0.001)
    for number in way:
        with suppress(ProcessLookupError):
            run.signal(number)
        time.sleep(chance.uniform(0, 0.01))


def disturb(folder: Path, stage: str, undisturbed: Undisturbed, chance: random.Random) -> str | None:
    """Start a stage and stop it; how, or None if it ended before."""
    way, events = chance.choice(WAYS), undisturbed.file_events[stage]
    names = " and ".join(number.name for number in way)
    if chance.random() < 0.5:
        stop = Stop(chance.randint(1, events), number=way[0], again=len(way) > 1)
        how, run = f"{names} before file event {stop.nth} of {events}", start(folder, stage, stop)
    else:
        how, run = f"{names} at a random time", start(folder, stage)
        stop_by_clock(run, undisturbed.seconds[stage], way, chance)
    code, printed = run.wait()
    assert code in CODES, f"{how}: exit code {code}\n{printed}"
    check_whole(folder)
    return f"{stage}: {how}: exit code {code}" if code else None


def torture(folder: Path, seed: int, undisturbed: Undisturbed) -> Iterator[str]:
    """One round in a fresh workspace; yields each stop."""
    chance = random.Random(seed)
    for stage in STAGES:
        for _ in range(STOPS.get(stage, 1)):
            if how := disturb(folder, stage, undisturbed, chance):
                yield how
        finish(folder, stage)
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def main(arguments: argparse.Namespace) -> None:
    """Rounds, method by method; says how it goes."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        project = tiny_project(root / "project")
        undisturbed: dict[str, Undisturbed] = {}
        stops, began = 0, time.monotonic()
        for done in range(arguments.rounds):
            seed, method = arguments.seed + done, arguments.methods[done % len(arguments.methods)]
            if method not in undisturbed:
                undisturbed[method] = run_all(new_workspace(root / method, project, method=method))
            folder = new_workspace(root / f"round-{seed}", project, method=method)
            try:
                for how in torture(folder, seed, undisturbed[method]):
                    stops += 1
                    print(f"seed {seed}, {method}: {how}", flush=True)
            except BaseException:
                print(f"failed: repeat it with --rounds 1 --seed {seed} --methods {method}", flush=True)
                raise
            left = (time.monotonic() - began) / (done + 1) * (arguments.rounds - done - 1)
            print(
                f"round {done + 1} of {arguments.rounds}: {stops} stops, same bytes; {duration(left)} left", flush=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="fresh workspaces (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has the next (default: 0)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="in turn (default: all)")
    main(parser.parse_args())
