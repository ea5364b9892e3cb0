"""Greedy decoding beside transformers' `generate`, in float32 on both sides."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from stages.bench.clock import as_users_have_it, now, take_turns
from stages.bench.data import LENGTHS, SETTINGS, Bench, initial_weights
from stages.bench.trainer import PromptedModel, lay_out, load_plain_model, same_module
from stages.language_model.base_model import BaseModel
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import load_base_model
from stages.language_model.memory import keep_freed_memory
from stages.methods.decoding import decode_and_score
from stages.methods.registry import build_method

Answers = list[list[int]]


@as_users_have_it()
def generate(module: Any, queries: Sequence[list[int]], end: int, batch_size: int, by_length: bool) -> Answers:
    """Responses of transformers' `generate`, from token ids, or from embeddings if there is a prompt."""
    prompted = isinstance(module, PromptedModel)
    model = module.model if prompted else module
    settings = GenerationConfig(max_new_tokens=LENGTHS.max_new_tokens, eos_token_id=end, pad_token_id=end)
    order = sorted(range(len(queries)), key=lambda number: len(queries[number]) if by_length else number)
    answers: Answers = [[] for _ in queries]
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        laid = lay_out([EncodedPair(queries[number], []) for number in chosen], prompted, left=True)
        batch = {name: value.to(model.device) for name, value in laid.items() if name != "labels"}
        mask = batch.pop("attention_mask")
        with torch.no_grad():
            inputs = {"inputs_embeds": module.embed(**batch)} if prompted else batch
        tokens: Tensor = model.generate(**inputs, attention_mask=mask, generation_config=settings, use_cache=True)
        begin = 0 if prompted else mask.shape[1]
        for number, row in zip(chosen, tokens[:, begin:].tolist(), strict=True):
            answers[number] = row[: row.index(end)] if end in row else row
    return answers


def _lines(bench: Bench, base: BaseModel, name: str) -> list[dict[str, Any]]:
    """One method with its initial weights: ours, which sorts by length itself, beside `generate`."""
    method = build_method(base, SETTINGS[name])
    weights = {key: value.to(bench.base.device) for key, value in initial_weights(method).items()}
    module: Any = same_module(method, weights, load_plain_model(bench.folder, bench.base.device)).eval()
    own = method, weights, bench.queries, None, LENGTHS.max_new_tokens, {bench.end: list[int]()}
    sides: dict[str, Callable[[], Answers]] = {"ours": lambda: decode_and_score(*own).answers}
    for order, by_length in (("in the data's order", False), ("sorted by length", True)):
        for size in (256, 1024) if bench.base.device.type == "cuda" else (16, 64):
            side = f"generate, {order}, batches of {size}"
            sides[side] = partial(generate, module, bench.queries, bench.end, size, by_length)
    answers: dict[str, Answers] = {}

    def rate(side: str, repeat: int) -> float:
        start = now(bench.base.device)
        answers[side] = sides[side]()
        return len(bench.queries) / (now(bench.base.device) - start)

    contenders = {side: partial(rate, side) for side in sides}
    lines = take_turns(f"decoding, {name}, responses", contenders, bench.repeats)
    tokens = sum(map(len, answers["ours"])) / len(bench.queries)
    for line in lines:
        differ = sum(a != b for a, b in zip(answers["ours"], answers[line["theirs"]["name"]], strict=True))
        line["subject"] = f"{name}, {len(bench.queries):,} responses of {tokens:.1f} tokens; {differ} differ"
    return lines


def decoding_rows(bench: Bench) -> list[dict[str, Any]]:
    """Without a prompt, and with that of an untrained controller."""
    keep_freed_memory(False)  # as in greedy-generate: only trainings keep it
    base = bench.base
    if base.dtype is not torch.float32:
        base = load_base_model(bench.folder, base.device, torch.float32)
    return [*_lines(bench, base, "zero-shot"), *_lines(bench, base, "dynamic")]
