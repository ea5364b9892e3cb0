"""The training and validation pairs of the regime, as tokens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from stages.language_model.encoding import encode_pairs
from stages.language_model.prompt_template import PromptTemplate
from stages.params.schema import Lengths
from stages.plumbing.errors import StageError
from stages.plumbing.files import files_hash, scratch_folder
from stages.records import Pair, load_records, read_records

PAIRS = ("train.jsonl", "validation.jsonl")  # all that is read of the subset


@dataclass(frozen=True)
class Examples:
    """What a sweep trains on and validates with: token ids in columns `query` and `response`."""

    train: Dataset
    validation: Dataset
    references: list[str]  # the validation responses as people wrote them


def hash_of_examples(manifest: dict[str, Any]) -> str:
    """The identity of the training and validation pairs: another test part is no reason to train again."""
    return files_hash({"files": {name: facts for name, facts in manifest["files"].items() if name in PAIRS}})


def load_examples(
    subset: Path,
    tokenizer: PreTrainedTokenizerBase,
    prompt_template: PromptTemplate,
    lengths: Lengths,
    key: str = "prompt_template",
) -> tuple[Examples, dict[str, int]]:
    """Training and validation pairs of the regime, as tokens; and how many texts of each had to be cut.

    Raises:
        StageError: the end of a response is a token of what people wrote; `key` is that of the prompt template.
    """
    validation = read_records(subset / PAIRS[1], Pair)
    with scratch_folder() as scratch:  # its files are in use, and gone when nobody uses them any more
        pairs = load_records(subset / PAIRS[0], Pair, scratch)
        trained, cuts = encode_pairs(pairs, tokenizer, prompt_template, lengths)
    validated, others = encode_pairs(validation, tokenizer, prompt_template, lengths)
    early = cuts.early_ends + others.early_ends
    if early:
        found = (
            f"its end, {prompt_template.text['end']!r}, is inside {early} of {len(trained) + len(validated)} responses"
        )
        raise StageError(key, found, "choose another end")
    print(
        f"{len(trained)} training pairs, {len(validation)} validation pairs; cut to the protocol's lengths in "
        f"training: {cuts.queries} queries, {cuts.responses} responses"
    )
    examples = Examples(trained, validated, [pair.response for pair in validation])
    counted = {"train": cuts, "validation": others}
    sides = ("queries", "responses")
    return examples, {f"cut_{split}_{side}": getattr(counted[split], side) for split in counted for side in sides}
