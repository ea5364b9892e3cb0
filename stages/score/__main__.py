"""Score the responses, with human and retrieval baselines (Sec. 4, Tables 1 and 2)."""

import argparse
from pathlib import Path

from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.files import check_folder, scratch_folder, write_json
from stages.records import Dialogue, Fit, Pair, Response, each_record, load_records, read_records, read_references


def main(arguments: argparse.Namespace) -> None:
    """Read, check, score, write."""
    params = load_params()
    # Only now: scikit-learn takes seconds to load, for which neither --help nor a wrong parameter waits.
    from sacrebleu.metrics.chrf import CHRF

    from stages.score.scorer import check_answers, score_all, summary, write_rows
    from stages.score.variety import VOCABULARY
    from stages.similarity.bleu import signature

    notes = {"subset": check_folder(arguments.subset), "generation": check_folder(arguments.responses)}
    for manifest in notes.values():
        del manifest["files"]  # the other facts go into the scores
    test = read_records(arguments.subset / "test.jsonl", Pair)
    forgetting = notes["generation"].pop("forgetting", None)
    path = arguments.responses / "responses.jsonl"
    responses = read_records(path, Response)
    check_answers(path, responses, test)

    with scratch_folder() as scratch:
        train = load_records(arguments.subset / "train.jsonl", Pair, scratch)
        turns = (turn for each in each_record(arguments.subset / "turns.jsonl", Dialogue) for turn in each.turns)
        fits = read_records(arguments.responses / "fits.jsonl", Fit)
        found = score_all(train, test, turns, responses, read_references(arguments.subset), fits, params.seed)
    scores = {
        **found,
        "protocol": params.protocol,
        "training_pairs": len(train),
        **notes,
        "forgetting": forgetting,
        "signature": signature(),
        "chrf_signature": signature(CHRF()),
        "ead_vocabulary": VOCABULARY,
    }
    write_json(arguments.scores, scores)
    write_rows(arguments.rows, scores)
    print(summary(scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subset", type=Path, required=True, help="folder of the stage subset")
    parser.add_argument("--responses", type=Path, required=True, help="folder of the stage greedy-generate")
    parser.add_argument("--scores", type=Path, required=True, help="JSON file to write: all scores")
    parser.add_argument("--rows", type=Path, required=True, help="folder to write: one file per row of scores")
    run_stage("score", parser, main)
