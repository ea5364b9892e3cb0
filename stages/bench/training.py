"""Rows a and b of the benchmark: training one trial, and a sweep of trials, compared with `Trainer` and PEFT."""

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Any

import numpy as np
import torch

from stages.bench.clock import comparison, now, take_turns
from stages.bench.data import TRAINING, Bench, initial_weights, new_trials
from stages.bench.trainer import lay_out, load_plain_model, peft_module, same_module, trainer_rate
from stages.language_model.device import give_back_freed_memory
from stages.language_model.encoding import EncodedPair
from stages.methods.batch import collate
from stages.methods.method import Method
from stages.train.cuda_graphs import CudaGraphs
from stages.train.sweep import KEPT_BETWEEN_STEPS
from stages.train.trials import Trial, train_step
from stages.train.trials_per_pass import TrialsPerPass

METHODS = ("fine-tune", "soft", "dynamic")
# Warm-up steps of one trial, and of many, whose step takes seconds on a CPU. They create the optimizer's state and
# take memory until later steps find all they need in freed memory.
WARM, WARM_MANY = 6, 4
ONE, TRAINER, PEFT = "ours", "Trainer", "PEFT prompt tuning with Trainer"
Contender = Callable[[int], float]


def our_rate(
    method: Method, trials: Sequence[Trial], warm: Sequence[list[EncodedPair]], sample: Sequence[list[EncodedPair]]
) -> float:
    """Pairs per second of trials that share a pass; each pair counts once, for any number of trials."""
    device = method.base.device
    per_pass = TrialsPerPass(len(trials))
    graphs = CudaGraphs.for_pairs(method, [pair for batch in sample for pair in batch], TRAINING.dropout)

    def step(batch: list[EncodedPair]) -> None:
        train_step(method, trials, collate(batch).to(device), TRAINING, per_pass, dropout_seed=0, graphs=graphs)
        if device.type == "cpu":  # as in a training
            give_back_freed_memory(beyond=KEPT_BETWEEN_STEPS)

    # A training meets each shape of batch hundreds of times: recording it, once, is not part of a step.
    for batch in [*warm, *(sample if graphs else ())]:
        step(batch)
    start = now(device)
    for batch in sample:
        step(batch)
    return sum(map(len, sample)) / (now(device) - start)


def _ours(bench: Bench, name: str, trials: int) -> Contender:
    method = bench.method(name)
    warm = WARM if trials == 1 or bench.device.type == "cuda" else WARM_MANY

    def measure(repeat: int) -> float:
        sample = bench.sample(repeat, method)
        return our_rate(method, new_trials(method, trials), (sample * warm)[:warm], sample)

    return measure


def _trainer(bench: Bench, module: torch.nn.Module, method: Method, prompted: bool) -> Contender:
    """Trains on the same pairs as our side does with `method`, but shuffled."""

    def measure(repeat: int) -> float:
        pairs = [pair for batch in bench.sample(repeat, method) for pair in batch]
        shuffled = [pairs[index] for index in np.random.default_rng(repeat).permutation(len(pairs))]
        warm = (shuffled * WARM)[: WARM * TRAINING.batch_size]
        collator = partial(lay_out, prompted=prompted)
        return trainer_rate(module, collator, warm, shuffled, TRAINING, bench.device, bench.base.dtype)

    return measure


def _same_method(bench: Bench, name: str) -> Contender:
    method = bench.method(name)
    model = load_plain_model(bench.folder, torch.float32, bench.device)
    return _trainer(bench, same_module(method, initial_weights(method), model), method, method.shares_layers)


def _peft(bench: Bench, ours: str) -> Contender:
    """PEFT with as many virtual tokens as a query has on average, so that its rows are as long as ours."""
    tokens = round(float(np.mean([len(pair.query) for pair in bench.train])))
    model = load_plain_model(bench.folder, torch.float32, bench.device)
    return _trainer(bench, peft_module(model, tokens), bench.method(ours), prompted=False)


def measure_method(bench: Bench, name: str, sweep: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of rows a and b for one method."""
    together = f"ours, {bench.trials} together"
    contenders = {ONE: _ours(bench, name, 1), TRAINER: _same_method(bench, name)}
    if sweep:
        contenders[together] = _ours(bench, name, bench.trials)
    rates = take_turns(f"training, {name}", "pairs/s", contenders, bench.repeats, bench.device)
    single = [comparison(name, "pairs/s", rates[ONE], rates[TRAINER])]
    if not sweep:
        return single, []
    return single, [
        comparison(name, "pairs/s", rates[together], one_after_another(rates[other], bench.trials))
        for other in (ONE, TRAINER)
    ]


def one_after_another(rate: dict[str, Any], trials: int) -> dict[str, Any]:
    """The rate of a sweep whose trials run one after another: a pair counts when all trials have trained on it."""
    slower = {name: rate[name] / trials for name in ("median", "min", "max")}
    repeats = [value / trials for value in rate["repeats"]]
    label = f"{rate['label']}, {trials} times a measured run"
    return {**rate, **slower, "label": label, "repeats": repeats}


def measure_peft(bench: Bench) -> list[dict[str, Any]]:
    """The line of row a for PEFT's prompt tuning; word embeddings stay frozen on both sides."""
    name = "soft, embeddings frozen"
    contenders = {ONE: _ours(bench, name, 1), PEFT: _peft(bench, name)}
    rates = take_turns(f"training, {name}", "pairs/s", contenders, bench.repeats, bench.device)
    return [comparison(name, "pairs/s", rates[ONE], rates[PEFT])]


def training_rows(bench: Bench, wanted: Set[str]) -> dict[str, list[dict[str, Any]]]:
    """Rows a and b; row b needs row a's runs of the same methods."""
    rows: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
    for name in METHODS:
        shared = bench.method(name).shares_layers
        if "a" in wanted or ("b" in wanted and shared):
            single, sweep = measure_method(bench, name, "b" in wanted and shared)
            rows["a"] += single
            rows["b"] += sweep
    if "a" in wanted:
        rows["a"] += measure_peft(bench)
    return {name: lines for name, lines in rows.items() if lines}
