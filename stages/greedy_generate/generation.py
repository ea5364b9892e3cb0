"""The responses to the test queries, what is noted about them and what they cost; here or on a Ray cluster.

On a cluster it is one task, with the same share of a node as a trial of the training.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stages.greedy_generate.forgetting import forgetting, passage_of
from stages.greedy_generate.relevance import fits_of, within
from stages.language_model.device import Share, share_of, versions
from stages.language_model.encoding import encode_pairs
from stages.methods.trained_method import load_trained, read_description
from stages.methods.zero_shot import ZeroShotMethod
from stages.params.methods import ZeroShot
from stages.params.schema import Params
from stages.plumbing.cluster import Files, cluster, gather, on_this_node, receive, scratch, send, unpack
from stages.plumbing.files import check_folder, files_hash
from stages.plumbing.progress import Progress, peak_gpu_memory, peak_memory
from stages.records import Fit, Pair, Response


@dataclass(frozen=True)
class Generated:
    """What the stage writes: the responses, how they fit, facts for their manifest, times and memory."""

    responses: list[Response]
    fits: list[Fit]
    facts: dict[str, Any]
    cost: dict[str, Any]


def generate(params: Params, pairs: Sequence[Pair], text: str, model: Path, folder: Path) -> Generated:
    """Answer here, with the base model and the trained method of two folders; text: to see what was forgotten."""
    trained = load_trained(folder, model, params)
    passage = passage_of(params.forgetting, text, trained.tokenizer)  # first: what is wrong with it costs nothing
    encoded, cuts = encode_pairs(pairs, trained.tokenizer, trained.prompt_template, trained.lengths)
    queries, references = trained.encode([pair.query for pair in pairs]), list(encoded["response"])
    with Progress(len(pairs), "greedy-generate", "responses") as progress:
        began = time.monotonic()
        decoded = trained.decode_and_score(queries, references, progress.advance)
        seconds = time.monotonic() - began - decoded.scoring_seconds
    texts, losses = trained.texts(decoded.answers), decoded.losses.tolist()
    responses = [
        Response(pair.dialogue, pair.position, pair.query, pair.response, text, not ended, round(loss, 4), len(tokens))
        for pair, text, ended, loss, tokens in zip(pairs, texts, decoded.ended, losses, references, strict=True)
    ]
    cut, unended, limit = cuts["queries"], decoded.ended.count(False), trained.lengths.max_new_tokens
    print(f"{len(pairs)} responses; {cut} queries were cut, {unended} responses met the limit of {limit} tokens")
    base = trained.method.base
    untouched, relevance = ZeroShotMethod(base, ZeroShot(kind="zero-shot")), within(params.relevance, pairs)
    facts = {
        **{name: trained.description[name] for name in ("learning_rate", "epoch", "best_at_range_end")},
        "forgetting": forgetting(trained, untouched, passage),
        "cut_queries": cut,
        "unended_responses": unended,
        "relevance": relevance.model_dump(),
        **versions(base.device, base.dtype),
    }
    fits = fits_of(trained, untouched, pairs, texts, relevance, params.seed)
    cost = {
        "seconds": round(seconds, 3),
        "responses": len(pairs),
        "responses_per_second": round(len(pairs) / seconds, 3) if seconds else None,
        "peak_memory_bytes": peak_memory(),
        "peak_gpu_bytes": peak_gpu_memory(),
    }
    return Generated(responses, fits, facts, cost)


def generate_on_ray(params: Params, pairs: Sequence[Pair], text: str, model: Path, trained: Path) -> Generated:
    """Answer on a node of a cluster; StageError if there is none, it lacks what the task needs, or the task failed."""
    model_hash = files_hash(check_folder(model))
    read_description(trained, model_hash, params)  # refuses what does not fit
    with cluster(params.runtime.address) as ray:
        share = share_of(params.runtime, ray.nodes(), 1)
        files = [ray.put(send(folder, ray.put)) for folder in (model, trained)]
        work = ray.remote(**share.options())(generate_there)
        reference = work.remote(params, pairs, text, model_hash, share, *files)
        made = list[Generated]()
        gather(ray, {reference: made}, list.append, "decoding")
    return made[0]


def generate_there(
    params: Params, pairs: Sequence[Pair], text: str, model_hash: str, share: Share, model: Files, trained: Files
) -> Generated:
    """Answer in a process of Ray's."""
    with on_this_node() as (node, get):
        runtime = share.taken(params.runtime, f"greedy-generate: on node {node}")
        own = params.model_copy(update={"runtime": runtime})
        with TemporaryDirectory(prefix="trained-", dir=scratch()) as folder:  # used once, perhaps as large as the model
            unpack(trained, Path(folder), get)
            return generate(own, pairs, text, receive(model, f"model-{model_hash}", get), Path(folder))
