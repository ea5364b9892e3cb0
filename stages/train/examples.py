"""The training and validation pairs of the regime, as tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from stages.language_model.encoding import EncodedPair, encode_pairs
from stages.language_model.prompt_template import PromptTemplate
from stages.params.schema import Lengths
from stages.plumbing.errors import StageError
from stages.plumbing.files import files_hash
from stages.records import Pair, RecordFile, read_records

PAIRS = ("train.jsonl", "validation.jsonl")  # all that is read of the subset


@dataclass(frozen=True)
class Examples:
    """What a sweep trains on and validates with."""

    train: Sequence[EncodedPair]
    validation: Sequence[EncodedPair]
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
    path, validation = subset / PAIRS[0], read_records(subset / PAIRS[1], Pair)
    trained, cuts = encode_pairs(RecordFile(path, Pair), tokenizer, prompt_template, lengths)
    validated, others = encode_pairs(validation, tokenizer, prompt_template, lengths)
    early = trained.early_ends + validated.early_ends
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
    counted = {"train": asdict(cuts), "validation": asdict(others)}
    return examples, {f"cut_{split}_{side}": count for split in counted for side, count in counted[split].items()}
