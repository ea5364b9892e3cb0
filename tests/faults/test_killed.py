"""Killed at any moment, a stage leaves no half-written output; the next run goes on and ends with the same bytes."""

import signal
from pathlib import Path
from typing import Any

import pytest

from stages.plumbing.signals import StopRequest, Terminated
from tests.faults.pipeline import STAGES, Undisturbed, check_tidy, new_workspace, results, stopped_line
from tests.faults.torture import torture
from tests.stage_runs import finish, stopped
from tests.stops import Stop

THIRD_SAVE = "-000004-00000000"  # at the start of epoch 4


def test_killed_at_random_the_bytes_are_the_same(undisturbed: Undisturbed, project: Path, tmp_path: Path) -> None:
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
    printed = finish(folder, "train")
    assert "epoch 3 of at most 4, learning rate 0.001:" not in printed and "trial 2 of 2, epoch 1" in printed
    assert results(folder) == undisturbed.results


def test_killed_while_it_writes_a_checkpoint_it_goes_on_from_the_one_before(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.before("train", tmp_path / "killed")
    assert stopped(folder, "train", Stop(3, THIRD_SAVE))[0] == -signal.SIGKILL
    assert "epoch 1 of at most 4, learning rate 0.001:" not in finish(folder, "train")
    assert results(folder) == undisturbed.results
    check_tidy(folder)


def test_a_signal_that_nobody_looked_at_raises_at_the_end_of_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", set_handlers.__setitem__)
    with pytest.raises(Terminated), StopRequest():
        set_handlers[signal.SIGTERM](signal.SIGTERM, None)
    assert set_handlers[signal.SIGINT] == signal.SIG_IGN, "a second signal must not interrupt what follows"
