"""Greedy responses to the test queries (App. B: "To generate the model output, we always use only greedy decoding")."""

import argparse
import time
from pathlib import Path
from typing import Any

from stages.language_model.libraries import load_transformers
from stages.params.methods import ZeroShot
from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, output_folder, write_json
from stages.plumbing.peak import peak_gpu_memory, peak_memory
from stages.plumbing.progress import Progress
from stages.records import Pair, Response, read_records, write_records


def main(arguments: argparse.Namespace) -> None:
    """Read, decode, write."""
    params = load_params()
    # Only now: PyTorch takes seconds to load, for which neither --help nor a wrong parameter waits.
    load_transformers()
    from stages.greedy_generate.forgetting import forgetting, read_passage
    from stages.language_model.device import versions
    from stages.methods.trained_method import check_lengths, check_row_format, load_trained
    from stages.methods.zero_shot import ZeroShotMethod

    protocol = params.chosen_protocol

    def check(description: dict[str, Any]) -> None:
        key = f"params.yaml: models.{params.model}.row_format"
        check_lengths(arguments.trained, description, f"protocols.{params.protocol}.lengths", protocol.lengths)
        check_row_format(arguments.trained, description, key, params.chosen_model.row_format)

    check_folder(arguments.subset)
    trained = load_trained(arguments.trained, arguments.model, params.runtime, protocol.decoding_precision, check)
    passage = read_passage(params.forgetting, trained.tokenizer)  # before decoding: what is wrong with it costs nothing
    pairs = read_records(arguments.subset / "test.jsonl", Pair)
    queries, cut = trained.encode([pair.query for pair in pairs])
    with Progress(len(pairs), "greedy-generate", "responses") as progress:
        began = time.monotonic()
        answers = trained.decode(queries, progress.advance)
        seconds = time.monotonic() - began
    limit = trained.lengths.response_tokens
    responses = [
        Response(pair.dialogue, pair.position, pair.query, pair.response, text, len(answer) == limit)
        for pair, answer, text in zip(pairs, answers, trained.texts(answers), strict=True)
    ]
    unended = sum(response.unended is True for response in responses)
    print(f"{len(pairs)} responses; {cut} queries were cut, {unended} responses met the limit of {limit} tokens")
    facts = {name: trained.description[name] for name in ("learning_rate", "epoch", "best_at_range_end")}
    base = trained.method.base
    untouched = ZeroShotMethod(base, ZeroShot(kind="zero-shot"))
    facts["forgetting"] = forgetting(trained, untouched, passage)
    facts |= {"cut_queries": cut, "unended_responses": unended, **versions(base.device, base.dtype)}
    with output_folder(arguments.responses, **facts) as folder:
        write_records(folder / "responses.jsonl", responses)
    write_json(
        arguments.cost,
        {
            "seconds": round(seconds, 3),
            "responses": len(pairs),
            "responses_per_second": round(len(pairs) / seconds, 3) if seconds else None,
            "peak_memory_bytes": peak_memory(),
            "peak_gpu_bytes": peak_gpu_memory(),
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder of the stage train")
    parser.add_argument("--responses", type=Path, required=True, help="folder to write the responses to")
    parser.add_argument("--cost", type=Path, required=True, help="JSON to write times and memory to")
    run_stage("greedy-generate", parser, main)
