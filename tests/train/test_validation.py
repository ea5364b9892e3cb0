"""What `Sweep.validate` says of each trial."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset

from stages.methods.batch import collate
from stages.methods.decoding import RowLimit
from stages.methods.method import Method
from stages.plumbing.signals import StopRequest
from stages.train.examples import Examples
from stages.train.losses import response_losses
from stages.train.sweep import Sweep
from stages.train.trials import Trial, Validation, new_trial
from tests.models import TRAINING, Tokenizer, method, pairs, weights


def validated(one: Method, trials: list[Trial]) -> list[Validation]:
    some = Dataset.from_list([vars(pair) for pair in pairs(5)])
    examples = Examples(some, some, ["a"] * 5)
    sweep = Sweep(one, one, Tokenizer(), 0, examples, TRAINING, 10, RowLimit(), 0)  # type: ignore[arg-type]
    training: Any = SimpleNamespace(base=one.base)  # it may be in another precision: nothing is computed by it
    return replace(sweep, method=training).validate(trials, StopRequest(), "epoch 1")


@pytest.mark.parametrize("name", ["soft", "fine-tune"])
def test_the_loss_is_that_of_a_token_and_a_trial_that_diverged_leaves_the_others_alone(name: str) -> None:
    one = method(name)
    trials = [new_trial(weights(one), number, 1e-3, TRAINING) for number in range(2)]
    for value in trials[1].weights.values():
        value.data.fill_(math.nan)
    first, diverged = validated(one, trials)
    with torch.inference_mode():
        expected = float(response_losses(one, [trials[0].weights], collate(pairs(5)))[0])
    assert first.loss == pytest.approx(expected / sum(len(pair.response) for pair in pairs(5)), rel=1e-5)
    assert math.isnan(diverged.loss)
    assert validated(one, trials[:1]) == [first]
