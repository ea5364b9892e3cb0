"""Greedy responses to the test queries (App. B: "To generate the model output, we always use only greedy decoding")."""

import argparse
from pathlib import Path
from typing import Any

from stages.core.base_model import load_base_model, load_tokenizer
from stages.core.decoding import Room, greedy
from stages.core.device import arithmetic, choose_device
from stages.core.encoding import encode_pairs, to_text
from stages.core.errors import StageError, run_stage
from stages.core.files import check_folder, output_folder
from stages.core.params import Params, load_params
from stages.core.progress import Progress
from stages.core.provenance import files_hash, versions
from stages.core.records import Pair, Response, read_records, write_records
from stages.core.trained import read_description, read_trained


def check_lengths(trained: Path, description: dict[str, Any], params: Params) -> None:
    """Refuse lengths that the method was not trained with: rows of a prompt and positions of the model would lack.

    Raises:
        StageError: they are others.
    """
    now, then = params.chosen_protocol.lengths.model_dump(), description["lengths"]
    if now != then:
        different = next(name for name in now if now[name] != then.get(name))
        found = f"{now[different]}, but {trained} was trained with {then.get(different)}"
        key = f"protocols.{params.protocol}.lengths.{different}"
        raise StageError(f"params.yaml: {key}", found, "run `dvc repro train`")


def main(arguments: argparse.Namespace) -> None:
    """Read, decode, write."""
    params = load_params()
    protocol = params.chosen_protocol
    check_folder(arguments.subset)
    check_folder(arguments.trained)
    description = read_description(arguments.trained, files_hash(check_folder(arguments.model)))
    check_lengths(arguments.trained, description, params)
    device = choose_device(params.runtime)
    base = load_base_model(arguments.model, device, arithmetic(protocol.decoding_precision, device))
    tokenizer = load_tokenizer(arguments.model)
    method, weights = read_trained(arguments.trained, base, description)
    pairs = read_records(arguments.subset / "test.jsonl", Pair)
    encoded, cuts = encode_pairs(pairs, tokenizer, protocol.lengths)
    limit = protocol.lengths.response_tokens
    with Progress(len(pairs), "greedy-generate", "responses") as progress:
        answers = greedy(
            method, [weights], [pair.query for pair in encoded], limit, tokenizer.eos_token_id,
            Room(params.runtime.decode_rows), progress.advance,
        )[0]  # fmt: skip
    unended = sum(len(answer) == limit for answer in answers)
    print(
        f"{len(pairs)} responses; {cuts.queries} queries were cut, {unended} responses met the limit of {limit} tokens"
    )
    responses = [
        Response(pair.dialogue, pair.position, pair.query, pair.response, to_text(answer, tokenizer))
        for pair, answer in zip(pairs, answers, strict=True)
    ]
    facts = {name: description[name] for name in ("learning_rate", "epoch", "best_at_range_end")}
    facts |= {"cut_queries": cuts.queries, "unended_responses": unended, **versions(base.device, base.dtype)}
    with output_folder(arguments.responses, **facts) as folder:
        write_records(folder / "responses.jsonl", responses)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--trained", type=Path, required=True, help="folder of the stage train")
    parser.add_argument("--responses", type=Path, required=True, help="folder to write the responses to")
    run_stage("greedy-generate", parser, main)
