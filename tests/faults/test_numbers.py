"""Numbers that are not finite: the trial is marked, the others go on; if all diverge, it is an error every time."""

import json
import re
import signal
from pathlib import Path

from tests.faults.pipeline import Undisturbed, results
from tests.stage_runs import fails, finish, stopped
from tests.stops import Stop
from tests.tiny import change_params

# Each step, decay multiplies weights by 1 - rate * decay: by 0.99 at the lowest rate, by -1e16 and -1e34 at the others.
RATES = {"low": 1e-38, "high": 1e-2, "trials": 3}


def test_trials_that_diverge_are_marked_with_their_step_and_the_others_go_on_also_after_a_kill(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    plain, killed = (undisturbed.before("train", tmp_path / name) for name in ("plain", "killed"))
    for folder in (plain, killed):
        training = {"learning_rates": RATES, "weight_decay": 1e36, "warmup_steps": 0}
        change_params(folder, {f"protocols.tiny.training.{name}": value for name, value in training.items()})
    finish(plain, "train")
    rates = json.loads((plain / "metrics/learning_rates.json").read_bytes())
    assert rates[0]["status"] == "finished"
    assert all(re.fullmatch(r"diverged at step \d+", rate["status"]) for rate in rates[1:]), rates
    summary = json.loads((plain / "metrics/train.json").read_bytes())
    assert (summary["diverged"], summary["learning_rate"]) == (2, RATES["low"])
    curves = json.loads((plain / "metrics/curves.json").read_bytes())
    assert [row["epoch"] for row in curves if row["trial"] == 0][-1] > 1, "it went on"
    assert stopped(killed, "train", Stop(1, "-000002-00000000", "os.rename"))[0] == -signal.SIGKILL
    finish(killed, "train")
    assert results(killed) == results(plain)
    change_params(killed, {"protocols.tiny.training.learning_rates.low": 1e-3})
    for _ in range(2):  # the second run finds the finished training and fails the same way
        last = fails(killed, "train")
        assert re.search(r"training: every trial diverged \(0\.001 at step \d+, .*\); lower ", last)
    assert results(killed) == results(plain)
