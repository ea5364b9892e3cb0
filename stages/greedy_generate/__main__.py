"""Greedy responses to the test queries (App. B: "To generate the model output, we always use only greedy decoding")."""

import argparse
from pathlib import Path

from stages.language_model.device import arithmetic, choose_device, versions
from stages.language_model.encoding import encode_pairs, to_text
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.row_format import build_row_format
from stages.methods.decoding import RowLimit, greedy
from stages.methods.trained_method import check_lengths, check_row_format, read_description, read_trained
from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, files_hash, output_folder
from stages.plumbing.progress import Progress
from stages.records import Pair, Response, read_records, write_records


def main(arguments: argparse.Namespace) -> None:
    """Read, decode, write."""
    params = load_params()
    protocol = params.chosen_protocol
    check_folder(arguments.subset)
    check_folder(arguments.trained)
    description = read_description(arguments.trained, files_hash(check_folder(arguments.model)))
    model_key = f"params.yaml: models.{params.model}"
    check_lengths(arguments.trained, description, f"protocols.{params.protocol}.lengths", protocol.lengths)
    check_row_format(arguments.trained, description, f"{model_key}.row_format", params.chosen_model.row_format)
    device = choose_device(params.runtime)
    base = load_base_model(arguments.model, device, arithmetic(protocol.decoding_precision, device))
    tokenizer = load_tokenizer(arguments.model)
    row_format = build_row_format(
        tokenizer, params.chosen_model.row_format, protocol.lengths, f"{model_key}.row_format"
    )
    method, weights = read_trained(arguments.trained, base, description)
    pairs = read_records(arguments.subset / "test.jsonl", Pair)
    encoded, cuts = encode_pairs(pairs, tokenizer, row_format, protocol.lengths)
    limit = protocol.lengths.response_tokens
    with Progress(len(pairs), "greedy-generate", "responses") as progress:
        answers = greedy(
            method, [weights], [pair.query for pair in encoded], limit, row_format.end,
            RowLimit(params.runtime.decode_rows), progress.advance,
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
