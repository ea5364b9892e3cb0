"""Turn dialogues into pairs of a query and its response: "every two steps in a conversation" (Sec. 4).

Writes {train,validation,test}.jsonl (one Pair per line), turns.jsonl (all turns of the training dialogues, empty ones
too, which keeps positions) and references.jsonl (one References for each test pair that has further ones; no such file
if none has).
"""

import argparse
from pathlib import Path
from typing import Any

from stages.pair_extract.pairs import each_pair
from stages.params.schema import load_params
from stages.plumbing.command import run_stage
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder, output_folder, scratch_folder, write_json
from stages.records import REFERENCES, SPLITS, Dialogue, Pair, read_records, records_of, write_records


def main(arguments: argparse.Namespace) -> None:
    """Read the corpus, write its pairs and their report."""
    params = load_params()
    check_folder(arguments.dialogues)
    # Only now: Arrow takes a second to load, for which neither --help nor a wrong parameter waits.
    from stages.pair_extract.corpora import COUNTED, Found, read_corpus
    from stages.pair_extract.references import match_references

    with scratch_folder() as scratch, output_folder(arguments.pairs) as folder:
        key, dataset = f"datasets.{params.dataset}", params.chosen_dataset
        corpus, read = read_corpus(key, dataset, arguments.dialogues, scratch)
        report: dict[str, Any] = {**params.pairs.model_dump(), "files": read}
        for split in SPLITS:
            counts = report[split] = dict[str, int]()
            write_records(folder / f"{split}.jsonl", each_pair(records_of(corpus[split], Found), params.pairs, counts))
            if not counts["pairs"]:
                found = f"no pair among {len(corpus[split])} usable dialogues"
                raise StageError(f"{arguments.dialogues}: {split}", found, "a pair needs two neighbouring turns")
        if "references" in dataset.files:
            path = arguments.dialogues / dataset.file_name("references")
            test = read_records(folder / "test.jsonl", Pair)
            further, report["references"] = match_references(path, records_of(corpus["test"], Found), test)
            write_records(folder / REFERENCES, further)
        write_records(folder / "turns.jsonl", records_of(corpus["train"], Dialogue))
    write_json(arguments.report, report)
    print(", ".join(f"{report[split]['pairs']} {split} pairs" for split in SPLITS))
    for name, said in COUNTED.items():
        if said and (count := sum(each[name] for each in read.values())):
            print(f"{count} {name.replace('_', ' ')} {said}")
    for each in read.values():
        print("".join(f"{row}\n" for row in each.get("first_bad_rows", ())), end="")
    if matched := report.get("references"):
        print(
            "{references} further references for {pairs} test pairs; {unmatched} dialogues unmatched".format(**matched)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=Path, required=True, help="folder of the download stage")
    parser.add_argument("--pairs", type=Path, required=True, help="folder to write")
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write: what was counted and skipped")
    run_stage("pair-extract", parser, main)
