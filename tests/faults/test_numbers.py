"""Numerical errors: a trial that diverges is marked with its step, and the others go on."""

import json
import re
import signal
from pathlib import Path

from tests.faults.pipeline import Undisturbed, results
from tests.stage_runs import fails, finish, stopped
from tests.stops import Stop
from tests.tiny import change_params

# Each step, decay multiplies weights by 1 - rate * decay: by 0.99 at the lowest rate, by -1e16 and -1e34 at the others.
DIVERGING_RATES = {"low": 1e-38, "high": 1e-2, "trials": 3}
DECAY = 1e36


def diverging(undisturbed: Undisturbed, folder: Path) -> Path:
    """A workspace in which all but the lowest learning rate diverge."""
    undisturbed.before("train", folder)
    training = {"learning_rates": DIVERGING_RATES, "weight_decay": DECAY, "warmup_steps": 0}
    change_params(folder, {f"protocols.tiny.training.{name}": value for name, value in training.items()})
    return folder


def test_trials_that_diverge_are_marked_with_their_step_and_the_others_go_on_also_after_a_kill(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plain = diverging(undisturbed, tmp_path / "plain")
    finish(plain, "train")
    rates = json.loads((plain / "metrics/learning_rates.json").read_bytes())
    assert rates[0]["status"] == "finished"
    assert all(re.fullmatch(r"diverged at step \d+", rate["status"]) for rate in rates[1:]), rates
    summary = json.loads((plain / "metrics/train.json").read_bytes())
    assert (summary["diverged"], summary["learning_rate"]) == (2, DIVERGING_RATES["low"])
    curves = json.loads((plain / "metrics/curves.json").read_bytes())
    assert [row["epoch"] for row in curves if row["trial"] == 0][-1] > 1, "it went on"
    folder = diverging(undisturbed, tmp_path / "killed")
    assert stopped(folder, "train", Stop(1, "-000002-00000000", "os.rename"))[0] == -signal.SIGKILL
    finish(folder, "train")
    assert results(folder) == results(plain)


def test_if_all_diverge_it_is_an_error_and_nothing_is_written(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = diverging(undisturbed, tmp_path / "hopeless")
    change_params(folder, {"protocols.tiny.training.learning_rates.low": 1e-3})
    before = results(folder)
    for _ in range(2):  # the second run finds the finished training and fails the same way
        last = fails(folder, "train")
        assert re.search(r"training: every trial diverged \(0\.001 at step \d+, .*\); lower ", last)
    assert results(folder) == before
