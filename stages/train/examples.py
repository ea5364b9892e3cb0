"""The training and validation pairs of the regime, as tokens, and the batches that an epoch has of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from stages.language_model.encoding import Counts, encode_pairs, side_lengths
from stages.language_model.prompt_template import PromptTemplate
from stages.params.schema import Lengths
from stages.plumbing.errors import StageError
from stages.plumbing.files import scratch_folder
from stages.records import Pair, load_records, read_records

BATCHES_PER_POOL = 32  # batches whose pairs are sorted by length together: long enough to pad little
EXAMPLES = 256  # more than a prefix takes
PAIRS = ("train.jsonl", "validation.jsonl")  # all that is read of the subset


@dataclass(frozen=True)
class Examples:
    """What a trial trains on and validates with: token ids in columns `query` and `response`."""

    train: Dataset
    validation: Dataset
    pairs: Dataset  # those of `train` as people wrote them
    written: list[Pair]  # those of `validation` as people wrote them
    cuts: dict[str, int]  # how many texts of each had to be cut
    prompt_template: PromptTemplate

    def drawn(self, seed: int, count: int = EXAMPLES) -> list[list[int]]:
        """The rows of so many training pairs, as tokens, drawn by the seed: what a context or a prefix is made of."""
        places = np.random.default_rng(seed).permutation(len(self.train))[:count]
        chosen = self.train[places.tolist()]
        return list(map(self.prompt_template.example, chosen["query"], chosen["response"]))


def load_examples(
    subset: Path, tokenizer: PreTrainedTokenizerBase, prompt_template: PromptTemplate, lengths: Lengths, key: str
) -> Examples:
    """The pairs of the regime; StageError, about `key`, if the end of a response is a token of what people wrote."""
    written = read_records(subset / PAIRS[1], Pair)
    with scratch_folder() as scratch:  # its files are in use, and gone when nobody uses them any more
        pairs = load_records(subset / PAIRS[0], Pair, scratch)
        train, cuts = encode_pairs(pairs, tokenizer, prompt_template, lengths)
    validation, others = encode_pairs(written, tokenizer, prompt_template, lengths)
    if early := cuts["early_ends"] + others["early_ends"]:
        count = len(train) + len(validation)
        found = f"its end, {prompt_template.text['end']!r}, is inside {early} of {count} responses"
        raise StageError(key, found, "choose another end")
    print(
        f"{len(train)} training pairs, {len(validation)} validation pairs; cut to the protocol's lengths in "
        f"training: {cuts['queries']} queries, {cuts['responses']} responses"
    )
    counted, sides = (("train", cuts), ("validation", others)), ("queries", "responses")
    named = {f"cut_{split}_{side}": counts[side] for split, counts in counted for side in sides}
    return Examples(train, validation, pairs, written, named, prompt_template)


def epoch_batches(pairs: Dataset, batch_size: int, seed: int, epoch: int) -> list[Counts]:
    """The batches of one epoch as arrays of pair numbers: a function of (seed, epoch) alone, the same for all methods.

    The pairs are shuffled; in each pool of BATCHES_PER_POOL batches they are sorted by the tokens of both sides, so
    that a batch holds pairs of like length and pads little; then the order of the batches is shuffled.
    """
    generator, (queries, responses) = np.random.default_rng([seed, epoch]), side_lengths(pairs)
    sizes, order, pool = queries + responses, generator.permutation(len(pairs)), batch_size * BATCHES_PER_POOL
    for start in range(0, len(order), pool):
        mine = order[start : start + pool]
        order[start : start + pool] = mine[np.argsort(sizes[mine], kind="stable")]
    places = generator.permutation(-(-len(order) // batch_size))
    return [order[place * batch_size : (place + 1) * batch_size] for place in places]
