"""Row c of the benchmark: greedy decoding compared with transformers' `generate`, in float32 on both sides."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from stages.bench.clock import as_users_have_it, comparison, seconds, take_turns
from stages.bench.data import LENGTHS, Bench
from stages.bench.trainer import PromptedModel, lay_out, load_plain_model, same_module
from stages.language_model.base_model import Weights
from stages.language_model.encoding import EncodedPair
from stages.methods.decoding import greedy
from stages.methods.method import Method

PILOT, SLOW_PILOT = {"cuda": 1024}, 64  # queries used to find the best batch size; SLOW_PILOT on other devices
Answers = list[list[int]]


def generate(
    module: PreTrainedModel | PromptedModel,
    queries: Sequence[list[int]],
    end: int,
    batch_size: int,
    by_length: bool,
    limit: int = LENGTHS.max_new_tokens,
) -> Answers:
    """Responses of transformers' `generate`, from token ids, or from embeddings if there is a prompt."""
    prompted = isinstance(module, PromptedModel)
    model: Any = module.model if isinstance(module, PromptedModel) else module
    settings = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=end, pad_token_id=end)
    order = sorted(range(len(queries)), key=lambda number: len(queries[number]) if by_length else number)
    answers: Answers = [[] for _ in queries]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        laid = lay_out([EncodedPair(queries[number], []) for number in chosen], prompted, left=True)
        batch = {name: value.to(model.device) for name, value in laid.items() if name != "labels"}
        mask = batch.pop("attention_mask")
        with torch.no_grad():
            inputs = {"inputs_embeds": module.embed(**batch)} if isinstance(module, PromptedModel) else batch
        tokens: Tensor = model.generate(**inputs, attention_mask=mask, generation_config=settings, use_cache=True)
        begin = 0 if prompted else mask.shape[1]
        for number, row in zip(chosen, tokens[:, begin:].tolist(), strict=True):
            answers[number] = row[: row.index(end)] if end in row else row
    return answers


class Decoding:
    """The contenders of one method; they keep their answers for comparison."""

    def __init__(self, bench: Bench, method: Method, weights: Weights) -> None:
        self.bench, self.method = bench, method
        self.weights = {name: value.to(bench.device) for name, value in weights.items()}
        plain = load_plain_model(bench.folder, torch.float32, bench.device)
        self.module: Any = same_module(method, weights, plain).eval()
        self.answers: dict[str, Answers] = {}

    def rate(self, name: str, answer: Callable[[], Answers]) -> float:
        """Measure responses per second."""

        def work() -> None:
            self.answers[name] = answer()

        taken = seconds(work, self.bench.device)
        return len(self.answers[name]) / taken

    def ours(self) -> float:
        """The rate of this project."""
        bench, limit = self.bench, LENGTHS.max_new_tokens
        return self.rate("ours", lambda: greedy(self.method, [self.weights], bench.queries, limit, bench.end)[0])

    def theirs(self, by_length: bool, batch_size: int, most: int | None = None) -> float:
        """The rate of `generate`, on all queries or on the first `most`."""
        module, queries, end = self.module, self.bench.queries[:most], self.bench.end
        with as_users_have_it():
            return self.rate(name_of(by_length), lambda: generate(module, queries, end, batch_size, by_length))

    def contenders(self, sizes: Mapping[bool, int]) -> dict[str, Callable[[int], float]]:
        """Ours, and `generate` in both orders, each with its batch size."""
        calls = {"ours": self.ours} | {name_of(each): partial(self.theirs, each, sizes[each]) for each in sizes}
        return {name: partial(_ignore_repeat, call) for name, call in calls.items()}

    def difference(self, by_length: bool) -> int:
        """How many responses differ in any token."""
        pairs = zip(self.answers["ours"], self.answers[name_of(by_length)], strict=True)
        return sum(own != other for own, other in pairs)

    def tokens(self) -> float:
        """The mean number of tokens per response, without end-of-text."""
        return sum(map(len, self.answers["ours"])) / len(self.answers["ours"])


def _ignore_repeat(measure: Callable[[], float], repeat: int) -> float:
    return measure()


def name_of(by_length: bool) -> str:
    """The name in the table for a way of calling `generate`."""
    return "generate, sorted by length" if by_length else "generate, in the data's order"


def batch_sizes(queries: int, device: torch.device) -> list[int]:
    """The batch sizes to try: larger on a GPU, and not much larger than the number of queries."""
    sizes = [256, 512, 1024] if device.type == "cuda" else [8, 16, 32, 64]
    return [size for size in sizes if size < 2 * queries] or sizes[:1]


def best_batch_size(decoding: Decoding, by_length: bool) -> tuple[int, dict[str, float]]:
    """The fastest batch size in one run of each, and all the rates."""
    device = decoding.bench.device
    sizes, most = batch_sizes(len(decoding.bench.queries), device), PILOT.get(device.type, SLOW_PILOT)
    rates = {size: decoding.theirs(by_length, size, most) for size in sizes}
    return max(rates, key=lambda size: rates[size]), {str(size): rate for size, rate in rates.items()}


def decoding_rows(bench: Bench, methods: Iterator[tuple[str, Method, Weights]]) -> dict[str, list[dict[str, Any]]]:
    """Row c. methods: (name, method in float32, weights) of what decodes; the first one finds the best batch sizes."""
    lines: list[dict[str, Any]] = []
    best: dict[bool, tuple[int, dict[str, float]]] = {}
    for name, method, weights in methods:
        decoding = Decoding(bench, method, weights)
        if not best:
            decoding.ours()
            best = {by_length: best_batch_size(decoding, by_length) for by_length in (False, True)}
        sizes = {by_length: size for by_length, (size, _) in best.items()}
        rates = take_turns(f"decoding, {name}", "responses/s", decoding.contenders(sizes), bench.repeats, bench.device)
        for by_length, (size, tried) in best.items():
            line = comparison(name, "responses/s", rates["ours"], rates[name_of(by_length)])
            line["theirs"]["label"] += f", batches of {size}"
            facts = {"differing_responses": decoding.difference(by_length), "mean_tokens": decoding.tokens()}
            lines.append({**line, **facts, "responses": len(bench.queries), "batch_sizes_tried": tried})
    return {"c": lines}
