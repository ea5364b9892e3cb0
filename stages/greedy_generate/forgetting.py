"""What tuning destroys: how much worse the model reads text that it was not tuned on.

A frozen model keeps what it knows: that is the paper's motive for prompts (Sec. 1). So the model is read without a
prompt, but with whatever was trained of its own: word embeddings, LoRA's updates, everything. A prompt alone changes
nothing.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from stages.language_model.base_model import Weights
from stages.language_model.text_tokens import row_start, text_tokens
from stages.methods.method import EMBEDDINGS, Method
from stages.methods.trained_method import TrainedMethod
from stages.params.schema import BLANK_LINE, OF_SCIKIT_LEARN, Forgetting
from stages.plumbing.errors import StageError

BLOCK = 128  # tokens that are read together
BLOCKS_PER_PASS = 8
DRAWS = 10_000
WORD = re.compile(r"[\"'(]?[^\W\d_]+(?:['-][^\W\d_]+)*[.,;:!?)\"']*")  # with the marks around it
FEWEST_WORDS, SHARE_OF_WORDS = 12, 0.9  # of a paragraph of prose; the descriptions have tables, code and lists too


@dataclass(frozen=True)
class Passage:
    """The beginning of a text, in blocks of token ids, each with the beginning-of-text token that a row would have."""

    blocks: Tensor  # [N, BLOCK]
    paragraphs: Tensor  # [N, BLOCK], the number of each token's paragraph
    facts: dict[str, Any]  # the name of the text, and the sha256 of all of it


def passage_of(settings: Forgetting, text: str, tokenizer: PreTrainedTokenizerBase) -> Passage:
    """As many whole blocks of what `read_text` gave as `settings.tokens` are; StageError if these are one paragraph."""
    each = text_tokens(tokenizer, [f"{paragraph}\n\n" for paragraph in BLANK_LINE.split(text.strip())])
    ids = torch.tensor([token for own in each for token in own])
    numbers = torch.repeat_interleave(torch.arange(len(each)), torch.tensor([len(own) for own in each]))
    start = row_start(tokenizer)
    size = BLOCK - len(start)  # of the text in a block
    count = min(len(ids), settings.tokens) // size
    if count < 2 or not numbers[count * size - 1]:
        found = f"the first {min(len(ids), settings.tokens)} tokens are one paragraph, or fewer than {2 * BLOCK}"
        raise StageError("params.yaml: forgetting", found, "raise tokens, or name another text")
    blocks, paragraphs = (
        torch.cat([front.expand(count, -1), part[: count * size].view(count, size)], dim=1)
        for front, part in ((torch.tensor(start).long(), ids), (torch.zeros(len(start)).long(), numbers))
    )
    name = settings.text if settings.text == OF_SCIKIT_LEARN else Path(settings.text).name
    return Passage(blocks, paragraphs, {"text": name, "sha256": hashlib.sha256(text.encode()).hexdigest()})


def _is_prose(words: Sequence[str]) -> bool:
    return len(words) >= FEWEST_WORDS and sum(map(bool, map(WORD.fullmatch, words))) >= SHARE_OF_WORDS * len(words)


def read_text(settings: Forgetting) -> str:
    """The text that params.yaml names, of scikit-learn the prose; StageError if the file is another, or not text."""
    if settings.text == OF_SCIKIT_LEARN:
        folder = Path(str(distribution(OF_SCIKIT_LEARN).locate_file("sklearn/datasets/descr")))  # to import it is slow
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.rst"))]
        parts = (part.split() for text in sorted(texts, key=len, reverse=True) for part in BLANK_LINE.split(text))
        return "\n\n".join(" ".join(words) for words in parts if _is_prose(words))
    return settings.read_file()


def losses(method: Method, weights: Weights, blocks: Tensor) -> Tensor:
    """Cross-entropy of each block's tokens but the first, in nats: [N, BLOCK] -> [N, BLOCK - 1], in float64."""
    own, found = method.prepared(weights), []
    with torch.inference_mode():
        for part in blocks.to(method.base.device).split(BLOCKS_PER_PASS):
            hidden = method.transformer.hidden(method.embed(own, part), weights=method.layers(own))
            logits = method.base.logits(hidden[:, :-1], method.output(own)).float()
            loss = F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="none")
            found.append(loss.view(len(part), -1).cpu().double())
    return torch.cat(found)


def forgetting(trained: TrainedMethod, untouched: Method, passage: Passage) -> dict[str, Any]:
    """The loss before and after tuning, their difference, and its 95 % interval by a bootstrap over paragraphs.

    untouched: a method that trains nothing, on the same base model.
    """
    blocks = passage.blocks
    before = losses(untouched, {}, blocks)
    changed = EMBEDDINGS in trained.weights or trained.method.layers(trained.weights) is not None
    after = losses(trained.method, trained.weights, blocks) if changed else before
    difference = (after - before).numpy()
    numbers = passage.paragraphs[:, 1:].flatten().numpy()
    sums, counts = np.bincount(numbers, difference.ravel()), np.bincount(numbers)  # of each paragraph
    drawn = np.random.default_rng(0).integers(len(sums), size=(DRAWS, len(sums)))
    interval = np.quantile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), [0.025, 0.975])
    return {
        "loss_before": round(float(before.mean()), 4),
        "loss_after": round(float(after.mean()), 4),
        "difference": round(float(difference.mean()), 4),
        "interval": [round(float(end), 4) for end in interval],
        "tokens": blocks.numel(),
        **passage.facts,
    }
