"""The benchmark's data: a model, pairs, and samples of an epoch that are the same for every contender."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.bench.shapes import SHAPES
from stages.language_model.base_model import BaseModel
from stages.language_model.encoding import EncodedPair
from stages.methods.dynamic import DynamicMethod
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import Dynamic, FineTune, Soft, ZeroShot
from stages.params.schema import LearningRates, Lengths, Training
from stages.params.sources import END_OF_TEXT, PromptTemplateText
from stages.plumbing.errors import StageError
from stages.train.batches import BATCHES_PER_POOL, epoch_batches
from stages.train.trials import Trial, new_trial

# Fixed, independent of params.yaml, so that results of two machines can be compared.
LENGTHS = Lengths(max_query_tokens=64, max_new_tokens=32)
ROW_FORMAT = PromptTemplateText(separator=END_OF_TEXT, end=END_OF_TEXT)  # works with any model
BATCH_SIZE = 8  # App. B
LEARNING_RATE = 1e-4
SETTINGS: dict[str, FineTune | Soft | Dynamic | ZeroShot] = {
    "fine-tune": FineTune(kind="fine-tune"),
    "soft": Soft(kind="soft", prompt_tokens=LENGTHS.max_query_tokens, init="random", train_embeddings=True),
    "soft, embeddings frozen": Soft(
        kind="soft", prompt_tokens=LENGTHS.max_query_tokens, init="random", train_embeddings=False
    ),
    "dynamic": Dynamic(kind="dynamic", layers=2, init="random", train_embeddings=True),
    "zero-shot": ZeroShot(kind="zero-shot"),
}
TRAINING = Training(
    learning_rates=LearningRates(low=LEARNING_RATE, high=LEARNING_RATE, trials=1),
    batch_size=BATCH_SIZE, num_train_epochs=1, early_stopping_patience=1,
    weight_decay=0.0, warmup_steps=0, max_grad_norm=1.0, dropout=0.0,
    dtype="auto", lr_scheduler_type="constant", embeddings_rate=1.0, metric_for_best_model="bleu4",
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Everything that the rows of the benchmark share.

    `base` computes in the precision of training, `decoding_base` in float32; `queries` are those of the test pairs.
    """

    folder: Path
    base: BaseModel
    decoding_base: BaseModel
    end: int
    train: Sequence[EncodedPair]
    queries: list[list[int]]
    repeats: int
    steps: int
    trials: int

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return self.base.device

    def method(self, name: str) -> Method:
        """A method of SETTINGS, in the precision of training."""
        return build_method(self.base, SETTINGS[name])

    def sample(self, repeat: int, method: Method) -> list[list[EncodedPair]]:
        """`steps` batches of an epoch: a different sample in each repeat, the same for every contender."""
        return sample_of_epoch(self.train, self.steps, repeat, method)

    def typical_batch(self) -> list[EncodedPair]:
        """The batch of an epoch with prompts whose size is nearest to the mean."""
        batches = sample_of_epoch(self.train, BATCHES_PER_POOL, 0)
        sizes = [tokens_of(batch) for batch in batches]
        return min(batches, key=lambda batch: abs(tokens_of(batch) - float(np.mean(sizes))))


def initial_weights(method: Method) -> dict[str, Tensor]:
    """The initial weights of a method's trial, the same for every contender."""
    return method.initial_weights(torch.Generator().manual_seed(0))


def new_trials(method: Method, count: int) -> list[Trial]:
    """`count` new trials, all with one learning rate, which makes no difference to the cost."""
    initial = initial_weights(method)
    return [new_trial(initial, index, LEARNING_RATE, TRAINING, method.base.device) for index in range(count)]


def tokens_of(batch: Sequence[EncodedPair], method: type[Method] | Method = DynamicMethod) -> int:
    """The number of tokens in prompts, queries and responses together."""
    return int(method.row_tokens(batch).sum())


def sample_of_epoch(
    pairs: Sequence[EncodedPair], steps: int, seed: int, method: type[Method] | Method = DynamicMethod
) -> list[list[EncodedPair]]:
    """At most `steps` batches that represent an epoch: evenly spaced in size among those of one pool, then shuffled.

    Raises:
        StageError: there are fewer pairs than a batch needs.
    """
    generator = np.random.default_rng(seed)
    chosen = [pairs[index] for index in generator.permutation(len(pairs))[: BATCHES_PER_POOL * BATCH_SIZE]]
    batches = [
        [chosen[index] for index in batch]
        for batch in epoch_batches(method.row_tokens(chosen), BATCH_SIZE, seed, 0)
        if len(batch) == BATCH_SIZE
    ]
    if not batches:
        raise StageError("training pairs", f"only {len(pairs)}", f"give at least {BATCH_SIZE}, one batch")
    batches.sort(key=lambda batch: tokens_of(batch, method))
    count = min(steps, len(batches))
    sample = [batches[int((index + 0.5) * len(batches) / count)] for index in range(count)]
    return [sample[index] for index in generator.permutation(count)]


def byte_level_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocabulary` tokens, trained on the texts: usual row lengths without a download."""
    end = "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[end], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=end, eos_token=end)


@contextmanager
def random_model(shape: str, texts: Sequence[str]) -> Iterator[Path]:
    """A temporary folder with a randomly initialised model of one of SHAPES."""
    settings = dict(SHAPES[shape])
    with TemporaryDirectory(prefix="bench-") as name:
        tokenizer = byte_level_tokenizer(texts, settings.get("vocab_size", 50257))
        config = AutoConfig.for_model(
            **settings, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
        )
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(name)
        tokenizer.save_pretrained(name)
        yield Path(name)
