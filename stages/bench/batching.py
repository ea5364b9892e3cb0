"""An epoch's batching as a process: `python -m stages.bench.batching SUBSET` reads, encodes and pads all pairs once."""

import sys
from itertools import islice
from pathlib import Path

from stages.bench.data import BATCH_SIZE, LENGTHS, ROW_FORMAT, byte_level_tokenizer
from stages.language_model.encoding import EncodedPair
from stages.language_model.prompt_template import build_prompt_template
from stages.methods.batch import collate
from stages.methods.dynamic import DynamicMethod
from stages.records import Pair, RecordFile
from stages.train.batches import epoch_batches
from stages.train.examples import load_examples

TEXTS, VOCABULARY = 2_000, 8_000  # of the tokenizer


def main(subset: Path) -> None:
    """Go through the batches of an epoch, without a model."""
    some = islice(RecordFile(subset / "train.jsonl", Pair), TEXTS)
    tokenizer = byte_level_tokenizer([text for pair in some for text in (pair.query, pair.response)], VOCABULARY)
    prompt_template = build_prompt_template(tokenizer, ROW_FORMAT, LENGTHS, "the prompt template of the benchmark")
    pairs = load_examples(subset, tokenizer, prompt_template, LENGTHS)[0].train
    batches = epoch_batches(DynamicMethod.row_tokens(pairs), BATCH_SIZE, seed=0, epoch=1)
    parts = (pairs[batch] for batch in batches)
    count = sum(len(collate(list(map(EncodedPair, *part.values()))).query_lengths) for part in parts)
    print(f"{count} pairs in {len(batches)} batches")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
