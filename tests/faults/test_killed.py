"""Killed at any moment, a stage leaves no half-written output; the next run goes on and ends with the same bytes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages.plumbing.signals import StopRequest, Terminated
from tests.faults.pipeline import (
    STAGES,
    Undisturbed,
    check_tidy,
    new_workspace,
    results,
    stopped_line,
)
from tests.faults.torture import torture
from tests.stage_runs import fails, finish, start, stopped
from tests.stops import Stop

THIRD_SAVE = "-000004-00000000"  # at the start of epoch 4


def test_killed_at_random_moments_every_stage_ends_with_the_same_bytes(
    undisturbed: Undisturbed, project: Path, tmp_path: Path
) -> None:
    stops = list(torture(new_workspace(tmp_path / "tortured", project), 1, undisturbed, by_clock=0))
    assert {stop.partition(":")[0] for stop in stops} == set(STAGES), "every stage was stopped at least once"


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [
        *[(stage, signal.SIGKILL, -9) for stage in STAGES],
        ("train", signal.SIGTERM, 143),
        ("subset", signal.SIGINT, 130),
    ],
)
def test_stopped_while_it_writes_a_stage_leaves_what_was_there_and_goes_on(
    stage: str, number: signal.Signals, code: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.copy(tmp_path / "stopped")
    found, printed = stopped(folder, stage, Stop(2, "/.tmp-", number=number))
    assert found == code
    assert results(folder) == undisturbed.results
    if number != signal.SIGKILL:
        assert "Traceback" not in printed
        assert printed.splitlines()[-1] == stopped_line(stage)
        check_tidy(folder)
    finish(folder, stage)
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def test_more_signals_while_it_saves_change_nothing(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.before("train", tmp_path / "twice")
    code, printed = stopped(folder, "train", Stop(1, THIRD_SAVE, "os.mkdir", signal.SIGINT, again=True))
    assert code == 130
    assert "Traceback" not in printed
    check_tidy(folder)
    assert "epoch 3 of at most 4, learning rate 0.001:" not in finish(folder, "train")
    assert results(folder) == undisturbed.results


@pytest.mark.parametrize("nth", [1, 13])
def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(
    nth: int, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.before("train", tmp_path / "killed")
    stopped(folder, "train", Stop(1, THIRD_SAVE, "os.mkdir"))
    code, _ = stopped(folder, "train", Stop(nth, "/.tmp-"))
    assert code == -signal.SIGKILL
    assert "epoch 1 of at most 4, learning rate 0.001:" not in finish(folder, "train")
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def test_a_signal_while_a_trial_writes_its_result_stops_before_the_next_one(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.before("train", tmp_path / "stopped")
    assert stopped(folder, "train", Stop(1, "-result", "os.mkdir", signal.SIGTERM))[0] == 143
    (own,) = folder.glob(".state/train/*")
    assert {path.name for path in own.iterdir()} == {"lock", "result"}
    printed = finish(folder, "train")
    assert "learning rate 0.001:" not in printed, "the first trial was finished"
    assert "learning rate 0.01:" in printed
    assert results(folder) == undisturbed.results


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_nobody_looked_at_raises_at_the_end_of_the_block() -> None:
    with pytest.raises(Terminated), StopRequest():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN, "a second signal must not interrupt what follows"


def test_of_two_at_once_one_works_and_the_other_names_it(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = undisturbed.copy(tmp_path / "both")
    first = start(folder, "subset", Stop(1, "/.tmp-", number=signal.SIGSTOP))
    first.wait_until_paused()
    last = fails(folder, "subset", DIALOG_PROMPTING_LOCK_SECONDS="0.1")
    assert last.startswith(f"ERROR subset: .state/locks/subset: held by process {first.pid} on ")
    assert last.endswith("; wait for it to end, or stop it")
    first.signal(signal.SIGCONT)
    assert first.wait()[0] == 0
    assert results(folder) == undisturbed.results
