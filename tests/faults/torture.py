"""Kill the stages at random moments, again and again, and compare the final results byte by byte.

    make torture                                     ten rounds; more: make torture TORTURE='--rounds 100 --seed 7'
    python -m tests.faults.torture --methods soft    with one method only

What a round is, and how a failed one is repeated: tests/faults/README.md.
"""

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import tests.conftest  # noqa: F401 - sets environment variables before libraries read them
from tests.faults.pipeline import (
    STAGES,
    Undisturbed,
    check_tidy,
    check_whole,
    new_workspace,
    results,
    run_all,
    stopped_line,
)
from tests.stage_runs import Run, finish, start
from tests.stops import Stop
from tests.tiny import tiny_project

METHODS = ("dynamic", "soft", "fine-tune")
# Signals to the process group, in a row: mostly SIGKILL, which cannot be caught.
WAYS = [[signal.SIGKILL]] * 3 + [[signal.SIGTERM], [signal.SIGINT], [signal.SIGTERM, signal.SIGINT, signal.SIGTERM]]
STOPS = {"train": 6, "greedy-generate": 2}  # per round; 1 for the other stages
NOTICED = {signal.SIGTERM: 143, signal.SIGINT: 130}  # the exit codes of a stage that handled the signal
UNNOTICED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: -signal.SIGTERM}  # of one that did not


def ended_by(way: list[signal.Signals], stage: str, code: int, printed: str) -> bool:
    """Whether a stage ended before the signals came, or as one of them demands; anything else is a failure."""
    if code in {NOTICED.get(number) for number in way}:
        return printed.endswith(f"{stopped_line(stage)}\n")
    if code == 1 and signal.SIGINT in way:  # before the stage itself started
        return "KeyboardInterrupt" in printed and "ERROR " not in printed
    return code in {0, *(UNNOTICED.get(number) for number in way)}


def stop_by_clock(run: Run, seconds: float, way: list[signal.Signals], chance: random.Random) -> None:
    """Send the signals after a random time of at most `seconds`; it is no error if the stage ended before."""
    deadline = time.monotonic() + chance.uniform(0, seconds)
    while run.running() and time.monotonic() < deadline:
        time.sleep(0.001)
    for number in way:
        with suppress(ProcessLookupError):
            run.signal(number)
        time.sleep(chance.uniform(0, 0.01))


def disturb(folder: Path, stage: str, undisturbed: Undisturbed, chance: random.Random, by_clock: float) -> str | None:
    """Start a stage and stop it; return how, or None if it finished first."""
    way, events = chance.choice(WAYS), undisturbed.file_events[stage]
    names = " and ".join(number.name for number in way)
    if chance.random() < by_clock:
        how, run = f"{names} at a random time", start(folder, stage)
        stop_by_clock(run, undisturbed.seconds[stage], way, chance)
    else:
        stop = Stop(chance.randint(1, events), number=way[0], again=len(way) > 1)
        how, run = f"{names} before file event {stop.nth} of {events}", start(folder, stage, stop)
    code, printed = run.wait()
    assert ended_by(way, stage, code, printed), f"{how}: exit code {code}\n{printed}"
    check_whole(folder)
    return f"{stage}: {how}: exit code {code}" if code else None


def torture(folder: Path, seed: int, undisturbed: Undisturbed, by_clock: float = 0.5) -> Iterator[str]:
    """One round in a fresh workspace; yield each stop. `by_clock`: the share of stops by time, not repeatable."""
    chance = random.Random(seed)
    for stage in STAGES:
        for _ in range(STOPS.get(stage, 1)):
            if how := disturb(folder, stage, undisturbed, chance, by_clock):
                yield how
        finish(folder, stage)
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def main(arguments: argparse.Namespace) -> None:
    """Run the rounds, with the methods in turn, and print the progress."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        project = tiny_project(root / "project")
        undisturbed: dict[str, Undisturbed] = {}
        stops = 0
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
            print(f"round {done + 1} of {arguments.rounds}: {stops} stops, same bytes", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="fresh workspaces (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each later one adds 1 (default: 0)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="they take turns (default: all)")
    main(parser.parse_args())
