"""What the rows of the benchmark share: a model, pairs, and batches that are the same for all contenders."""

import argparse
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from stages.language_model.base_model import BaseModel
from stages.language_model.device import arithmetic, choose_device
from stages.language_model.encoding import EncodedPair, encode_pairs, encode_queries
from stages.language_model.loading import load_base_model, load_tokenizer
from stages.language_model.prompt_template import build_prompt_template
from stages.methods.method import Method
from stages.params.methods import Dynamic, FineTune, Lora, MethodSettings, Prefix, Soft, ZeroShot
from stages.params.schema import LearningRates, Lengths, Training, load_params
from stages.params.sources import END_OF_TEXT, PromptTemplateText
from stages.plumbing.errors import StageError
from stages.plumbing.files import check_folder
from stages.records import Pair, read_records
from stages.train.examples import epoch_batches

# Fixed, independent of params.yaml, so that results of two machines can be compared.
LENGTHS = Lengths(max_query_tokens=64, max_new_tokens=32)
TEMPLATE = PromptTemplateText(separator=END_OF_TEXT, end=END_OF_TEXT)  # works with any model
SETTINGS: dict[str, MethodSettings] = {
    "fine-tune": FineTune(kind="fine-tune"),
    "soft": Soft(kind="soft", prompt_tokens=64, init="random", train_embeddings=True),
    "dynamic": Dynamic(kind="dynamic", layers=2, init="random", train_embeddings=True),
    "soft, E frozen": Soft(kind="soft", prompt_tokens=64, init="random", train_embeddings=False),
    "lora": Lora(kind="lora", rank=8, alpha=16, dropout=0.0, target_modules="all-linear"),
    "prefix": Prefix(kind="prefix", length=128, init="vocabulary"),
    "zero-shot": ZeroShot(kind="zero-shot"),
}
TRAINING = Training(
    learning_rates=LearningRates(low=1e-4, high=1e-4, trials=1), batch_size=8, num_train_epochs=1,
    early_stopping_patience=1, weight_decay=0.0, warmup_steps=0, max_grad_norm=1.0, dropout=0.0, dtype="auto",
    lr_scheduler_type="constant", embeddings_rate=1.0, metric_for_best_model="loss",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """What all rows share. `base` computes in the precision of training."""

    folder: Path  # of the model
    base: BaseModel
    end: int
    train: Dataset
    queries: list[list[int]]  # of the test pairs
    repeats: int
    steps: int


def initial_weights(method: Method) -> dict[str, Tensor]:
    """The initial weights of a method's trial, the same for every contender."""
    return method.initial_weights(torch.Generator().manual_seed(0))


def batches_of(bench: Bench, repeat: int) -> list[list[EncodedPair]]:
    """The first `steps` whole batches of an epoch as the stage train makes them: others in each repeat."""
    numbers = epoch_batches(bench.train, TRAINING.batch_size, 0, repeat)
    whole = (batch for batch in numbers if len(batch) == TRAINING.batch_size)
    parts = (bench.train[batch] for batch in islice(whole, bench.steps))
    return [list(map(EncodedPair, part["query"], part["response"])) for part in parts]


def load(arguments: argparse.Namespace) -> Bench:
    """Load what the rows share.

    Raises:
        StageError: there is no model, or there are no pairs.
    """
    for folder, stage in ((arguments.pairs, "pair-extract"), (arguments.model, "download")):
        if not folder.is_dir():
            raise StageError(folder, "missing", f"run `dvc repro {stage}`")
    check_folder(arguments.pairs)
    device = choose_device(load_params(to_run=False).runtime)
    fast = device.type == "cuda"
    train, test = (read_records(arguments.pairs / f"{split}.jsonl", Pair) for split in ("train", "test"))
    queries = [pair.query for pair in test[: arguments.queries or (None if fast else 128)]]
    base = load_base_model(arguments.model, device, arithmetic("auto", device))
    tokenizer = load_tokenizer(arguments.model)
    template = build_prompt_template(tokenizer, TEMPLATE, LENGTHS, "the prompt template of the benchmark")
    encoded = encode_pairs(train, tokenizer, template, LENGTHS)[0]
    asked = encode_queries(queries, tokenizer, template, LENGTHS)
    steps = arguments.steps or (32 if fast else 4)
    return Bench(arguments.model, base, template.end, encoded, asked, arguments.repeats, steps)
