"""Tiny base models, methods and examples for the tests of training and decoding."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import BaseModel
from stages.language_model.encoding import EncodedPair
from stages.language_model.loading import load_base_model
from stages.language_model.prompt_template import PromptTemplate, build_prompt_template
from stages.methods.method import Method
from stages.methods.registry import build_method
from stages.params.methods import Dynamic, FewShot, FineTune, Lora, MethodSettings, Prefix, Soft, ZeroShot
from stages.params.schema import Lengths, Training
from stages.params.sources import END_OF_TEXT, PromptTemplateText
from stages.train.step import Learner, lay_out, summed_loss
from tests.scratch import new_folder
from tests.tiny import tiny_model, tiny_protocol

FAMILIES = (("gpt2", True), ("llama", True), ("llama", False))
SETTINGS: dict[str, MethodSettings] = {
    "fine-tune": FineTune(kind="fine-tune"),
    "embeddings": FineTune(kind="embeddings"),
    "soft": Soft(kind="soft", prompt_tokens=32, init="random", train_embeddings=True),
    "soft-vocabulary": Soft(kind="soft", prompt_tokens=32, init="vocabulary", train_embeddings=True),
    "soft-classic": Soft(kind="soft", prompt_tokens=32, init="random", train_embeddings=False),
    "prompt-tuning": Soft(kind="soft", length=6, init="vocabulary", train_embeddings=False),
    "soft-deep": Soft(kind="soft", prompt_tokens=32, init="random", train_embeddings=False, depth="every-layer"),
    "dynamic": Dynamic(kind="dynamic", layers=1, init="random", train_embeddings=True),
    "dynamic-deep": Dynamic(
        kind="dynamic", layers=1, init="random", train_embeddings=True, depth="every-layer", rank=3
    ),
    "dynamic-identity": Dynamic(kind="dynamic", layers=1, init="identity", train_embeddings=True),
    "dynamic-first-layers": Dynamic(kind="dynamic", layers=1, init="first-layers", train_embeddings=True),
    "lora": Lora(kind="lora", rank=4, alpha=8, dropout=0.0, target_modules="all-linear"),
    "prefix": Prefix(kind="prefix", length=7, init="examples"),
    "prefix-vocabulary": Prefix(kind="prefix", length=5, init="vocabulary"),
    "prefix-random": Prefix(kind="prefix", length=5, init="random"),
    "few-shot": FewShot(kind="few-shot", examples=[1, 4], choose="random"),
    "zero-shot": ZeroShot(kind="zero-shot"),
}
TRAINING = Training.model_validate(
    tiny_protocol(batch_size=4, early_stopping_patience=2, weight_decay=0.0, warmup_steps=0, dropout=0.0)["training"]
)
LONG = Lengths(max_query_tokens=99, max_new_tokens=99)
TEXTS = PromptTemplateText(separator=END_OF_TEXT, end=END_OF_TEXT)  # as the tiny models of tests/tiny.py have it
KEY = "models.x.prompt_template"


def built(
    tokenizer: PreTrainedTokenizerBase, text: PromptTemplateText | str = TEXTS, lengths: Lengths = LONG
) -> PromptTemplate:
    return build_prompt_template(tokenizer, text, lengths, KEY)


@cache
def model_folder(family: str, tied: bool) -> Path:
    return tiny_model(new_folder("tiny-"), family, tied)


@cache
def _loaded(family: str, tied: bool, dropout: float, device: str, dtype: torch.dtype) -> BaseModel:
    return load_base_model(model_folder(family, tied), torch.device(device), dtype, dropout)


def base_model(
    family: str = "gpt2",
    tied: bool = True,
    dropout: float = 0.0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> BaseModel:
    return BaseModel(deepcopy(_loaded(family, tied, dropout, device, dtype).model))


def method(name: str, family: str = "gpt2", tied: bool = True, dropout: float = 0.0, device: str = "cpu") -> Method:
    return build_method(base_model(family, tied, dropout, device), SETTINGS[name])


def weights(method: Method, seed: int = 0) -> dict[str, Tensor]:
    rows = [pair.query + pair.response for pair in pairs(4, seed=5)]
    return method.initial_weights(torch.Generator().manual_seed(seed), rows)


def learner(method: Method, own: dict[str, Tensor] | None = None, **training: Any) -> Learner:
    """What a trial of a method trains, from its first weights or others."""
    return Learner(method, own or weights(method), TRAINING.model_copy(update=training), (40, 40))


def loss_of(method: Method, own: dict[str, Tensor], some: Sequence[EncodedPair]) -> Tensor:
    """The summed loss of a batch, as in training but without dropout."""
    return summed_loss(method, own, lay_out(method, some))


def plain_loss(model: Any, asked: list[int], response: list[int]) -> float:
    """The summed loss of a response behind some tokens, from one pass of plain transformers."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([asked + response])).logits[0, len(asked) - 1 : -1]
    return float(F.cross_entropy(logits, torch.tensor(response), reduction="sum"))


def plain_answer(model: Any, asked: list[int], count: int) -> list[int]:
    """So many tokens behind some others, from `generate` of plain transformers."""
    said = model.generate(input_ids=torch.tensor([asked]), max_new_tokens=count, do_sample=False, eos_token_id=None)
    found: list[int] = said[0, len(asked) :].tolist()
    return found


def moved_weights(method: Method) -> dict[str, Tensor]:
    """Weights that are no longer those of a start; what starts at zero in the layers is far from it."""
    generator, found = torch.Generator().manual_seed(1), weights(method)
    sizes = {key: 2.0 if key.startswith("depth") else 0.03 for key in found}
    return {key: value + sizes[key] * torch.randn(value.shape, generator=generator) for key, value in found.items()}


def pairs(count: int, seed: int = 0, longest: int = 9) -> list[EncodedPair]:
    """Random pairs; each side has 1 to `longest` tokens and end-of-text."""
    generator = torch.Generator().manual_seed(seed)

    def side() -> list[int]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return [*torch.randint(1, 250, (length,), generator=generator).tolist(), 0]

    return [EncodedPair(side(), side()) for _ in range(count)]


def limit_rows(module: ModuleType, name: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory for so many rows of a pass, which ends late, when masks have been drawn; what was tried is listed.

    The pass is the function `name`, whose third argument is or has the queries.
    """
    compute, tried = getattr(module, name), list[int]()

    def limited(*words: Any) -> Any:
        tried.append(len(getattr(words[2], "queries", words[2])))
        found = compute(*words)
        if tried[-1] > rows:
            raise torch.OutOfMemoryError("no memory")
        return found

    monkeypatch.setattr(module, name, limited)
    return tried
