"""Training beside `Trainer` and PEFT: one trial, and a sweep of learning rates, one after another."""

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from peft import PeftConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from stages.bench.clock import now, take_turns
from stages.bench.data import LENGTHS, SETTINGS, TRAINING, Bench, batches_of, initial_weights
from stages.bench.trainer import load_plain_model, same_module, trainer_seconds
from stages.language_model.encoding import EncodedPair, side_lengths
from stages.methods.lora import LoraMethod
from stages.methods.method import Method
from stages.methods.prefix import PrefixMethod
from stages.methods.registry import build_method
from stages.methods.soft import SoftMethod
from stages.train.step import Learner

# Steps of a run's first trial before the clock starts: later ones find all the memory that they need in what was freed.
# Later trials need one, which makes the optimizer's state.
WARM = 6
RATES = 3e-6, 9e-3  # the ends of the sweep (App. B)
Batches = Sequence[list[EncodedPair]]
Train = Callable[[float, Batches, Batches], float]  # rate, batches to warm up, batches -> seconds of the latter


def ours(method: Method) -> Train:
    """A trial as the stage train runs it."""

    def train(rate: float, warm: Batches, batches: Batches) -> float:
        longest = LENGTHS.max_query_tokens, LENGTHS.max_new_tokens
        learner = Learner(method, initial_weights(method), TRAINING, longest)
        # A training meets each shape of batch hundreds of times: recording it, once, is not part of a step.
        for batch in [*warm, *(batches if learner.graphs else ())]:
            learner.step(batch, 0, rate)
        start = now(method.base.device)
        for batch in batches:
            learner.step(batch, 0, rate)
        return now(method.base.device) - start

    return train


def peft_config(bench: Bench, method: Method) -> PeftConfig | None:
    """PEFT's form of a method, if it has one. Its prompts all have one length: that of a query, on average."""
    match method:
        case LoraMethod():
            return method.config()
        case PrefixMethod():
            return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=method.settings.length)
        case SoftMethod() if not method.settings.train_embeddings:
            length = round(float(side_lengths(bench.train)[0].mean()))
            return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=length)
    return None


def theirs(bench: Bench, method: Method) -> Train:
    """A run of `Trainer` on the same pairs, shuffled, with PEFT where that has the method."""
    model, config = load_plain_model(bench.folder, bench.base.device), peft_config(bench, method)
    module: Any = get_peft_model(model, config) if config else same_module(method, initial_weights(method), model)
    start = {key: value.detach().clone() for key, value in module.named_parameters() if value.requires_grad}

    def train(rate: float, warm: Batches, batches: Batches) -> float:
        module.load_state_dict(start, strict=False)
        pairs = [*chain(*batches)]
        random.Random(0).shuffle(pairs)
        return trainer_seconds(module, rate, [*chain(*warm)], pairs, bench.base)

    return train


def pairs_per_second(bench: Bench, train: Train, rates: Sequence[float], repeat: int) -> float:
    """Train once with each rate; a pair counts when every trial has trained on it."""
    batches = batches_of(bench, repeat)
    warm = (batches * WARM)[:WARM]
    taken = sum(train(rate, warm[: 1 if number else WARM], batches) for number, rate in enumerate(rates))
    return sum(map(len, batches)) / taken


def training_rows(bench: Bench, trials: int) -> list[dict[str, Any]]:
    """A line for each method that trains: `trials` learning rates, one after another, on both sides."""
    lines = []
    rates = np.geomspace(*RATES, trials).tolist() if trials > 1 else [1e-4]
    for name in [each for each in SETTINGS if each != "zero-shot"]:
        method = build_method(bench.base, SETTINGS[name])
        other = "PEFT with Trainer" if peft_config(bench, method) else "Trainer"
        sides = {"ours": ours(method), other: theirs(bench, method)}
        contenders = {side: partial(pairs_per_second, bench, train, rates) for side, train in sides.items()}
        (line,) = take_turns(f"training, {trials} x {name}, pairs", contenders, bench.repeats)
        lines.append({"subject": name, **line})
    return lines
