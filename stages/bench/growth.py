"""Row e of the benchmark: how a step's cost grows with trials and model size, and an epoch's cost with the pairs."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from stages.bench.clock import seconds, take_turns
from stages.bench.data import BATCH_SIZE, SETTINGS, TRAINING, Bench, new_trials, random_model
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import load_base_model
from stages.methods.batch import Batch, collate
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.train.cuda_graphs import CudaGraphs
from stages.train.trials import Trial, train_step
from stages.train.trials_per_pass import TrialsPerPass

TRIALS = (1, 2, 4, 8, 12)
PAIRS = (1_000, 10_000, 41_637)  # the last: DailyDialog's training pairs
METHOD = "dynamic"
WARM = 2  # steps before the clock starts; the first one records the pass where there are CUDA graphs


def _step(
    method: Method, trials: Sequence[Trial], pairs: Sequence[EncodedPair], batch: Batch, steps: int
) -> Callable[[int], float]:
    """A measurement of one step, in seconds: the mean of several steps, after a warm-up. batch: the pairs, collated."""

    def measure(repeat: int) -> float:
        per_pass = TrialsPerPass(len(trials))
        graphs = CudaGraphs.for_pairs(method, pairs, TRAINING.dropout)  # freed after this contender's turn

        def work(count: int = steps) -> None:
            for _ in range(count):
                train_step(method, trials, batch, TRAINING, per_pass, dropout_seed=0, graphs=graphs)

        work(WARM)
        return seconds(work, method.base.device) / steps

    return measure


def _steps(bench: Bench) -> int:
    """Steps per measurement: fewer than in other rows, because all of them use the same batch."""
    return max(1, bench.steps // 4)


def by_trials(bench: Bench) -> list[dict[str, Any]]:
    """The time of a step with 1, 2, 4, 8 and 12 trials."""
    method = bench.method(METHOD)
    pairs = bench.typical_batch()
    batch = collate(pairs).to(bench.device)
    own = new_trials(method, bench.trials)
    counts = [count for count in TRIALS if count <= bench.trials]
    contenders = {str(count): _step(method, own[:count], pairs, batch, _steps(bench)) for count in counts}
    found = take_turns("growth, trials", "s", contenders, bench.repeats, bench.device)
    one = found[str(counts[0])]["median"]
    return [{"trials": count, "times_one": found[str(count)]["median"] / one, **found[str(count)]} for count in counts]


def by_pairs(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The estimated training time of an epoch, in seconds: a step costs the same for any number of pairs."""
    return [
        {"pairs": pairs, "trials": step["trials"], "estimated_s": pairs / BATCH_SIZE * step["median"]}
        for pairs in PAIRS
        for step in (steps[0], steps[-1])
    ]


def by_model(bench: Bench, pairs: Sequence[EncodedPair], shapes: Sequence[str], texts: Sequence[str]) -> list[Any]:
    """The time of a step of one trial with random models of several sizes, on rows of the same lengths."""
    contenders: dict[str, Callable[[int], float]] = {}
    parameters = {}
    with ExitStack() as stack:
        for shape in shapes:
            folder = stack.enter_context(random_model(shape, texts))
            base = load_base_model(folder, bench.device, bench.base.dtype)
            parameters[shape] = sum(value.numel() for value in base.model.parameters())
            method = build_method(base, SETTINGS[METHOD])
            # The tokens come from another model's tokenizer: only their number matters, and that this model has them.
            batch = _within(collate(pairs), base.embeddings.shape[0]).to(bench.device)
            contenders[shape] = _step(method, new_trials(method, 1), pairs, batch, _steps(bench))
        found = take_turns("growth, model", "s", contenders, bench.repeats, bench.device)
    return [{"model": shape, "parameters": parameters[shape], **found[shape]} for shape in shapes]


def _within(batch: Batch, vocabulary: int) -> Batch:
    queries, responses = (torch.remainder(tokens, vocabulary) for tokens in (batch.queries, batch.responses))
    return Batch(queries, responses, batch.query_lengths, batch.response_lengths)


def growth_rows(bench: Bench, shapes: Sequence[str], texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Row e. texts: the tokenizers of the random models are trained on them."""
    steps = by_trials(bench)
    models = by_model(bench, bench.typical_batch(), shapes, texts)
    return {"e": {"method": METHOD, "trials": steps, "pairs": by_pairs(steps), "models": models}}
