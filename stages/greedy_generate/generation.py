"""The responses to the test queries, what is noted about them and what they cost."""

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stages.greedy_generate.forgetting import forgetting, passage_of, read_text
from stages.greedy_generate.relevance import fits_of, within
from stages.language_model.device import versions
from stages.language_model.encoding import encode_pairs, side_lengths
from stages.methods.trained_method import check_lengths, check_prompt_template, load_trained
from stages.methods.zero_shot import ZeroShotMethod
from stages.params.methods import ZeroShot
from stages.params.schema import Params
from stages.plumbing.files import check_folder
from stages.plumbing.progress import Progress, peak_gpu_memory, peak_memory
from stages.records import Fit, Pair, Response, read_records


@dataclass(frozen=True)
class Task:
    """What is to be answered and how."""

    params: Params
    pairs: list[Pair]
    text: str  # on which to measure how much the model has forgotten

    def check(self, trained: Path, description: dict[str, Any]) -> None:
        """Raise StageError for a trained method, as the stage train described it, that belongs to other parameters."""
        params = self.params
        lengths = params.chosen_protocol.lengths
        check_lengths(trained, description, f"protocols.{params.protocol}.lengths", lengths)
        key = f"params.yaml: models.{params.model}.prompt_template"
        check_prompt_template(trained, description, key, params.chosen_model.prompt_template)


@dataclass(frozen=True)
class Generated:
    """What the stage writes: the responses, how they fit, facts for their manifest, times and memory."""

    responses: list[Response]
    fits: list[Fit]
    facts: dict[str, Any]
    cost: dict[str, Any]


def read_task(subset: Path, params: Params) -> Task:
    """What the stage answers; raises StageError if the subset is damaged, or `forgetting.text` cannot be read."""
    check_folder(subset)
    return Task(params, read_records(subset / "test.jsonl", Pair), read_text(params.forgetting))


def generate(task: Task, model: Path, folder: Path) -> Generated:
    """Answer here, with the base model and the trained method of two folders."""
    params, pairs = task.params, task.pairs
    dtype = params.chosen_protocol.decoding_dtype
    trained = load_trained(folder, model, params.runtime, dtype, partial(task.check, folder))
    passage = passage_of(params.forgetting, task.text, trained.tokenizer)  # first: what is wrong with it costs nothing
    encoded, cuts = encode_pairs(pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    queries, _ = trained.encode([pair.query for pair in pairs])
    with Progress(len(pairs), "greedy-generate", "responses") as progress:
        began = time.monotonic()
        decoded = trained.decode_and_score(queries, list(encoded["response"]), progress.advance)
        seconds = time.monotonic() - began - decoded.scoring_seconds
    limit, counts = trained.lengths.max_new_tokens, side_lengths(encoded)[1].tolist()
    texts, losses = trained.texts(decoded.answers), decoded.losses.tolist()
    responses = [
        Response(pair.dialogue, pair.position, pair.query, pair.response, text, not ended, round(loss, 4), count)
        for pair, text, ended, loss, count in zip(pairs, texts, decoded.ended, losses, counts, strict=True)
    ]
    cut, unended = cuts["queries"], sum(not ended for ended in decoded.ended)
    print(f"{len(pairs)} responses; {cut} queries were cut, {unended} responses met the limit of {limit} tokens")
    facts = {name: trained.description[name] for name in ("learning_rate", "epoch", "best_at_range_end")}
    base = trained.method.base
    untouched = ZeroShotMethod(base, ZeroShot(kind="zero-shot"))
    facts["forgetting"] = forgetting(trained, untouched, passage)
    fits = fits_of(trained, untouched, pairs, [each.response for each in responses], params.relevance, params.seed)
    facts |= {"cut_queries": cut, "unended_responses": unended}
    facts["relevance"] = within(params.relevance, pairs).model_dump()
    facts |= versions(base.device, base.dtype)
    cost = {
        "seconds": round(seconds, 3),
        "responses": len(pairs),
        "responses_per_second": round(len(pairs) / seconds, 3) if seconds else None,
        "peak_memory_bytes": peak_memory(),
        "peak_gpu_bytes": peak_gpu_memory(),
    }
    return Generated(responses, fits, facts, cost)
