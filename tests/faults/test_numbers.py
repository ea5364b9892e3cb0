"""Numbers that are not finite: the trial is marked, the others go on; if all diverge, it is an error every time."""

import json
import re
from pathlib import Path

from tests.faults.pipeline import Undisturbed, results
from tests.stage_runs import fails, finish
from tests.tiny import change_params

# Each step, decay multiplies weights by 1 - rate * decay: by 0.99 at the lowest rate, by -1e16 and -1e34 at the others.
RATES = {"low": 1e-38, "high": 1e-2, "trials": 3}


def test_trials_that_diverge_are_marked_with_their_step_and_the_others_go_on(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    folder = undisturbed.before("train", tmp_path / "diverging")
    training = {"learning_rates": RATES, "weight_decay": 1e36, "warmup_steps": 0}
    change_params(folder, {f"protocols.tiny.training.{name}": value for name, value in training.items()})
    finish(folder, "train")
    first, *others = json.loads((folder / "metrics/learning_rates.json").read_bytes())
    assert first["status"] == "finished"
    assert all(re.fullmatch(r"diverged at step \d+", rate["status"]) for rate in others), others
    summary = json.loads((folder / "metrics/train.json").read_bytes())
    assert (summary["diverged"], summary["learning_rate"]) == (2, RATES["low"])
    before = results(folder)
    change_params(folder, {"protocols.tiny.training.learning_rates.low": 1e-3})
    for _ in range(2):  # the second run finds the finished training and fails the same way
        assert "training: every trial diverged (0.001 at step " in fails(folder, "train")
    assert results(folder) == before
